"""The date is set forward or back: no deadline comes earlier or later, only the boot clock counts."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mt5crs_release.errors import BusyError
from mt5crs_release.generations import machine
from mt5crs_release.generations.session import Session
from mt5crs_release.generations.state import Transaction
from mt5crs_release.lifecycle import transaction as transactions
from mt5crs_release.lifecycle.recovery import pending_event
from mt5crs_release.records.deployments import Deployments
from mt5crs_release.storage import journal
from mt5crs_release.storage.lock import boot_id
from mt5crs_release.storage.paths import Host

DAY_S = 86_400.0
JUMPS = pytest.mark.parametrize("jump_s", [-DAY_S, 0.0, DAY_S], ids=["back", "none", "forward"])


class Clocks:
    """The clocks of a host: seconds since boot, and the date, which somebody may set."""

    def __init__(self) -> None:
        self.boot = 1_000.0
        self.date = datetime(2026, 1, 15, tzinfo=timezone.utc)

    def set_date(self, by_s: float) -> None:
        self.date += timedelta(seconds=by_s)

    def read(self, which: int) -> float:
        return self.boot if which == time.CLOCK_BOOTTIME else self.date.timestamp()


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()

    class Date(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return made.date.astimezone(tz)

    monkeypatch.setattr(time, "clock_gettime", made.read)
    monkeypatch.setattr(time, "time", lambda: made.date.timestamp())
    for module in (transactions, journal):
        monkeypatch.setattr(module, "datetime", Date)
    return made


@JUMPS
def test_an_unconfirmed_generation_goes_back_at_its_deadline_whatever_the_date(
    clocks: Clocks, jump_s: float
) -> None:
    transaction = Transaction("0002-b", "0001-a", "", 0.0, boot_id=boot_id())
    transactions.set_deadline(transaction, 30.0)
    found = SimpleNamespace(
        state=SimpleNamespace(generations={"0002-b": SimpleNamespace(state=machine.PROVISIONAL)}),
        pointer=lambda: "0002-b",
    )
    session = cast("Session", found)
    clocks.set_date(jump_s)
    clocks.boot += 29.0
    assert pending_event(session, transaction) is None
    clocks.boot += 1.0
    event = pending_event(session, transaction)
    assert event is not None
    assert event[0] == "deadline"


@JUMPS
def test_the_holder_of_the_fleets_lock_is_replaced_at_its_limit_whatever_the_date(
    clocks: Clocks, jump_s: float, tmp_path: Path
) -> None:
    kept = Deployments(Host(tmp_path))
    person = {
        "who": "somebody",
        "controller": "order_manager",
        "started": "2026-01-15T00:00:00+00:00",
        "limit_s": 60,
    }
    kept.open({**person, "id": "first"})
    clocks.set_date(jump_s)
    clocks.boot += 59.0
    with pytest.raises(BusyError):
        kept.open({**person, "id": "second"})
    clocks.boot += 2.0
    assert kept.open({**person, "id": "second"})["took_over"]["id"] == "first"
