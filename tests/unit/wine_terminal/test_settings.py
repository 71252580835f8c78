"""A terminal under Wine is asked for with all that it needs."""

from __future__ import annotations

from typing import Any

import pytest

from mt5crs.settings.gateway import GatewayDeployment, GatewaySettings

MT5: dict[str, Any] = {
    "bind": "127.0.0.1",
    "secret_key": "0" * 64,
    "backend": "mt5",
    "platform": "wine",
    "wine_display": ":1",
    "mt5_path": "C:/Program Files/Broker/terminal64.exe",
    "mt5_login": 5000001,
    "mt5_password": "x",
    "mt5_server": "Broker-Demo",
}


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, ""),
        ({"wine_display": ""}, "WINE_DISPLAY is missing"),
        ({"wine_display": "", "platform": "native"}, ""),
        ({"mt5_path": "C:/it's/terminal64.exe"}, "MT5_PATH holds one of"),
        ({"mt5_path": "C:/50%/terminal64.exe"}, "MT5_PATH holds one of"),
        ({"mt5_path": "C:/it's/terminal64.exe", "platform": "native"}, ""),
    ],
)
def test_what_a_terminal_under_wine_needs(changed: dict[str, Any], word: str) -> None:
    found = list(GatewaySettings(**MT5 | changed).problems())
    assert [word in each for each in found] == ([True] if word else []), found


@pytest.mark.parametrize(("network", "found"), [("203.0.113.0/24", 0), ("203.0.113.9/24", 1), ("x", 1)])
def test_networks_of_a_terminal(network: str, found: int) -> None:
    told = list(GatewayDeployment(clients=[], wine_networks=[network]).problems())
    assert len([each for each in told if "gateway_wine_networks" in each]) == found
