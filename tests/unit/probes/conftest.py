"""The fleet fixture."""

from tests.unit.reconciler.conftest import fleet

__all__ = ["fleet"]
