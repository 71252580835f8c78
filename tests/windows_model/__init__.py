"""A modelled Windows host for tests; see README.md."""
