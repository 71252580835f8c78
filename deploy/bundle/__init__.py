"""The signed bundle of wheels, and the release tool: `python -m deploy.bundle`."""
