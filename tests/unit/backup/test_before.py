"""A backup before a deployment: what stops it, and what is only told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from deploy.backup import before
from deploy.backup.storing import BackupError
from deploy.rollout.batches import Step
from deploy.rollout.plan import NOTHING, Plan

WHOLE = {"id": "b-1", "hosts": {"inf-01": {"bytes": 2_000_000}}, "missing": {}, "seconds": 1.5}


def told(
    monkeypatch: pytest.MonkeyPatch, wanted: str, made: dict[str, Any] | Exception
) -> tuple[list[str], str, int]:
    calls: list[str] = []

    def run(_fleet: Any, who: str) -> dict[str, Any]:
        calls.append(who)
        if isinstance(made, Exception):
            raise made
        return made

    monkeypatch.setattr(before.storing, "run", run)
    fleet: Any = SimpleNamespace(hosts={"inf-01": {"fleet_backup_before_deploy": wanted}, "inf-02": {}})
    said, refused = before.backed_up(fleet, ["inf-01"], "alice")
    return said, refused, len(calls)


def test_none_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, "none", WHOLE) == ([], "", 0)


@pytest.mark.parametrize("wanted", ["warn", "stop"])
def test_a_whole_one_is_told_with_its_time(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    assert told(monkeypatch, wanted, WHOLE) == (["backup b-1: 1 hosts, 2.0 MB, 1.5 s"], "", 1)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (BackupError("hub-01: its disk is full"), "no backup was made: hub-01: its disk is full"),
        ({**WHOLE, "missing": {"inf-01": "no route"}}, "inf-01 is not in the backup: no route"),
    ],
)
def test_one_that_failed_stops_or_warns(monkeypatch: pytest.MonkeyPatch, made: Any, why: str) -> None:
    said, refused, _ = told(monkeypatch, "warn", made)
    assert refused == ""
    assert said[-1].startswith(f"warning: {why}; the deployment goes on")
    said, refused, _ = told(monkeypatch, "stop", made)
    assert refused.startswith(why)
    assert "Nothing was changed" in refused
    assert not any("warning" in line for line in said)


def test_a_host_that_the_run_is_not_for_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said, refused, _ = told(monkeypatch, "stop", {**WHOLE, "missing": {"inf-02": "it is off"}})
    assert refused == ""
    assert said[-1] == "inf-02 is not in the backup: it is off"


def plan(hosts: tuple[str, ...], observed: dict[str, dict[str, str]]) -> Plan:
    steps = (Step("inf", "inf", hosts),) if hosts else ()
    return Plan("lab", "rolling", steps, {}, observed, {})


def test_only_where_something_runs_there_is_something_to_lose() -> None:
    """A host that is new to a running fleet has nothing to copy, which stops nothing."""
    runs, new = {"strategy": "0003-aa confirmed"}, {"strategy": NOTHING, "reconciler": NOTHING}
    assert plan((), {"inf-01": runs}).in_service == ()
    assert plan(("inf-01", "inf-02"), {"inf-01": new, "inf-02": {}}).in_service == ()
    assert plan(("inf-01", "inf-02", "inf-02"), {"inf-01": new, "inf-02": runs}).in_service == ("inf-02",)
