"""A simulated broker that behaves as MetaTrader 5 does, with books of its own that survive crashes."""
