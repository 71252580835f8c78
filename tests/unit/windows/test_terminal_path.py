"""The terminal's path stands with forward slashes in `.env` and reaches the terminal as Windows writes it."""

from __future__ import annotations

from typing import Any

import pytest

from mt5crs.broker.mt5 import Mt5Broker, Terminal


class Package:
    """Stands for the MetaTrader5 package; keeps what it was started with."""

    path = ""

    def initialize(self, path: str, **_: Any) -> bool:
        """Note the path."""
        self.path = path
        return True

    def account_info(self) -> object:
        """Something."""
        return object()

    terminal_info = account_info


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("C:/Terminals/broker/terminal64.exe", r"C:\Terminals\broker\terminal64.exe"),
        ("C:/Program Files/x/../y//terminal64.exe", r"C:\Program Files\y\terminal64.exe"),
        (r"C:\x\terminal64.exe", r"C:\x\terminal64.exe"),
    ],
)
def test_path(given: str, expected: str) -> None:
    package = Package()
    terminal = Terminal(path=given, login=1, password="p", server="s", timeout_s=1, portable=True)
    Mt5Broker(terminal, package=package).start()
    assert package.path == expected
