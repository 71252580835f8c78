"""A whole fleet on loopback, for drills that kill it."""
