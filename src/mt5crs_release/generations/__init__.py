"""Generations on a host: what they hold, which there are, and what is going on with them."""
