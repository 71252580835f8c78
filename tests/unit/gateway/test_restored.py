"""A gateway whose journal came from a backup forgets no order: the broker's books have it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.backup import on_host
from mt5crs.broker.interface import BrokerError
from mt5crs.gateway import beginning, order_manager
from mt5crs.gateway.journal import Journal, replayed, restorations
from mt5crs.protocol.records import Deal
from mt5crs.protocol.replies import Error, OrderResult
from mt5crs.service.database import BrokenError
from tests.unit.gateway.counter import MAGIC, Counter
from tests.unit.gateway.test_limits import filled

BACKUP = "20261101T120000Z-01234567"
HOUR_MS = 3600_000


def copied(counter: Counter, directory: Path) -> dict[str, bytes]:
    """A backup's copy of the gateway's files, made while it runs."""
    files = {}
    for name in ("journal.db", "control.db"):
        on_host._copy_database(counter.directory / name, directory / name)
        files[name] = (directory / name).read_bytes()
    return files


def restored(counter: Counter, files: dict[str, bytes], *, lose: bool) -> Counter:
    """Stopped, restored and started again; `lose`: with nothing of the present files."""
    for part in (counter.broker, counter.journal, counter.control):
        part.close()
    if lose:
        for path in counter.directory.glob("*.db*"):
            path.unlink()
    told = on_host.put_back(counter.directory, BACKUP, files)
    assert all(told["taken_over"].values()) is not lose
    again = Counter(counter.directory, now=counter.now)
    again.limits, again._number = counter.limits, counter._number
    return again


@pytest.mark.parametrize("lose", [True, False])
def test_an_order_that_was_sent_after_the_backup_is_not_sent_again(tmp_path: Path, lose: bool) -> None:
    (tmp_path / "gateway").mkdir()
    counter = Counter(tmp_path / "gateway")
    filled(counter.order(client_order_id="before"))
    (tmp_path / "copy").mkdir()
    files = copied(counter, tmp_path / "copy")
    counter.now += 30_000
    since = filled(counter.order(client_order_id="since"))
    epoch = counter.epoch
    again = restored(counter, files, lose=lose)
    assert again.control.halts()[0].reason.startswith(f"restored from backup {BACKUP}.")
    halted = again.order(client_order_id="new")
    assert isinstance(halted, Error)
    assert halted.code == "HALTED"
    again.control.resume("FLEET", 0, "ops", "looked")
    assert again.epoch > epoch, "no lease of before is handed out again"
    for known in ("before", "since"):
        answer = filled(again.order(client_order_id=known, lease_epoch=epoch))
        assert answer.replayed
    assert answer.deals == since.deals
    assert len(again.broker.books().positions) == 2
    assert ("order.forgotten" in again.notes) is lose
    filled(again.order(client_order_id="newer"))
    assert len(again.broker.books().positions) == 3


def test_a_close_and_a_working_order_of_after_the_backup_are_found_too(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    counter = Counter(tmp_path / "gateway")
    position = filled(counter.order(client_order_id="before"))
    (tmp_path / "copy").mkdir()
    files = copied(counter, tmp_path / "copy")
    filled(counter.close(position.position, client_order_id="close"))
    placed = counter.order(client_order_id="limit", type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    again = restored(counter, files, lose=True)
    again.control.resume("FLEET", 0, "ops", "looked")
    filled(again.close(position.position, client_order_id="close"))
    told = again.order(client_order_id="limit", type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(told, OrderResult)
    assert (told.outcome, told.order) == ("PLACED", placed.order)
    assert len(again.broker.books().orders) == 1


def test_while_the_books_cannot_be_read_nothing_unknown_is_sent(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    counter = Counter(tmp_path / "gateway")
    filled(counter.order(client_order_id="before"))
    (tmp_path / "copy").mkdir()
    files = copied(counter, tmp_path / "copy")
    again = restored(counter, files, lose=True)
    again.control.resume("FLEET", 0, "ops", "looked")
    again.fault(fail_queries=9)
    refused = again.order(client_order_id="new")
    assert isinstance(refused, Error)
    assert len(again.broker.books().positions) == 1


def test_a_journal_that_was_never_restored_costs_no_look(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    assert counter.journal.restored_since(counter.now) is None
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute("INSERT INTO restorations VALUES ('x', 5, 1000)")
        db.commit()
    now_s = 0.0
    with closing(Journal(tmp_path / "journal.db", "x", monotonic=lambda: now_s)) as again:  # started after it
        assert again.restored_since(2000) == 5
        assert restorations(tmp_path / "journal.db") == [5]
        assert again.restored_since(1000 + 25 * HOUR_MS) == 5, "a wall clock that is set ends no day"
        now_s = 25 * 3600.0
        assert again.restored_since(1000 + 25 * HOUR_MS) is None, "after a day it is over"


def test_every_submission_of_a_journal_can_be_read_again(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    filled(counter.order())
    target = tmp_path / "copy.db"
    on_host._copy_database(tmp_path / "journal.db", target)
    ((account, entry),) = replayed(target)
    assert (account, entry.request.magic, entry.state) == ("x", MAGIC, "done")
    with closing(sqlite3.connect(target)) as db:
        db.execute("UPDATE submissions SET answer = '{'")
        db.commit()
    with pytest.raises(BrokenError):
        replayed(target)


@pytest.fixture
def same_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Counter], None]:
    """Has the gateway's own clock show what the broker's does."""

    def set_to(counter: Counter) -> None:
        for module in (beginning, order_manager):
            monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: counter.now * 1_000_000))

    return set_to


def reinstalled(counter: Counter, *, look: bool = True, wrong_ms: int = 0) -> Counter:
    """Nothing is left of the gateway but the broker's books, as on a host that was set up anew; `wrong_ms`:
    how far its clock is ahead then.
    """
    for part in (counter.broker, counter.journal, counter.control):
        part.close()
    for path in counter.directory.glob("*.db*"):
        path.unlink()
    Journal(counter.directory / "journal.db", "x", durable=False).begins_at_nothing(counter.now + wrong_ms)
    again = Counter(counter.directory, now=counter.now, look=look)
    again.limits, again._number = counter.limits, counter._number
    return again


def test_a_gateway_that_was_reinstalled_sends_nothing_again_that_the_books_show(
    tmp_path: Path, same_clock: Callable[[Counter], None]
) -> None:
    """The strategy had no answer when the host went, and asks for the order once more."""
    counter = Counter(tmp_path)
    same_clock(counter)
    asked = filled(counter.order(client_order_id="asked"))
    again = reinstalled(counter)
    answer = filled(again.order(client_order_id="asked"))
    assert (answer.replayed, answer.deals) == (True, asked.deals)
    assert len(again.broker.books().positions) == 1
    filled(again.order(client_order_id="new"))
    assert again.journal.doubts_its_beginning, (
        "a gateway was before, so the next unknown id is looked for, too"
    )
    assert restorations(again.directory / "journal.db") == [], "no backup was restored"


@pytest.mark.parametrize("wrong_days", [3, -3])
def test_a_host_that_was_reinstalled_may_have_a_clock_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_days: int
) -> None:
    """It is put right when the gateway runs already."""
    counter = Counter(tmp_path)
    wrong_ms = wrong_days * 24 * HOUR_MS
    monkeypatch.setattr("time.time_ns", lambda: (counter.now + wrong_ms) * 1_000_000)
    asked = filled(counter.order(client_order_id="asked"))
    again = reinstalled(counter, wrong_ms=wrong_ms)
    wrong_ms = 0
    answer = filled(again.order(client_order_id="asked"))
    assert (answer.replayed, answer.deals) == (True, asked.deals)
    assert len(again.broker.books().positions) == 1


@pytest.mark.parametrize("west_hours", [0, 12])
def test_a_backup_without_an_order_says_from_when_on_orders_are_missing(
    tmp_path: Path, west_hours: int
) -> None:
    """Days lie between it and its restoration; the broker may be half a day west of those who made it."""
    (tmp_path / "gateway").mkdir()
    made_msc = 1_793_534_400_000  # as the name of the backup says
    counter = Counter(tmp_path / "gateway", now=made_msc - west_hours * HOUR_MS)
    (tmp_path / "copy").mkdir()
    files = copied(counter, tmp_path / "copy")
    counter.now += HOUR_MS
    since = filled(counter.order(client_order_id="since", lease_epoch=renewed(counter)))
    counter.now += 48 * HOUR_MS
    again = restored(counter, files, lose=True)
    again.control.resume("FLEET", 0, "ops", "looked")
    answer = filled(again.order(client_order_id="since", lease_epoch=counter.epoch))
    assert (answer.replayed, answer.deals) == (True, since.deals)
    assert len(again.broker.books().positions) == 1


def renewed(counter: Counter) -> int:
    """A lease that has run out, taken again."""
    counter.epoch = counter.control.acquire(MAGIC, "c", "run", 60_000)
    return counter.epoch


def test_a_first_gateway_looks_at_the_books_once(
    tmp_path: Path, same_clock: Callable[[Counter], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(tmp_path)
    same_clock(counter)
    first = reinstalled(counter, look=False)
    assert first.journal.restored_since(counter.now) is not None
    with monkeypatch.context() as patch:
        patch.setattr(first.broker, "deals", unreadable)
        with pytest.raises(BrokerError):
            first.order_manager.look()
        assert first.journal.doubts_its_beginning, "unknown is not none"
        assert isinstance(first.order(client_order_id="first"), Error)
    filled(first.order(client_order_id="second"))
    assert not first.journal.doubts_its_beginning
    assert first.journal.restored_since(counter.now) is None
    assert not first.restarted().journal.doubts_its_beginning


def unreadable(_since: int) -> list[Deal]:
    raise BrokerError(-1, "no history")
