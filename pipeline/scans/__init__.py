"""Scans of sources and of what was built; one that could not reach its data never says `clean`."""
