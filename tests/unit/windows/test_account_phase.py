"""A demo account in a live phase, a real one in a shadow phase, another login: never ready, never traded."""

from __future__ import annotations

from typing import Any

import pytest

from mt5crs.gateway.expected_account import ExpectedAccount
from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol.records import Identity
from mt5crs.settings.gateway import GatewaySettings, Phase, account_problem
from mt5crs.settings.schema import SettingsError, load

ENVIRONMENT = {
    "GATEWAY_BIND": "192.0.2.1",
    "GATEWAY_SECRET_KEY": "0" * 64,
    "GATEWAY_BACKEND": "sim",
}


def identity(**changes: Any) -> Identity:
    """What the terminal shows."""
    fields: dict[str, Any] = {
        "login": 5,
        "server": "Broker",
        "trade_mode": "DEMO",
        "margin_mode": "HEDGING",
        "currency": "EUR",
        "connected": True,
        "trade_allowed": True,
    }
    return Identity(**(fields | changes))


def expected(phase: Phase) -> ExpectedAccount:
    """The account that a gateway of this phase is configured for."""
    return ExpectedAccount(5, "Broker", phase)


@pytest.mark.parametrize(
    ("phase", "allowed"),
    [("test", {"DEMO", "CONTEST", "REAL"}), ("shadow", {"DEMO", "CONTEST"}), ("live", {"REAL"})],
)
def test_which_accounts_a_phase_takes(phase: Phase, allowed: set[str]) -> None:
    for kind in ("DEMO", "CONTEST", "REAL"):
        problem = account_problem(phase, kind)
        assert (problem is None) == (kind in allowed)
        if problem is None:
            expected(phase).require_account(identity(trade_mode=kind))
        else:
            with pytest.raises(Refusal, match=f"{kind} account") as caught:
                expected(phase).require_account(identity(trade_mode=kind))
            assert (caught.value.code, caught.value.field) == ("NOT_READY", "trade_mode")


@pytest.mark.parametrize("wrong", [{"login": 6}, {"server": "Other"}])
def test_another_account_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="the terminal shows"):
        expected("test").require_account(identity(**wrong))


@pytest.mark.parametrize(
    ("phase", "kind", "good"),
    [("shadow", "REAL", False), ("live", "DEMO", False), ("live", "REAL", True), ("shadow", "DEMO", True)],
)
def test_start_up_refuses_a_simulated_account_of_the_wrong_kind(phase: str, kind: str, good: bool) -> None:
    environment = ENVIRONMENT | {"GATEWAY_PHASE": phase, "SIM_TRADE_MODE": kind}
    if good:
        assert load(GatewaySettings, environment).account_phase == phase
        return
    with pytest.raises(SettingsError, match="GATEWAY_PHASE"):
        load(GatewaySettings, environment)
