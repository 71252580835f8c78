"""Which deployment a rollback of the fleet undoes, and whether gateway and Inf hosts can talk then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import Fleet
from deploy.rollout import undoing
from deploy.rollout.batches import OrderError
from deploy.rollout.undoing import NothingToUndoError

GROUPS = {"hub": ("hub-01",), "inf": ("inf-01", "inf-02"), "gateway": ("gtw-01",)}
HOSTS = ("hub-01", "inf-01", "inf-02", "gtw-01")
FLEET = Fleet(Path("inventory/lab.yml"), "lab", {host: {"fleet_gateway": "gtw-01"} for host in HOSTS}, GROUPS)


def service(deployment: str | None, at: str = "", protocol: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    told = {"min": protocol[0], "max": protocol[1]}
    return {"deployment": deployment, "deployed_at": at, "protocol": told}


def statuses(gateway: dict[str, Any], reconciler: dict[str, Any]) -> dict[str, Any]:
    return {
        "hub-01": {"services": {"monitoring": service("aaa", "2026-01-01T00:00:00Z")}},
        "inf-01": {"services": {"reconciler": reconciler, "monitoring": service(None)}},
        "inf-02": {"services": {"reconciler": service("aaa", "2026-01-01T00:00:01Z")}},
        "gtw-01": {"services": {"gateway": gateway}},
    }


SEEN = statuses(service("bbb", "2026-01-02T00:00:00Z"), service("bbb", "2026-01-02T00:00:09Z"))


def test_the_newest_that_runs_anywhere_is_undone_where_it_runs() -> None:
    assert undoing.chosen(SEEN, None) == "bbb"
    assert undoing.affected(SEEN, "bbb") == {"inf-01": ("reconciler",), "gtw-01": ("gateway",)}


def test_another_one_is_named_by_the_beginning_of_its_id() -> None:
    assert undoing.chosen(SEEN, "a") == "aaa"
    assert undoing.affected(SEEN, "aaa") == {"hub-01": ("monitoring",), "inf-02": ("reconciler",)}


def test_what_an_unfinished_rollback_holds_still_belongs_to_what_it_undoes() -> None:
    """pyinfra sees it before the lock has settled it; it will run again what it was about to leave."""
    held = {"deployment": "aaa", "deployed_at": "2026-01-01", "current": "1-r", "previous": "2-r"}
    seen = statuses(service("aaa", "2026-01-01"), {**held, "pending": "1-r", "undid": "bbb"})
    assert undoing.chosen(seen, None) == "bbb"
    assert undoing.affected(seen, "bbb") == {"inf-01": ("reconciler",)}
    assert undoing.generation_of(seen["inf-01"]["services"]["reconciler"]) == "2-r"
    confirmed = statuses(service("aaa", "2026-01-01"), {**held, "pending": None, "undid": "bbb"})
    assert undoing.chosen(confirmed, None) == "aaa"


@pytest.mark.parametrize(("seen", "named"), [(SEEN, "ccc"), ({"hub-01": {}}, None), ({"hub-01": {}}, "a")])
def test_what_cannot_be_undone_is_refused_with_a_list(seen: dict[str, Any], named: str | None) -> None:
    with pytest.raises(NothingToUndoError, match="Nothing was changed") as refused:
        undoing.chosen(seen, named)
    assert ("bbb, aaa" if seen is SEEN else "none") in str(refused.value)


def test_a_windows_gateway_that_says_nothing_is_not_left_out() -> None:
    fleet = Fleet(Path("inventory/lab.yml"), "lab", {}, {**GROUPS, "windows": ("gtw-01",)})
    undoing.require_told(fleet, SEEN)
    undoing.require_told(FLEET, {**SEEN, "gtw-01": {}})
    with pytest.raises(NothingToUndoError, match=r"gtw-01 is not known.*python_sha256.*Nothing was changed"):
        undoing.require_told(fleet, {**SEEN, "gtw-01": {}})


def back(protocol: tuple[int, int]) -> dict[str, Any]:
    return {"protocol": {"min": protocol[0], "max": protocol[1]}}


def test_an_older_release_tool_is_refused_with_the_way_to_a_newer_one() -> None:
    told = {"services": {"reconciler": {**service("bbb"), "undid": None}}}
    undoing.require_steps({"inf-01": told, "gtw-01": SEEN["gtw-01"]}, ["inf-01"])
    with pytest.raises(NothingToUndoError, match=r"gtw-01 is older.*--tags baseline.*Nothing was\s+changed"):
        undoing.require_steps({"inf-01": told, "gtw-01": SEEN["gtw-01"]}, ["inf-01", "gtw-01"])


def test_gateways_move_first() -> None:
    assert undoing.waves(FLEET, ["inf-01", "gtw-01", "hub-01"]) == [("gtw-01",), ("inf-01", "hub-01")]
    assert undoing.waves(FLEET, ["inf-01"]) == [("inf-01",)]


def test_versions_that_fit_once_all_are_back_are_enough() -> None:
    """On the way they need not: nobody is judged before all are back."""
    new = service("bbb", "2026-01-02T00:00:00Z", (2, 2))
    seen = statuses(new, new)
    del seen["inf-02"]
    answers = {
        "inf-01": {"services": {"reconciler": back((1, 1))}},
        "gtw-01": {"services": {"gateway": back((1, 1))}},
        "hub-01": {"services": {"monitoring": {"protocol": None}}},
    }
    undoing.require_fit(FLEET, seen, answers)


def test_a_part_that_could_not_talk_afterwards_is_refused() -> None:
    new = service("bbb", "2026-01-02T00:00:00Z", (2, 2))
    with pytest.raises(OrderError, match="will not understand"):
        undoing.require_fit(FLEET, statuses(new, new), {"inf-01": {"services": {"reconciler": back((1, 1))}}})
