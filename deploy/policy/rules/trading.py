"""Rules on phase, account and limits: what orders may do, and to whose money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.policy.facts import LAB, PRODUCTION, Facts
from deploy.policy.rule import Broken, Rule

_LIVE_NEEDS = ("max_daily_loss", "max_slippage_points", "max_consecutive_failures")


def _traders(facts: Facts) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any], str]]:
    """(Inf host, its settings, its limits, phase of its gateway) where both are known."""
    for host, settings in facts.of("inf"):
        limits = settings.get("fleet_limits")
        gateway = facts.hosts.get(str(settings.get("fleet_gateway")))
        phase = str(gateway.settings.get("gateway_account_phase")) if gateway is not None else ""
        if isinstance(limits, Mapping):
            yield host, settings, limits, phase


def _phase_left_open(facts: Facts) -> Iterator[Broken]:
    if facts.environment == PRODUCTION:
        for host, settings in facts.of("gateway"):
            if settings.get("gateway_account_phase") == "test":
                yield Broken(host, "gateway_account_phase is test, which takes demo and real accounts alike")


def _shadow_that_sends(facts: Facts) -> Iterator[Broken]:
    for host, _, limits, phase in _traders(facts):
        if phase == "shadow" and limits.get("dry_run") is not True:
            yield Broken(host, "its gateway is in phase shadow, and fleet_limits.dry_run is false")


def _live_that_sends_nothing(facts: Facts) -> Iterator[Broken]:
    for host, _, limits, phase in _traders(facts):
        if phase == "live" and limits.get("dry_run") is True:
            yield Broken(host, "its gateway is in phase live, and fleet_limits.dry_run is true")


def _live_without_limits(facts: Facts) -> Iterator[Broken]:
    for host, _, limits, phase in _traders(facts):
        missing = [name for name in _LIVE_NEEDS if limits.get(name) is None]
        if phase == "live" and missing:
            yield Broken(host, f"its gateway is in phase live, and fleet_limits has no {', '.join(missing)}")


def _live_without_phases(facts: Facts) -> Iterator[Broken]:
    if facts.environment == PRODUCTION:
        for host, settings in facts.of("gateway"):
            if settings.get("gateway_account_phase") == "live" and not settings.get("gateway_phases"):
                yield Broken(host, "it trades a real account, and gateway_phases is false")


def _no_limits(facts: Facts) -> Iterator[Broken]:
    for host, settings in facts.of("inf"):
        if settings.get("fleet_limits") is None:
            yield Broken(host, "fleet_limits is not set")


def _volumes(facts: Facts) -> Iterator[Broken]:
    for host, settings, limits, _ in _traders(facts):
        volume, order = settings.get("strategy_volume", 0), limits["max_order_volume"]
        position = limits["max_position_volume"]
        if volume > order:
            yield Broken(host, f"strategy_volume {volume} is above fleet_limits.max_order_volume {order}")
        if order > position:
            yield Broken(
                host, f"fleet_limits.max_order_volume {order} is above max_position_volume {position}"
            )


def _symbols(facts: Facts) -> Iterator[Broken]:
    for host, settings, limits, _ in _traders(facts):
        symbol, allowed = settings.get("strategy_symbol"), limits.get("symbols") or ()
        if symbol is not None and symbol not in allowed:
            yield Broken(
                host, f"strategy_symbol {symbol} is not in fleet_limits.symbols ({', '.join(allowed)})"
            )


def _other_account(facts: Facts) -> Iterator[Broken]:
    for host, settings in facts.of("gateway"):
        name = "gateway_mt5_login" if settings.get("gateway_backend") == "mt5" else "gateway_sim_login"
        wanted, login = settings.get("fleet_account_login"), settings.get(name)
        if wanted is not None and login is not None and login != wanted:
            yield Broken(host, f"{name} is {login}, fleet_account_login {wanted}")


def _injected_faults(facts: Facts) -> Iterator[Broken]:
    if facts.environment != LAB:
        for host, settings in facts.of("gateway"):
            if settings.get("gateway_sim_faults"):
                yield Broken(host, "gateway_sim_faults is true")


def _simulated_production(facts: Facts) -> Iterator[Broken]:
    if facts.environment == PRODUCTION:
        for host, settings in facts.of("gateway"):
            if settings.get("gateway_backend") == "sim":
                yield Broken(host, "gateway_backend is sim: its orders reach no market")


RULES = (
    Rule(
        "TRD-001",
        "P1",
        "In production a gateway is for demo or for real accounts, not for any",
        "With phase test a terminal that is logged in to the wrong account trades it.",
        "Set gateway_account_phase to shadow (never a real account) or live (only real ones).",
        _phase_left_open,
    ),
    Rule(
        "TRD-002",
        "P0",
        "In phase shadow no order is sent",
        "Shadow is there to check orders without sending them; dry_run is what keeps them back.",
        "Set dry_run: true in fleet_limits, or change gateway_account_phase on purpose.",
        _shadow_that_sends,
    ),
    Rule(
        "TRD-003",
        "P3",
        "In phase live orders are sent",
        "A strategy that seems to trade, and sends nothing, looks healthy.",
        "Set dry_run: false in fleet_limits once that is decided.",
        _live_that_sends_nothing,
    ),
    Rule(
        "TRD-004",
        "P0",
        "In phase live losses, slippage and failures are limited",
        "What is null is not limited, and a faulty strategy loses until somebody looks.",
        "Set max_daily_loss, max_slippage_points and max_consecutive_failures in fleet_limits.",
        _live_without_limits,
    ),
    Rule(
        "TRD-005",
        "P2",
        "Every magic number has limits",
        "A magic number without limits may not trade at all: its strategy runs for nothing.",
        "Set fleet_limits.",
        _no_limits,
    ),
    Rule(
        "TRD-006",
        "P1",
        "The volumes of a strategy fit its limits",
        "The gateway would refuse every order, or a position could never reach its limit.",
        "Correct strategy_volume or fleet_limits.",
        _volumes,
    ),
    Rule(
        "TRD-007",
        "P1",
        "A strategy may trade its own symbol",
        "The gateway would refuse every order.",
        "Add the symbol to fleet_limits.symbols, or correct strategy_symbol.",
        _symbols,
    ),
    Rule(
        "TRD-008",
        "P1",
        "A gateway's account is the one that the fleet expects",
        "Reconciler and strategy refuse another account, so nothing would trade.",
        "Correct fleet_account_login or the gateway's login.",
        _other_account,
    ),
    Rule(
        "TRD-009",
        "P0",
        "Faults are injected in a lab only",
        "The simulated broker then answers wrongly on purpose.",
        "Remove gateway_sim_faults.",
        _injected_faults,
    ),
    Rule(
        "TRD-010",
        "P2",
        "Production trades at a broker",
        "A simulated broker looks like success and reaches no market.",
        "Set gateway_backend: mt5 (docs/windows.md).",
        _simulated_production,
    ),
    Rule(
        "TRD-011",
        "P2",
        "A real account in production is traded under phases",
        "Without phases a new strategy trades at the full size of its limits from its first order.",
        "Name who may promote in fleet_phase_signers (docs/phases.md).",
        _live_without_phases,
    ),
)
