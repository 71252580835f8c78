"""A host that cannot say what runs on it: nothing is begun, and the run names host, cause and remedy."""

from __future__ import annotations

import pytest

from tests.lab.engines import Fleet, Ran
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

STATE = "/opt/mt5crs/reconciler/state.json"
KEPT = "/root/state.json"


def run(fleet: Fleet, what: str) -> Ran:
    if what == "rollback":
        return fleet.rollback_with_pyinfra("fleet")
    return fleet.pyinfra() if what == "pyinfra" else fleet.playbook("site.yml")


@pytest.mark.parametrize(
    "what",
    [
        "pyinfra",
        *(
            pytest.param(slow, marks=pytest.mark.slow(reason=OTHER_ENGINE))
            for slow in ("ansible", "rollback")
        ),
    ],
)
def test_a_host_that_cannot_say_what_runs_is_named_and_nothing_is_begun(fleet: Fleet, what: str) -> None:
    before = fleet.generations()
    fleet.override(reconciler_log_level="DEBUG")
    fleet.lab.exec("inf-02", ["cp", "-a", STATE, KEPT])
    fleet.lab.exec("inf-02", ["truncate", "-s", "100", STATE])
    try:
        ran = run(fleet, what)
    finally:
        fleet.lab.exec("inf-02", ["mv", KEPT, STATE])
    assert ran.status != 0
    assert "Traceback" not in ran.output
    assert ran.record["outcome"] == "failed"
    (failure,) = ran.record["failures"]
    assert (failure["host"], failure["step"]) == ("inf-02", "ask what runs")
    assert STATE in failure["message"]
    assert "put a backup of the file back" in failure["remedy"]
    assert fleet.generations() == before
