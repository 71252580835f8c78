"""One deployer at a time, and what goes on beside it: lock, heartbeats, deadlines, checks, recovery."""
