"""From a commit to a proven fleet: stages that leave a signed record, and refuse without the one before."""
