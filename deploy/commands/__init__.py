"""Commands of `mt5crs --inventory` that know a fleet; on its controller only."""
