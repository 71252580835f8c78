"""Watches the Hub from an Inf host and tells of its silence by a path that does not lead over the Hub."""
