"""The order of the unit tests."""

import pytest

LONGEST = ("tests/unit/test_fleet_machine.py", "tests/unit/gateway/test_machine.py")
"""Each has one test that takes as long as hundreds of others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: none of them may be what the other processes wait for at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
