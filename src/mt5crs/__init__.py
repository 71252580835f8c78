"""Programs of an MT5 trading fleet: gateway, reconciler, strategy and their checks."""
