"""The fleet as it is described: inventory, settings, vault, templates."""
