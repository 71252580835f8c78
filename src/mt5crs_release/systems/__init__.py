"""The operating system: one interface, and what Linux and Windows do for it."""
