"""Controller side: the inventory, the parts and the roll-out."""
