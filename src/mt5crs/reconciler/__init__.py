"""The reconciler of an Inf node: knows the broker's state of one magic number, or halts."""
