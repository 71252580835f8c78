"""Hosts of earlier steps are looked at again, and a run that is told to stop does not wait its pause out."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.coordination import holding
from deploy.coordination.holding import AGAIN_S, DOWN_S, SILENT_S, Given, look
from deploy.coordination.step_check import StepCheck
from deploy.fleet.inventory import Fleet

NEW, OLD = "0004-aaaaaaaaaaaa", "0003-bbbbbbbbbbbb"
GIVEN = Given("inf-01", "strategy", NEW)
UNIT = "mt5crs-strategy.service"
Status = Mapping[str, Any] | str


def status(**of_the_service: Any) -> dict[str, Any]:
    now = {
        "current": NEW,
        "state": "provisional",
        "units": {UNIT: "active"},
        "left": None,
    }
    return {"services": {"strategy": {**now, **of_the_service}}}


HOLDS = status()
REBOOTED = status(
    current=OLD,
    state="confirmed",
    left={"generation": NEW, "reason": "the host was rebooted before it was confirmed"},
)


class Hosts:
    """What inf-01 answers, one after the other, the last one for ever; and a clock."""

    def __init__(self, *answers: Status) -> None:
        self.answers = list(answers)
        self.now = 0.0
        self.asked = 0
        self.told_to_stop = False

    def ask(self, hosts: Sequence[str]) -> dict[str, Status]:
        assert list(hosts) == ["inf-01"]
        self.asked += 1
        return {"inf-01": self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def look(self) -> str | None:
        found = look([GIVEN], self.ask, lambda: self.told_to_stop, lambda: self.now, self.sleep)
        return None if found is None else holding.failure(found, "step 2/3 inf-02").message


def test_what_still_waits_or_was_confirmed_by_somebody_holds() -> None:
    for answer in (HOLDS, status(state="confirmed")):
        assert Hosts(answer).look() is None


def test_a_host_that_went_back_is_named_with_service_generations_and_reason() -> None:
    hosts = Hosts(REBOOTED)
    assert hosts.look() == (
        f"strategy of inf-01 was on {NEW} and went back to {OLD}: the host was rebooted before it was "
        "confirmed"
    )
    assert hosts.now == 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (status(state="reverting"), f"is leaving {NEW} (reverting)"),
        (status(current=None, state="failed"), "runs no more"),
        ({"services": {}}, "runs no more: `mt5crs-release list strategy` there says why"),
        (status(current=OLD, left={"generation": "0005", "reason": "x"}), f"back to {OLD}: `mt5crs-release"),
    ],
)
def test_other_ways_not_to_hold(answer: Status, says: str) -> None:
    assert says in str(Hosts(answer).look())


def test_units_that_systemd_starts_again_are_waited_for_a_little() -> None:
    down = status(units={UNIT: "activating"})
    hosts = Hosts(down, down, HOLDS)
    assert hosts.look() is None
    assert hosts.now == 2 * AGAIN_S
    hosts = Hosts(down)
    assert f"was healthy on {NEW}, but {UNIT} is activating" in str(hosts.look())
    assert DOWN_S <= hosts.now < DOWN_S + AGAIN_S


def test_a_silent_host_is_asked_until_it_would_be_back_from_a_reboot() -> None:
    silent = "connection refused"
    assert "the host was rebooted" in str(Hosts(silent, silent, REBOOTED).look())
    hosts = Hosts(silent)
    assert hosts.look() == "inf-01 gives no answer: connection refused"
    assert SILENT_S <= hosts.now < SILENT_S + AGAIN_S


def test_a_run_that_is_told_to_stop_asks_nobody() -> None:
    hosts = Hosts("connection refused")
    hosts.told_to_stop = True
    assert hosts.look() is None
    assert hosts.asked == 0


SETTINGS = {"fleet_alerts_unknown_s": 0, "fleet_alerts_unknown": "continue", "fleet_alerts_firing": "fail"}


def check_of(monkeypatch: pytest.MonkeyPatch, hosts: Hosts, stopped: threading.Event) -> StepCheck:
    monkeypatch.setattr(holding, "on_hosts", lambda _fleet: hosts.ask)
    fleet = Fleet(Path("lab.yml"), "lab", {"hub-01": {}}, {"hub": ("hub-01",)})
    return StepCheck(fleet, SETTINGS, stopped.is_set)


def test_every_step_looks_at_what_the_run_brought_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    check = check_of(monkeypatch, Hosts(HOLDS, REBOOTED), threading.Event())
    assert check.after("step 1/2 inf-01", ["inf-01"], [GIVEN], 0) is None
    failure = check.after("step 2/2 inf-02", ["inf-01", "inf-02"], [GIVEN], 0)
    assert failure is not None
    assert (failure.host, failure.step) == ("inf-01", "look again after step 2/2 inf-02")
    assert "went back to" in failure.message


def test_it_looks_again_and_again_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.coordination.step_check.LOOK_S", 0.05)
    check = check_of(monkeypatch, Hosts(HOLDS, HOLDS, REBOOTED), threading.Event())
    began = time.monotonic()
    failure = check.after("step 1/2 inf-01", ["inf-01"], [GIVEN], 60)
    assert failure is not None
    assert time.monotonic() - began < 10


def test_a_pause_ends_when_the_run_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()
    check = check_of(monkeypatch, Hosts(HOLDS), stopped)
    threading.Timer(0.3, stopped.set).start()
    began = time.monotonic()
    assert check.after("step 1/2 inf-01", ["inf-01"], [GIVEN], 60) is None
    assert time.monotonic() - began < 10
