"""The part of the model that is copied to the host (standard library only)."""
