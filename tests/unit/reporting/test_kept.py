"""Reports and plans do not pile up, and what is of use stays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deploy.reporting import kept, report
from deploy.reporting.kept import KEEP, number, prune
from deploy.rollout.record import Rollout


class Reports:
    """A directory of reports, each a second newer than the one before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, outcome: str = "changed", **record: Any) -> Path:
        path = self.directory / f"20261129T0900{len(list(self.directory.glob('2*'))):02}Z-0123abcd"
        path.mkdir()
        content = {"environment": "lab", "outcome": outcome, "dry": False, "services": [], **record}
        (path / "record.json").write_text(json.dumps(content))
        (path / "report.html").write_text("<html>")
        return path

    def plan(self, name: str, age_s: int) -> Path:
        path = self.directory / "plans" / f"{name * 12}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
        os.utime(path, (1_700_000_000 - age_s,) * 2)
        return path


@pytest.fixture
def reports(tmp_path: Path) -> Reports:
    return Reports(tmp_path)


def test_the_newest_stay_and_nothing_of_others_is_touched(reports: Reports) -> None:
    made = [reports.add() for _ in range(5)]
    mine = reports.directory / "notes"
    mine.mkdir()
    assert sorted(prune(reports.directory, 3, made[-1])) == made[:2]
    assert [path.exists() for path in made] == [False, False, True, True, True]
    assert mine.exists()
    assert prune(reports.directory, 3, made[-1]) == []


def test_zero_keeps_all(reports: Reports) -> None:
    made = [reports.add() for _ in range(3)]
    assert prune(reports.directory, 0, made[-1]) == []


def test_the_one_just_written_stays_though_the_clock_was_set_back(reports: Reports) -> None:
    made = [reports.add() for _ in range(3)]
    prune(reports.directory, 1, made[0])
    assert [path.exists() for path in made] == [True, False, True]


def test_an_unfinished_deployment_keeps_its_report_and_plan_until_a_run_went_well(reports: Reports) -> None:
    plan, other = reports.plan("a", 50), reports.plan("b", 40)
    newer = [reports.plan(name, 10) for name in "cd"]
    interrupted = reports.add("interrupted", plan="a" * 12)
    waiting = reports.add("failed", services=[{"state": "provisional"}])
    elsewhere = reports.add("changed", environment="staging")
    looked = reports.add("checked", dry=True)
    prune(reports.directory, 2, looked)
    assert [path.exists() for path in (interrupted, waiting, elsewhere, looked)] == [True] * 4
    assert [path.exists() for path in (plan, other, *newer)] == [True, False, True, True]
    last = reports.add("changed")
    prune(reports.directory, 1, last)
    assert list(reports.directory.glob("2*")) == [last]
    assert not plan.exists()


def test_a_report_that_is_being_written_stays(reports: Reports) -> None:
    half = reports.add()
    (half / "record.json").write_text("{")
    last = [reports.add() for _ in range(3)][-1]
    prune(reports.directory, 1, last)
    assert half.exists()


def test_the_number_is_of_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEEP, raising=False)
    assert number() == kept.DEFAULT
    monkeypatch.setenv(KEEP, "7")
    assert number() == 7
    for wrong in ("many", "-1", ""):
        monkeypatch.setenv(KEEP, wrong)
        with pytest.raises(ValueError, match="no report is removed; set a number"):
            number()


def test_every_run_prunes(
    reports: Reports, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = [reports.add() for _ in range(3)]
    monkeypatch.setattr(report, "REPORTS", reports.directory)
    monkeypatch.setenv(KEEP, "1")
    report.finish(Rollout("pyinfra", "lab"))
    assert [path.exists() for path in old] == [False, False, False]
    assert len(list(reports.directory.glob("2*"))) == 1
    monkeypatch.setenv(KEEP, "many")
    report.finish(Rollout("pyinfra", "lab"))
    assert "MT5CRS_REPORTS_KEPT='many' is no number" in capsys.readouterr().err
