"""Checks and operations behind the `mt5crs` command."""
