"""The vault of an environment: read, changed in one step, edited, given another password."""
