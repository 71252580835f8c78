"""The order of the unit tests, and what they share."""

import pytest

LONGEST = ("tests/unit/test_fleet_machine.py", "tests/unit/gateway/test_machine.py")
"""Each has one test that takes as long as hundreds of others."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make unit-reversed` ask."""
    parser.addoption("--reversed", action="store_true", help="files in reverse order: none may need another")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest first: none of them may be what the other processes wait for at the end."""
    if config.getoption("--reversed"):
        files = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
        items.sort(key=lambda item: -files[item.path])
    else:
        items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
