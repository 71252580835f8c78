"""The deployer that holds the fleet's lock is stopped: refused to others until the limit, then taken over."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from lab.handle import wait_until
from tests.faults.fleet.arena import NEW, Arena, note
from tests.faults.fleet.controller import ACTIVATE_GATEWAY, since
from tests.lab.deployers import kept

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow(reason="a lock holder that dies is tried in tests/lab/test_deployment_record.py"),
    pytest.mark.timeout(600),
]


def holder(arena: Arena) -> dict[str, Any] | None:
    found: dict[str, Any] | None = kept(arena.fleet.lab)["holder"]
    return found


def test_a_stopped_deployer_is_replaced_by_rule(arena: Arena) -> None:
    before = arena.generations()
    arena.release()
    first = arena.begin()
    first.wait_for(ACTIVATE_GATEWAY)
    began = time.monotonic()
    first.hit(signal.SIGSTOP)
    try:
        held = holder(arena)
        assert held is not None
        refused = arena.begin().end()
        assert refused.status != 0
        assert f"id {held['id']}" in refused.output
        wait_until(lambda: (holder(arena) or {}).get("gone") is True, 120, "the limit of heartbeats")
        second = arena.begin("--data", "strategy=all_at_once").end()
        assert second.status == 0, second.output[-4000:]
        assert "took the fleet's lock over" in second.output
        assert held["id"] in second.output
    finally:
        first.hit(signal.SIGCONT)
    late = first.end()
    assert late.status != 0
    assert "lost the fleet's lock" in late.output, late.output[-4000:]
    assert arena.wait_converged(before) == NEW
    note("SIGSTOP of the lock's holder", ACTIVATE_GATEWAY.name, NEW + " (next run)", since(began))
    arena.check_order_flow()
