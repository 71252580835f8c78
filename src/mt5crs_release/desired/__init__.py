"""What a host is to run, as documents: read, checked and identified. Nothing here acts."""
