"""A copy is consistent, encrypted, found out when damaged, kept for its time, put back only when stopped."""

from __future__ import annotations

import base64
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.backup import copies, on_host, proving
from deploy.backup.copies import CopyError
from mt5crs.gateway.journal import Entry, new_entry
from mt5crs.protocol.records import Deal
from mt5crs.protocol.replies import OrderResult
from mt5crs.protocol.requests import OrderSend
from tests.unit.orders import TERMS

FIRST, SECOND = "20261101T000000Z-00000001", "20261102T000000Z-00000002"
PASSWORD = "correct horse battery"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with a gateway that was deployed, and its journal."""
    current = tmp_path / "base/gateway/generations/0001-aa"
    (current / "venv").mkdir(parents=True)
    (current / "venv/big").write_text("code")
    (current / ".env").write_text("A='b'\n")
    (tmp_path / "base/gateway/current").symlink_to(current)
    (tmp_path / "base/gateway/journal.jsonl").write_text("".join(f"{n}\n" for n in range(on_host.EVENTS + 5)))
    (tmp_path / "state/gateway").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "state/gateway/journal.db")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE pairs (n INTEGER)")
        db.commit()
    monkeypatch.setattr(on_host, "BASE", tmp_path / "base")
    monkeypatch.setattr(on_host, "STATE", tmp_path / "state")
    monkeypatch.setattr(on_host, "KEPT", tmp_path / "state/backups")
    monkeypatch.setattr(on_host, "FIGURES", tmp_path / "figures")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, says in (("journalctl", "an event"), ("systemctl", "active")):
        (programs / name).write_text(f"#!/bin/sh\necho {says}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path


def taken() -> bytes:
    return base64.b64decode(on_host.take()["content"])


@pytest.fixture
def writing(host: Path) -> Iterator[None]:
    """The gateway writes two rows at a time, as fast as it can."""
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(host / "state/gateway/journal.db", timeout=10)) as db:
            while not stop.is_set():
                db.executemany("INSERT INTO pairs VALUES (?)", [(1,), (2,)])
                db.commit()

    thread = threading.Thread(target=write)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("writing")
def test_a_copy_that_is_taken_while_it_is_written_is_whole_and_holds_what_it_says(tmp_path: Path) -> None:
    files = copies.files_of(taken())
    assert files["config/gateway/current/.env"] == b"A='b'\n"
    assert files["events/gateway.jsonl"] == b"an event\n"
    assert not [name for name in files if "venv" in name]
    kept = files["config/gateway/journal.jsonl"].splitlines()
    assert (len(kept), kept[-1]) == (on_host.EVENTS, str(on_host.EVENTS + 4).encode())
    (database,) = copies.restored(files, tmp_path / "scratch")
    with closing(sqlite3.connect(database)) as db:
        ((ones,), (twos,)) = (
            db.execute("SELECT COUNT(*) FROM pairs WHERE n = ?", (n,)).fetchone() for n in (1, 2)
        )
    assert ones == twos


def test_what_is_kept_is_encrypted_and_every_damage_is_found(host: Path, tmp_path: Path) -> None:
    content = taken()
    kept = copies.sealed(content, PASSWORD)
    digest = on_host.hashlib.sha256(kept).hexdigest()
    assert kept.startswith(b"$ANSIBLE_VAULT;1.1;AES256")
    assert copies.opened(kept, PASSWORD, digest) == content
    with pytest.raises(CopyError, match="SHA-256"):
        copies.opened(kept[:-2] + bytes([kept[-2] ^ 1]) + kept[-1:], PASSWORD, digest)
    with pytest.raises(CopyError, match="another vault password"):
        copies.opened(kept, "wrong", digest)
    with pytest.raises(CopyError, match="cannot be unpacked"):
        copies.files_of(content[: len(content) // 2])
    files = copies.files_of(content)
    manifest = {name: on_host.hashlib.sha256(text).hexdigest() for name, text in files.items()}
    packed = on_host._packed({on_host.MANIFEST: msgspec.json.encode(manifest), **files, "more": b"x"})
    with pytest.raises(CopyError, match="more"):
        copies.files_of(packed)
    with pytest.raises(CopyError, match=r"journal\.db is damaged"):
        copies.restored(files | {"state/gateway/journal.db": b"no database" * 99}, tmp_path / "scratch")
    with pytest.raises(CopyError, match="outside"):
        copies.restored({"../../out": b""}, tmp_path / "scratch")


def test_the_hub_keeps_backups_for_their_time_and_the_newest_always(host: Path) -> None:
    for name in (FIRST, SECOND):
        on_host.keep(name, "gtw-01", b"secret")
        on_host.complete(name, msgspec.json.encode({"id": name, "time": 4}))
    on_host.keep("20261103T000000Z-00000003", "gtw-01", b"never completed")
    assert [one["id"] for one in on_host.listed()["backups"]] == [FIRST, SECOND]
    assert on_host.listed()["proven"] is None
    assert base64.b64decode(on_host.fetch(FIRST, "gtw-01")["content"]) == b"secret"
    kept = host / "state/backups"
    assert (kept.stat().st_mode & 0o777, (kept / FIRST / "gtw-01.vault").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    for directory in kept.iterdir():
        os.utime(directory, (0, 0))
    assert on_host.prune(7)["removed"] == [FIRST, "20261103T000000Z-00000003"]
    assert [one["id"] for one in on_host.listed()["backups"]] == [SECOND]
    on_host.prove(b'{"id": "x", "at": 5}')
    assert on_host.listed()["proven"]["at"] == 5


def test_the_hub_tells_prometheus_when_it_was_backed_up_and_proven(host: Path) -> None:
    on_host.keep(FIRST, "gtw-01", b"secret")
    (host / "figures").mkdir()
    on_host.complete(FIRST, b'{"time": 4}')
    on_host.prove(b'{"at": 5}')
    told = {path.name: path.read_text().splitlines()[-1] for path in (host / "figures").iterdir()}
    assert told == {
        "mt5crs_backup.prom": "mt5crs_backup_timestamp_seconds 4.0",
        "mt5crs_restore_proven.prom": "mt5crs_restore_proven_timestamp_seconds 5.0",
    }
    modes = {path.stat().st_mode & 0o777 for path in (host / "figures").iterdir()}
    assert modes == {0o644}, "the node exporter is another user"


@pytest.mark.parametrize(("backup", "name"), [("../x", "gtw-01"), (FIRST, "../../etc/passwd"), (FIRST, "")])
def test_names_that_lead_elsewhere_are_refused(host: Path, backup: str, name: str) -> None:
    with pytest.raises(on_host.RefusedError, match="no name of a backup"):
        on_host.keep(backup, name, b"")


def test_a_running_service_is_not_restored(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(on_host.RefusedError, match=r"mt5crs-gateway\.service is active; stop it first"):
        on_host.restore("gateway", FIRST, taken())
    assert on_host.main(["fetch", FIRST, "gtw-01"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_what_was_there_is_kept_aside(host: Path) -> None:
    content = taken()
    with pytest.raises(on_host.RefusedError, match="no state of strategy"):
        on_host.state_of("strategy", content)
    directory = host / "state/reconciler"
    directory.mkdir()
    (directory / "reconciler.db").write_bytes(b"broken")
    told = on_host.put_back(directory, FIRST, {"reconciler.db": b"good"})
    assert (directory / "reconciler.db").read_bytes() == b"good"
    assert (Path(told["before"]) / "reconciler.db").read_bytes() == b"broken"


# ---- the drill ----


def executed(name: str, ticket: int, **changed: Any) -> Entry:
    request = OrderSend(
        v=1, id="m", client="c", magic=7, client_order_id=name, lease_epoch=1, valid_ms=5000, **TERMS
    )
    result: dict[str, Any] = {
        **dict.fromkeys(("message", "comment_id", "evidence", "stream"), "x"),
        **dict.fromkeys(("retcode", "order", "position", "position_ticket", "epoch", "time_msc", "seq"), 1),
        "price": 1.0,
        "replayed": False,
    }
    answer = OrderResult(
        v=1,
        id="m",
        client_order_id=name,
        outcome="FILLED",
        deals=[ticket],
        volume=0.5,
        volume_requested=0.5,
        **result,
    )
    return msgspec.structs.replace(new_entry(request, "done", ticket), answer=answer, **changed)


def deal(ticket: int, comment: str = "by hand", **changed: Any) -> Deal:
    numbers = dict.fromkeys(("order", "position_id", "reason", "time_msc"), 1)
    money = dict.fromkeys(("price", "commission", "fee", "swap", "profit"), 0.0)
    good = Deal(
        ticket=ticket,
        symbol="EURUSD",
        type="BUY",
        entry="IN",
        magic=7,
        volume=0.5,
        comment=comment,
        **numbers,
        **money,
    )
    return msgspec.structs.replace(good, **changed)


ONE, TWO = executed("one", 10), executed("two", 20)


@pytest.mark.parametrize(
    ("entries", "deals", "problem"),
    [
        ([ONE, TWO], [deal(10), deal(20)], ""),
        ([ONE, TWO], [deal(10)], "order two of 7: the broker has no deal 20"),
        ([ONE], [deal(10, volume=0.3)], "order one of 7: the broker filled 0.3, the journal 0.5"),
        (
            [TWO],
            [deal(10, ONE.comment_id), deal(20)],
            "deal 10 of 7 is of an order that the journal does not have",
        ),
        ([ONE], [deal(10), deal(20, TWO.comment_id)], ""),  # later than the copy
        ([TWO], [deal(10), deal(20)], ""),  # made by hand
    ],
)
def test_a_drill_compares_both_ways(entries: list[Entry], deals: list[Deal], problem: str) -> None:
    found = proving.problems(proving.compared(entries), {7: deals}, [entry.comment_id for entry in entries])
    assert found == ([problem] if problem else [])


def test_what_a_restored_journal_is_known_to_lack_is_no_problem() -> None:
    lost = [deal(ticket, TWO.comment_id, time_msc=ticket) for ticket in (5, 15, 25)]
    entries = [executed("before", 10), executed("after", 20), executed("later", 30)]
    missing = proving.gaps(entries, [10 - on_host.SEARCHED_BACK_MS])
    assert missing == [(10, 20)]
    books = {7: [*lost, deal(10), deal(20), deal(30)]}
    known = [entry.comment_id for entry in entries]
    found = proving.problems(proving.compared(entries), books, known, missing)
    assert [text.split()[1] for text in found] == ["5", "25"]
    assert proving.gaps([], [0]) == [(on_host.SEARCHED_BACK_MS, 2**62)]


def test_the_newest_executions_are_compared_and_nothing_that_was_never_sent() -> None:
    many = [executed(f"o{number}", number + 1) for number in range(proving.COMPARED + 5)]
    refused = executed("no", 1, state="refused")
    found = proving.compared([*many, refused])[7]
    assert (len(found), found[-1].request.client_order_id) == (
        proving.COMPARED,
        many[-1].request.client_order_id,
    )
