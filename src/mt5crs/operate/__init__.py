"""Commands for one gateway or all of a fleet: look, halt, close, resume."""
