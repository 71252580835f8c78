"""A host of the fleet moves to another address: looked at, written into the inventory, told, taken back."""
