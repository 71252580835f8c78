"""The audit log: appended only, whole after a crash, and no change of it by anybody else goes unnoticed."""

from __future__ import annotations

import base64
import json
import os
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mt5crs_release.errors import RefusedError
from mt5crs_release.records import audit_log, configuration_changes
from mt5crs_release.records.audit_chain import (
    NOTHING,
    Head,
    Verified,
    Witness,
    digest,
    line_of,
    records_of,
    verify,
)
from mt5crs_release.records.audit_log import AuditLog
from mt5crs_release.records.deployments import Deployments
from mt5crs_release.storage.paths import Host

HOSTS = ["hub", "inf-01"]


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(Host(tmp_path))


def act(what: str = "halt", **more: Any) -> dict[str, Any]:
    return {"what": what, "by": "jane", "controller": "order_manager", **more}


def configuration(**settings: str) -> dict[str, Any]:
    return {
        "key": "k1",
        "hosts": HOSTS,
        "files": {"group_vars/all/main.yml": {"text": json.dumps(settings)}},
        "settings": {name: {f"digest of {value}": "all"} for name, value in settings.items()},
        "secret": ["password"],
        "access": ["operators"],
    }


def bytes_of(log: AuditLog) -> tuple[bytes, Head, bytes]:
    told = log.read()
    contents = [zlib.decompress(base64.b64decode(told[name])) for name in ("records", "snapshots")]
    return contents[0], Head(**told["head"]), contents[1]


def verified(log: AuditLog, *witnesses: Witness) -> Verified:
    records, head, snapshots = bytes_of(log)
    return verify(records, head, snapshots, witnesses)


def filled(log: AuditLog) -> list[Witness]:
    """A log of 19 records and 6 snapshots; the heads that another host has seen, the last one among them."""
    seen = []
    for number in range(6):
        values = {"port": str(number), "password": f"secret {number // 2}", "operators": str(number // 3)}
        head = log.append([act("deployment.begun")], configuration(**values), f"deployment-{number}")
        seen.append(Witness("inf-01", head["log"], head["n"], head["hash"]))
        head = log.append([act("deployment.ended", outcome="changed")])
    seen.append(Witness("inf-02", head["log"], head["n"], head["hash"]))
    return seen


def test_a_record_names_who_when_where_and_the_one_before(log: AuditLog) -> None:
    first = log.append([act("halt", reason="drill", magics=[7])])
    log.append([act("resume")])
    one, two = records_of(log.records.read_bytes())
    assert (one["what"], one["by"], one["reason"], one["n"]) == ("halt", "jane", "drill", 1)
    assert one["before"] == NOTHING
    assert two["before"] == first["hash"] == digest(line_of(one))
    assert one["id"] != two["id"]
    assert one["log"] == two["log"]
    assert one["hub"]
    assert one["account"]
    assert one["at"].endswith("Z")
    assert verified(log).findings == ()
    assert log.records.stat().st_mode & 0o777 == 0o600


def test_nobody_but_the_hub_says_what_is_its_own(log: AuditLog) -> None:
    log.append([act(n=77, before="forged", log="other", account="root of all")])
    (record,) = records_of(log.records.read_bytes())
    assert (record["n"], record["before"]) == (1, NOTHING)
    assert "forged" not in json.dumps(record)
    with pytest.raises(RefusedError):
        log.append([{"what": "halt"}])


def test_an_act_that_is_sent_twice_is_recorded_once(log: AuditLog) -> None:
    sent = act(id="an-id", at="2026-01-01T00:00:00.000Z")
    log.append([sent])
    assert log.append([sent])["changed"] is False
    (record,) = records_of(log.records.read_bytes())
    assert record["at"] == "2026-01-01T00:00:00.000Z"
    assert record["written"] > record["at"]


def test_changes_of_a_configuration_are_told_apart_by_what_they_are(log: AuditLog) -> None:
    log.append([act()], configuration(port="1", password="a", operators="x"), "one")
    log.append([act()], configuration(port="2", password="b", operators="y"), "two")
    log.append([act()], configuration(port="2", password="b", operators="y"), "three")
    records = records_of(log.records.read_bytes())
    told = [(record["what"], list(record.get("changed", ()))) for record in records]
    assert told == [
        ("halt", []),
        ("configuration.changed", []),
        ("halt", []),
        ("configuration.changed", ["port"]),
        ("secret.changed", ["password"]),
        ("access.changed", ["operators"]),
        ("halt", []),
    ]
    assert records[1]["first"] is True
    assert records[3]["changed"]["port"] == [
        {"before": "digest of 1", "after": "digest of 2", "hosts": HOSTS}
    ]
    assert records[3]["deployment"] == "two"
    assert log.snapshots.read_bytes().count(b"\n") == 2
    assert verified(log).findings == ()


def test_a_setting_of_one_host_names_that_host() -> None:
    before, after = configuration(port="1"), configuration(port="1")
    after["settings"]["port"] = {"digest of 1": ["hub"], "digest of 9": ["inf-01"]}
    changes = configuration_changes.between(before, after)
    assert changes is not None
    assert changes.settings["port"] == [
        {"before": "digest of 1", "after": "digest of 9", "hosts": ["inf-01"]}
    ]


def test_another_key_of_the_digests_is_not_taken_for_changed_settings() -> None:
    before, after = configuration(port="1"), configuration(port="1")
    after["key"], after["settings"]["port"] = "k2", {"other digest": "all"}
    changes = configuration_changes.between(before, after)
    assert changes is not None
    assert changes.rekeyed
    assert changes.settings == {}
    assert list(changes.secrets) == ["vault password"]


def test_a_waiver_is_told_as_one() -> None:
    before, after = configuration(port="1"), configuration(port="1")
    after["files"]["policy/waivers/lab.yml"] = {"text": "waivers: []"}
    changes = configuration_changes.between(before, after)
    assert changes is not None
    assert (changes.waivers, changes.files) == (["policy/waivers/lab.yml"], [])


Parts = tuple[bytes, Head | None, bytes, list[Witness]]


def chained(records: list[dict[str, Any]], snapshots: bytes) -> tuple[bytes, Head]:
    """What someone who knows everything makes of records: numbers, hashes and head are right."""
    before, lines = NOTHING, []
    for n, record in enumerate(records, start=1):
        lines.append(line_of({**record, "n": n, "before": before}))
        before = digest(lines[-1])
    content = b"".join(line + b"\n" for line in lines)
    count = snapshots.count(b"\n")
    return content, Head(records[0]["log"], len(lines), before, len(content), count, len(snapshots))


def changed_byte(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    kind = rng.choice(("alter", "insert", "remove", "cut"))
    if kind == "alter":
        return content[:at] + bytes([(content[at] + rng.randrange(1, 256)) % 256]) + content[at + 1 :]
    if kind == "insert":
        return content[:at] + rng.choice((b" ", b"\n", b"0", b"\xff")) + content[at:]
    return content[:at] + (content[at + 1 :] if kind == "remove" else b"")


def changed_lines(rng: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    kind = rng.choice(("remove", "swap", "double", "cut"))
    at = rng.randrange(len(lines))
    if kind == "remove":
        del lines[at]
    elif kind == "swap":
        other = rng.choice([n for n in range(len(lines)) if n != at])
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "double":
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    else:
        del lines[at:]
    return b"".join(lines)


def rewritten(rng: random.Random, content: bytes, snapshots: bytes) -> tuple[bytes, Head]:
    """A log that is right in itself: altered, shortened or longer by a forged record, all hashed anew."""
    records = records_of(content)
    at, kind = rng.randrange(len(records)), rng.choice(("alter", "remove", "forge", "swap", "cut"))
    if kind == "alter":
        records[at] = {**records[at], "by": "nobody"}
    elif kind == "remove":
        del records[at]
    elif kind == "forge":
        records.insert(at, {**records[at], "id": f"forged {at}", "what": "resume"})
    elif kind == "swap":
        other = rng.choice([n for n in range(len(records)) if n != at])
        records[at], records[other] = records[other], records[at]
    else:
        del records[max(at, 1) :]
    return chained(records, snapshots)


def another_head(rng: random.Random, head: Head) -> Head | None:
    name = rng.choice(("log", "n", "hash", "size", "snapshots", "snapshots_size", ""))
    if not name:
        return None
    value = getattr(head, name)
    return replace(head, **{name: value + rng.choice((-1, 1)) if isinstance(value, int) else f"{value}x"})


def another_witness(rng: random.Random, witnesses: list[Witness]) -> list[Witness]:
    at = rng.randrange(len(witnesses))
    one = witnesses[at]
    other = rng.choice((replace(one, hash="0" * 64), replace(one, n=one.n + 1), replace(one, log="other")))
    return [*witnesses[:at], other, *witnesses[at + 1 :]]


MUTATIONS: dict[str, Callable[[random.Random, bytes, Head, bytes, list[Witness]], Parts]] = {
    "a byte of the records": lambda r, c, h, s, w: (changed_byte(r, c), h, s, w),
    "records": lambda r, c, h, s, w: (changed_lines(r, c), h, s, w),
    "a byte of the snapshots": lambda r, c, h, s, w: (c, h, changed_byte(r, s), w),
    "snapshots": lambda r, c, h, s, w: (c, h, changed_lines(r, s), w),
    "everything anew": lambda r, c, _, s, w: (*rewritten(r, c, s), s, w),
    "the head": lambda r, c, h, s, w: (c, another_head(r, h), s, w),
    "a witness": lambda r, c, h, s, w: (c, h, s, another_witness(r, w)),
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_mutation_is_found(kind: str, log: AuditLog) -> None:
    witnesses = filled(log)
    records, head, snapshots = bytes_of(log)
    whole = verify(records, head, snapshots, witnesses)
    assert (whole.findings, whole.witnessed) == ((), whole.records)
    rng = random.Random(20261129)  # noqa: S311 -- the same mutations each time
    for number in range(200):
        mutated = MUTATIONS[kind](rng, records, head, snapshots, witnesses)
        if mutated == (records, head, snapshots, witnesses):
            continue
        assert verify(*mutated).findings, f"mutation {number} of {kind} was not found"


def test_what_nobody_has_seen_can_be_cut_off_by_who_rewrites_the_head(log: AuditLog) -> None:
    seen = filled(log)
    log.append([act("resume")])
    records, _, snapshots = bytes_of(log)
    shorter, head = chained(records_of(records)[:-1], snapshots)
    assert verify(shorter, head, snapshots, seen).findings == ()  # docs/audit-log.md says so
    told = verified(log, *seen)
    assert (told.records, told.witnessed) == (seen[-1].n + 1, seen[-1].n)


def test_another_log_than_the_one_seen_is_found(log: AuditLog, tmp_path: Path) -> None:
    seen = filled(log)
    other = AuditLog(Host(tmp_path / "anew"))
    other.append([act()])
    (found,) = verified(other, *seen).findings
    assert found.what.startswith(f"there was another one, {seen[0].log[:8]} with {seen[-1].n} records")


def test_hosts_that_saw_the_same_are_named_together(log: AuditLog) -> None:
    head = log.append([act()])
    seen = [Witness(host, head["log"], 2, "b", f"2026-01-0{day}") for day, host in enumerate(HOSTS, start=1)]
    (found,) = verified(log, *seen).findings
    assert (found.n, found.what) == (2, "is missing: hub, inf-01 saw it at 2026-01-01")


@pytest.mark.parametrize("left", [1, 20, 10_000])
def test_a_crash_while_writing_leaves_a_log_that_is_gone_on_with(log: AuditLog, left: int) -> None:
    log.append([act()])
    before = log._head.read_bytes()
    log.append([act("resume"), act("halt")])
    log._head.write_bytes(before)  # the head was not written any more
    content = log.records.read_bytes()
    kept = content.index(b"\n") + 1
    log.records.write_bytes(content[: kept + left] if left < 10_000 else content)
    log.append([act("after")])
    told = records_of(log.records.read_bytes())
    assert verified(log).findings == ()
    assert [record["what"] for record in told] == (
        ["halt", "after"] if left < 10_000 else ["halt", "resume", "halt", "after"]
    )
    assert told[-1].get("mended") == ({"bytes": left} if left < 10_000 else None)


def test_a_crash_between_snapshot_and_record_leaves_no_snapshot_alone(log: AuditLog) -> None:
    log.append([act()], configuration(port="1"), "one")
    head, records = log._head.read_bytes(), log.records.read_bytes()
    log.append([act()], configuration(port="2"), "two")
    log._head.write_bytes(head)
    log.records.write_bytes(records)
    log.append([act()], configuration(port="2"), "two")
    assert verified(log).findings == ()
    assert log.snapshots.read_bytes().count(b"\n") == 2


def test_a_crash_before_the_head_is_written_keeps_records_and_snapshot(log: AuditLog) -> None:
    log.append([act()], configuration(port="1"), "one")
    head = log._head.read_bytes()
    log.append([act()], configuration(port="2"), "two")
    log._head.write_bytes(head)
    log.append([act("after")])
    assert verified(log).findings == ()
    assert log.snapshots.read_bytes().count(b"\n") == 2


def test_a_full_disk_leaves_the_log_as_it_was(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append([act()])
    write, left = os.write, [40]

    def full(descriptor: int, content: bytes) -> int:
        if b"deployment.begun" not in content and left == [40]:
            return write(descriptor, content)
        if not left:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[: left.pop()])

    monkeypatch.setattr(audit_log.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        log.append([act("deployment.begun")])
    monkeypatch.undo()
    assert verified(log).findings == ()
    assert log.append([act("resume")])["n"] == 2
    assert verified(log).findings == ()


def test_a_log_that_was_cut_is_gone_on_with_and_the_break_stays(log: AuditLog) -> None:
    filled(log)
    lines = log.records.read_bytes().splitlines(keepends=True)
    log.records.write_bytes(b"".join(lines[:-3]))
    log.append([act("after")])
    assert records_of(log.records.read_bytes())[-1]["what"] == "after"
    assert verified(log).findings


def test_a_host_keeps_what_it_has_seen(log: AuditLog) -> None:
    with pytest.raises(RefusedError):
        log.witness({"n": 1})
    log.witness({"log": "a", "n": 1, "hash": "b"})
    log.witness({"log": "a", "n": 2, "hash": "c"})
    seen = log.witnessed()
    assert [(one["n"], one["hash"]) for one in seen["witnessed"]] == [(1, "b"), (2, "c")]
    assert seen["damaged"] == 0
    with log._witness.open("ab") as file:
        file.write(b"rubbish\n")
    assert log.witnessed()["damaged"] == 1


def request(name: str, **more: Any) -> dict[str, Any]:
    times = {"started": "2026-01-01T00:00:01+00:00"}
    return {"id": name, "who": "jane", "controller": "order_manager", "action": "deploy", **times, **more}


def test_deployments_are_in_the_log_from_begin_to_end_and_when_they_die(
    log: AuditLog, tmp_path: Path
) -> None:
    kept = Deployments(Host(tmp_path))
    opened = kept.open(request("first", hosts=HOSTS, configuration=configuration(port="1")))
    assert opened["audit_log"]["n"] == 2
    assert "configuration" not in kept.show("first")
    service = {"host": "hub", "service": "gateway", "changed": True, "changes": ["port"], "seconds": 1.0}
    kept.close(
        "first",
        {"record": {**request("first"), "outcome": "changed", "services": [service], "failures": []}},
    )
    kept.open(request("second"))
    kept.beat("second", "confirm", [], "killed")
    kept.open(request("third"))
    kept.close(
        "third",
        {
            "record": {**request("third"), "outcome": "changed"},
            "settled": [{"id": "second", "outcome": "undone", "sentence": "Undone."}],
        },
    )
    told = [
        (record["what"], record.get("deployment"), record.get("died") or record.get("settled"))
        for record in records_of(log.records.read_bytes())
    ]
    assert told == [
        ("deployment.begun", "first", None),
        ("configuration.changed", "first", None),
        ("deployment.ended", "first", None),
        ("deployment.begun", "second", None),
        ("deployment.begun", "third", None),
        ("deployment.died", "third", "second"),
        ("deployment.settled", "third", "second"),
        ("deployment.ended", "third", None),
    ]
    ended = records_of(log.records.read_bytes())[2]
    assert ended["services"] == [{"host": "hub", "service": "gateway", "changes": ["port"]}]
    assert verified(log).findings == ()


def test_a_log_that_cannot_be_written_keeps_no_deployment_from_its_work(tmp_path: Path) -> None:
    kept = Deployments(Host(tmp_path))
    kept.base.mkdir(parents=True)
    (kept.base.parent / "audit-log").write_text("a file where the directory belongs")
    opened = kept.open(request("first"))
    assert opened["changed"] is True
    assert "error" in opened["audit_log"]
    assert opened["audit_log"]["acts"][0]["what"] == "deployment.begun"
    assert "error" in kept.close("first", {"record": {**request("first"), "outcome": "changed"}})["audit_log"]
