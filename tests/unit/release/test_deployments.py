"""The fleet's deployment lock and records: one deployer, replaced by rule only, nobody's record lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mt5crs_release.errors import BusyError, RefusedError
from mt5crs_release.records import deployments
from mt5crs_release.records.deployments import Deployments, age_s
from mt5crs_release.storage.paths import Host


@pytest.fixture
def kept(tmp_path: Path) -> Deployments:
    return Deployments(Host(tmp_path))


def request(name: str, second: int = 1) -> dict[str, Any]:
    return {
        "id": name,
        "who": f"user of {name}",
        "controller": "order_manager",
        "started": f"2026-01-01T00:00:{second:02}+00:00",
        "limit_s": 60,
    }


def end(
    kept: Deployments, name: str, outcome: str = "changed", second: int = 1, **more: Any
) -> dict[str, Any]:
    return kept.close(name, {"record": {**request(name, second), "outcome": outcome}, **more})


def grown_old(kept: Deployments, seconds: float) -> None:
    path = kept.base / "holder.json"
    holder = json.loads(path.read_text())
    holder["clock"] -= seconds
    path.write_text(json.dumps(holder))


def test_a_second_deployer_is_refused_with_the_holder_named(kept: Deployments) -> None:
    kept.open(request("first"))
    kept.beat("first", "activate", [], None)
    with pytest.raises(BusyError) as refused:
        kept.open(request("second"))
    for word in ("user of first", "order_manager", "'activate'", "id first", "heartbeat"):
        assert word in refused.value.message
    assert [entry["id"] for entry in kept.listed()["deployments"]] == ["first"]


def test_a_silent_holder_is_replaced_after_its_limit_and_both_records_say_so(kept: Deployments) -> None:
    kept.open(request("first"))
    kept.beat("first", "confirm", ["inf-01:strategy:0002-a"], None)
    grown_old(kept, 59)
    with pytest.raises(BusyError):
        kept.open(request("second", 2))
    grown_old(kept, 2)
    answer = kept.open(request("second", 2))
    assert answer["took_over"]["id"] == "first"
    (unfinished,) = answer["unfinished"]
    assert (unfinished["phase"], unfinished["provisional"]) == ("confirm", ["inf-01:strategy:0002-a"])
    assert kept.show("first")["outcome"] == "interrupted"
    assert kept.show("first")["taken_over_by"]["id"] == "second"
    assert kept.show("second")["took_over"]["id"] == "first"
    with pytest.raises(RefusedError, match="user of second"):
        kept.beat("first", None, [], None)


def test_a_deployer_known_to_be_dead_is_replaced_at_once(kept: Deployments) -> None:
    kept.open(request("first"))
    kept.beat("first", None, [], "its process ended")
    assert kept.open(request("second", 2))["took_over"]["id"] == "first"


def test_a_reboot_of_the_hub_gives_the_holder_its_time_anew() -> None:
    holder = {"clock": 100_000.0, "boot_id": "before"}
    assert age_s(holder, 5.0, "after") == 5.0
    assert age_s(holder, 100_007.0, "before") == 7.0


def test_what_is_left_unfinished_is_told_until_somebody_has_settled_it(kept: Deployments) -> None:
    kept.open(request("first"))
    end(kept, "first", "interrupted")
    for name, second in (("second", 2), ("third", 3)):
        assert [record["id"] for record in kept.open(request(name, second))["unfinished"]] == ["first"]
        end(kept, name, "failed", second)
    kept.open(request("fourth", 4))
    settled = [{"id": "first", "outcome": "undone", "sentence": "Undone by fourth."}]
    end(kept, "fourth", "unchanged", 4, settled=settled)
    assert kept.show("first")["outcome"] == "undone"
    assert "Undone by fourth." in kept.show("first")["sentence"]
    assert kept.open(request("fifth", 5))["unfinished"] == []


def test_a_run_that_changed_nothing_leaves_no_record_and_no_lock(kept: Deployments) -> None:
    kept.open(request("first"))
    assert end(kept, "first", "unchanged")["held"]
    assert kept.listed() == {"deployments": [], "holder": None}


def test_a_deployer_that_lost_the_lock_keeps_its_record_and_not_the_lock(kept: Deployments) -> None:
    kept.open(request("first"))
    grown_old(kept, 61)
    kept.open(request("second", 2))
    assert not end(kept, "first", "failed")["held"]
    assert kept.show("first")["taken_over_by"]["id"] == "second"
    holder = kept.holder()
    assert holder is not None
    assert holder["id"] == "second"


def test_old_records_are_removed_but_for_unsettled_ones(
    kept: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, "KEEP", 2)
    for second, outcome in enumerate(("interrupted", "changed", "changed", "failed"), 1):
        kept.open(request(f"run{second}", second))
        end(kept, f"run{second}", outcome, second)
    assert [entry["id"] for entry in kept.listed()["deployments"]] == ["run4", "run3", "run1"]


def test_an_unknown_id_lists_what_there_is(kept: Deployments) -> None:
    kept.open(request("abcdef"))
    assert kept.show("abc")["id"] == "abcdef"
    with pytest.raises(RefusedError) as refused:
        kept.show("xyz")
    assert "abcdef" in refused.value.remedy


def test_a_deployment_has_one_record_whatever_its_times(kept: Deployments) -> None:
    kept.open(request("first", 1))
    kept.open(request("first", 5))
    end(kept, "first", second=9)
    assert len(kept.listed()["deployments"]) == 1


def test_an_interrupted_run_leaves_what_it_had_decided_to_the_next_one(kept: Deployments) -> None:
    kept.open(request("first"))
    kept.beat("first", "roll back", ["inf-01:strategy:0001-a"], None)
    end(kept, "first", "interrupted")
    left = kept.open(request("second", 2))["unfinished"]
    assert [(run["id"], run["phase"], run["provisional"]) for run in left] == [
        ("first", "roll back", ["inf-01:strategy:0001-a"])
    ]


def test_the_page_is_told_how_each_went_and_nothing_of_settings(kept: Deployments) -> None:
    shown = kept.base.parent / "deployments.json"
    kept.open({**request("one"), "command": "deploy --secret", "services": [{"changes": ["SECRET"]}]})
    (running,) = json.loads(shown.read_text())["deployments"]
    assert (running["id"], running["outcome"]) == ("one", "running")
    phases = [
        {"name": "Stage", "hosts": 2, "changed": 2, "failed": 0, "seconds": 1.5, "skipped": False},
        {"name": "Roll back", "hosts": 0, "changed": 0, "failed": 0, "seconds": 0.0, "skipped": True},
    ]
    failures = [{"host": "h", "step": "s", "message": "m", "remedy": "r"}]
    kept.close(
        "one", {"record": {**request("one"), "outcome": "failed", "phases": phases, "failures": failures}}
    )
    (over,) = json.loads(shown.read_text())["deployments"]
    assert [phase["name"] for phase in over["phases"]] == ["Stage"]
    assert over["failures"] == [{"host": "h", "step": "s", "message": "m"}]
    assert over["outcome"] == "failed"
    assert "secret" not in shown.read_text().lower()
    assert shown.stat().st_mode & 0o777 == 0o644
    shown.unlink()
    shown.mkdir()  # what cannot be told to the page keeps no deployment
    kept.open(request("two", 2))
