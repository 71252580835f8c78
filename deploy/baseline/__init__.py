"""What every Linux host needs before a service is put on it; alike for both engines."""
