"""The strategy runner and the API that strategies are written against (docs/strategy.md)."""
