"""A period of the audit log: all that was done is in it once, and what nobody vouches for is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.commands import audit_log
from deploy.commands.compliance import SECTIONS, Whole, report, section_of
from deploy.coordination.audit_log import Log
from mt5crs.__main__ import main
from mt5crs_release.records.audit_chain import Finding, Verified

BEGIN = datetime(2026, 7, 1, tzinfo=timezone.utc)
END = datetime(2026, 8, 1, tzinfo=timezone.utc)
NOW = datetime(2026, 9, 1, tzinfo=timezone.utc)


def record(n: int, what: str, day: int = 10, **told: Any) -> dict[str, Any]:
    at = (BEGIN + timedelta(days=day - 1)).isoformat().replace("+00:00", "Z")
    return {"n": n, "id": str(n), "what": what, "at": at, "by": "ann", "controller": "ctl", **told}


def whole(records: Sequence[object], **of: Any) -> Whole:
    count = len(records)
    values = {"witnessed": count, "findings": (), "signed": count, "silent": {}, **of}
    verified = Verified(count, values["witnessed"], ("inf-01",), values["findings"])
    return Whole(verified, values["signed"], values["silent"])


def made(records: list[dict[str, Any]], **of: Any) -> dict[str, Any]:
    return report([record(0, "halt", -40), *records], whole([0, *records], **of), BEGIN, END, NOW)


def test_every_record_of_the_period_is_in_one_section() -> None:
    names = [
        "deployment.begun", "deployment.ended", "deployment.died", "deployment.settled",
        "configuration.changed", "configuration.rolled_back", "secret.changed", "access.changed",
        "waiver.changed", "halt", "resume", "flatten", "order.resolved", "phase.promoted", "trading.started",
        "orders.cancelled", "backup.restored", "services.recovered", "host.migrated", "secret.shown",
        "vault.rekeyed", "checkpoint", "what.comes.later",
    ]  # fmt: skip
    records = [record(n, name, 1 + n) for n, name in enumerate(names, 1)]
    told = made([*records, record(90, "halt", 32), record(91, "halt", 0)])
    assert told["records"] == len(names)
    placed = [one["n"] for name in SECTIONS for one in told[name]]
    assert sorted(placed) == [one["n"] for one in records]
    assert section_of("secret.rotated") == "rotations"
    assert [one["what"] for one in told["others"]] == ["backup.restored", "checkpoint", "what.comes.later"]
    assert told["people"]["ann on ctl"]["halt"] == 1


def test_overrides_are_named_wherever_they_were_given() -> None:
    override = {"by": "bob", "until": "2026-07-12", "reason": "hotfix"}
    told = made(
        [
            record(1, "deployment.ended", services=[
                {"host": "gtw-01", "service": "gateway", "review": {"override": override}},
                {"host": "inf-01", "service": "strategy", "review": {"override": None}},
            ]),
            record(2, "phase.promoted", to="live_micro", override=True),
            record(3, "phase.promoted", to="live_micro", override=False),
            record(4, "trading.started", unasked=True),
            record(5, "host.decommissioned", host="inf-02", lost=True),
        ]
    )  # fmt: skip
    assert [one["override"] for one in told["overrides"]] == [
        "gtw-01 gateway without a verdict of the review: bob, until 2026-07-12: hotfix",
        "promoted to live_micro with --override",
        "started without a countdown (--yes)",
        "inf-02 left without being stopped (--lost)",
    ]


def test_a_log_that_is_whole_seen_and_signed_leaves_nothing_open() -> None:
    begun, ended = (
        record(1, "deployment.begun", deployment="d1"),
        record(2, "deployment.ended", deployment="d1"),
    )
    assert made([begun, ended])["unverified"] == []
    settled = record(3, "deployment.settled", deployment="d2", settled="d1")
    assert made([begun, settled])["unverified"] == [], "who took over said what became of it"
    taken = [record(1, "deployment.begun", deployment="d2"), record(2, "deployment.died", deployment="d2")]
    assert made(taken)["unverified"] == ["deployment d2 (record 1): how it ended is not recorded"]


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"findings": (Finding(2, "was altered"),)}, "from record 2 on: the chain is broken there"),
        ({"findings": (Finding(0, "the head is missing"),)}, "all of it: the log is not whole"),
        ({"witnessed": 1}, "records 2 to 3: no other host has seen them"),
        ({"silent": {"inf-01": "no answer"}}, "inf-01 may have seen more, and was not asked (no answer)"),
    ],
)
def test_what_nobody_vouches_for_is_said(of: dict[str, Any], said: str) -> None:
    told = made([record(n, "halt") for n in (1, 2, 3)], **of)
    assert any(one.startswith(said) for one in told["unverified"]), told["unverified"]
    assert bool(told["broken"]) is ("findings" in of)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (record(1, "deployment.begun", deployment="d2" * 8), "deployment d2d2d2d2 (record 1): how it ended"),
        (record(1, "halt", mended={"bytes": 7}), "before record 1: a torn end was cut off"),
        ({**record(1, "halt"), "at": "yesterday"}, "records 1: they do not say when"),
    ],
)
def test_what_a_record_leaves_open_is_said(one: dict[str, Any], said: str) -> None:
    assert any(text.startswith(said) for text in made([one])["unverified"])


def test_a_young_log_that_hosts_have_seen_leaves_nothing_open_and_says_how_far_it_goes() -> None:
    told = report([record(1, "halt", 5)], whole([1], signed=0), BEGIN, END, BEGIN + timedelta(days=9))
    assert (told["broken"], told["unverified"]) == ([], [])
    begins, over, unsigned = told["notes"]
    assert begins.startswith("before 2026-07-05 00:00:00 there is no record")
    assert over == "the period is not over"
    assert unsigned.startswith("records 1 to 1: no release key has signed them")
    (rekeyed,) = made([record(1, "secret.changed", rekeyed=True)])["notes"]
    assert rekeyed.startswith("record 1: after another vault password")


def test_a_log_without_a_record_is_not_taken_for_quiet() -> None:
    assert "nothing is known" in report([], whole([]), BEGIN, END, NOW)["unverified"][0]


@pytest.mark.parametrize(("words", "status"), [([], 0), (["--strict"], 1)])
def test_what_is_noted_counts_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, words: list[str], status: int
) -> None:
    one = record(1, "halt")
    monkeypatch.setattr(audit_log, "log_of", lambda _directory: Log(b"", b"", None, (), {}))
    monkeypatch.setattr(audit_log, "records_of", lambda _content: [one])
    monkeypatch.setattr(audit_log, "verify", lambda *_: Verified(1, 1, ("inf-01",), ()))
    asked = ["audit-log", "compliance", "--from", "2026-07-01", "--to", "2026-07-31", *words]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == status, done.output
    assert "Not vouched for: nothing\nNoted: " in done.output
    assert "records 1 to 1: no release key has signed them" in done.output


def test_the_command_reads_an_export_and_refuses_a_period_that_is_none(tmp_path: Path) -> None:
    for name, text in (
        ("records.jsonl", ""), ("config_changes.jsonl", ""), ("head.json", "null"),
        ("witnesses.json", '{"seen": [], "silent": {}}'),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    asked = ["audit-log", "compliance", "--directory", str(tmp_path)]
    done = CliRunner().invoke(main, [*asked, "--from", "2026-07-01", "--to", "2026-07-31"])
    assert done.exit_code == 1, done.output
    assert "nothing is known of this period" in done.output
    told = json.loads(
        CliRunner().invoke(main, [*asked, "--from", "2026-07-01", "--to", "2026-07-31", "--json"]).output
    )
    assert (told["from"], told["to"]) == ("2026-07-01T00:00:00+00:00", "2026-08-01T00:00:00+00:00")
    for begin, end in (("2026-07-31", "2026-07-01"), ("july", "2026-07-01")):
        assert CliRunner().invoke(main, [*asked, "--from", begin, "--to", end]).exit_code == 2
