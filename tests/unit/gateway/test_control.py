"""Leases where only their own file matters."""

from pathlib import Path

import pytest

from mt5crs.gateway.control import Control
from mt5crs.gateway.refusal import Refusal


def test_a_longer_lease_made_by_asking_again_is_waited_for_after_a_restart(tmp_path: Path) -> None:
    now = 0.0

    def opened() -> Control:
        return Control(tmp_path / "control.db", "x", monotonic=lambda: now, durable=False)

    control = opened()
    epoch = control.acquire(7, "a", "run-a", 1_000)
    assert control.acquire(7, "a", "run-a", 60_000) == epoch
    control.close()
    control = opened()
    now = 59.0
    with pytest.raises(Refusal, match="LEASE_HELD"):
        control.acquire(7, "b", "run-b", 1_000)
    now = 61.0
    assert control.acquire(7, "b", "run-b", 1_000) == epoch + 1
    control.close()
