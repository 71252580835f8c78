"""One account, one gateway: another takes its place once the former is stopped, or seen to be down."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from deploy.decommission.replacing import Seen, refusals

STOPS = Seen("gtw-01", "gtw-02", "10.9.9.15", not_former=None)
LOST = replace(STOPS, not_former="no route", ports={"from here": False, "to inf-01": False}, backup="2026")


def against(of: Seen, *, lost: bool, without: bool = False) -> list[str]:
    return list(refusals(of, lost=lost, without_backup=without))


def test_nothing_speaks_against_one_that_can_be_stopped_or_is_down() -> None:
    assert against(STOPS, lost=False) == []
    assert against(LOST, lost=True) == []
    assert against(replace(LOST, backup=None), lost=True, without=True) == []


@pytest.mark.parametrize(
    ("of", "change", "why"),
    [
        (STOPS, {"not_former": "no route"}, r"does not answer \(no route\).*--lost"),
        (STOPS, {"deploying": "ann deploys now"}, "ann deploys now; wait"),
        (STOPS, {"not_new": "refused"}, "gtw-02 does not answer at 10.9.9.15 .*known hosts"),
        (STOPS, {"occupied": "/opt/mt5crs/gateway"}, "gtw-02 has a gateway already"),
        (STOPS, {"own_files": ["host_vars/gtw-01.yml"]}, "host_vars/gtw-01.yml .* copy it for gtw-02"),
        (LOST, {"not_former": None}, "gtw-01 answers, so it is not lost"),
        (LOST, {"ports": {"to inf-01": True}}, "something answers to inf-01 .* switch its machine off"),
        (LOST, {"ports": {"to inf-01": "no route"}}, "to inf-01 is not known"),
        (LOST, {"backup": None, "not_backup": "there is no backup yet"}, "no backup yet.*--no-backup"),
    ],
)
def test_each_of_these_does(of: Seen, change: dict[str, Any], why: str) -> None:
    (told,) = against(replace(of, **change), lost=of is LOST)
    assert re.search(why, told), told
