"""Roll-outs good and bad, of all strategies and both engines, while two strategies trade all the time."""

from __future__ import annotations

import os
import time

import pytest

from tests.faults.fleet.arena import NEW, OLD, Arena, note

ROLL_OUTS = int(os.environ.get("MT5CRS_ROLL_OUTS", "2"))
"""Two are a sample for every run; twelve are the cycle of every pair of strategy and outcome."""
pytestmark = [pytest.mark.lab, pytest.mark.timeout(0 if ROLL_OUTS > 12 else 2400)]

# Engine, strategy, good. The first two hold what differs most.
CYCLE = (
    ("pyinfra", "rolling", False),
    ("pyinfra", "blue_green", True),
    ("pyinfra", "rolling", True),
    ("ansible", "all_at_once", True),
    ("pyinfra", "canary", True),
    ("pyinfra", "all_at_once", False),
    ("pyinfra", "all_at_once", True),
    ("pyinfra", "canary", False),
    ("ansible", "rolling", True),
    ("pyinfra", "blue_green", False),
    ("ansible", "blue_green", True),
    ("ansible", "canary", False),
)
ROLL_BACK_AFTER = (1, 8)


def test_roll_outs_under_order_flow(arena: Arena) -> None:
    deals = arena.check_order_flow()
    for number in range(ROLL_OUTS):
        engine, strategy, good = CYCLE[number % len(CYCLE)]
        before = arena.generations()
        arena.release(good=good)
        began = time.monotonic()
        choice = ("--data", f"strategy={strategy}")
        if engine == "ansible":
            choice = ("-e", f"fleet_strategy={strategy}")
        ran = arena.begin(*choice, engine=engine).end()
        seconds = time.monotonic() - began
        assert (ran.status == 0) is good, ran.output[-4000:]
        found = arena.converged(before)
        assert found == (NEW if good else OLD), (found, ran.output[-4000:])
        total = arena.check_order_flow()
        kind = f"{engine} {strategy}"
        note(f"order flow, {'good' if good else 'bad'} release", kind, found, seconds)
        assert total > deals
        deals = total
        if number % len(CYCLE) in ROLL_BACK_AFTER:
            ran = arena.fleet.rollback_with_pyinfra("fleet")
            assert ran.status == 0, ran.output[-4000:]
            assert arena.generations() == before
            deals = arena.check_order_flow()
            note("order flow, fleet rolled back", "pyinfra", OLD, ran.record["seconds"])
    note(f"order flow, {ROLL_OUTS} roll-outs", "", f"{deals} deals, no violation", 0.0)
