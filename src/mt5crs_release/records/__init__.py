"""What the Hub keeps for a fleet: deployments, its lock, the audit log."""
