"""The controller dies, or the line to it does, in each phase of a four-host roll-out: never half a fleet."""

from __future__ import annotations

import signal
import time

import pytest

from lab import faults
from lab.handle import wait_until
from tests.faults.fleet.arena import LONG_CONFIRM_TIMEOUT_S, NEW, OLD, Arena, note
from tests.faults.fleet.controller import (
    ACTIVATE_FIRST,
    ACTIVATE_GATEWAY,
    ACTIVATE_SECOND,
    BEFORE_CONFIRM,
    MIDDLE_OF_CONFIRM,
    PUT_BACK,
    STAGE,
    Moment,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SLOW = pytest.mark.slow(
    reason="every run has a sample of the moments: half confirmed, and active (test_deployment_record.py)"
)
QUICK = ("--data", "strategy=all_at_once")
ALLOWED = {OLD, NEW}
CUT_S = 25.0


def named(moment: Moment) -> str:
    return moment.name.replace(" ", "-")


def next_run(arena: Arena, before: dict[tuple[str, str], str]) -> str:
    """The same deployment once more, by somebody who knows nothing of the first; what the fleet is then."""
    ran = arena.begin(*QUICK).end()
    assert ran.status == 0, ran.output[-4000:]
    found = arena.converged(before)
    assert found is not None, arena.fleet.generations()
    return found


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(STAGE, marks=SLOW),
        pytest.param(ACTIVATE_GATEWAY, marks=SLOW),
        pytest.param(ACTIVATE_FIRST, marks=SLOW),
        pytest.param(ACTIVATE_SECOND, marks=SLOW),
        pytest.param(BEFORE_CONFIRM, marks=SLOW),
        MIDDLE_OF_CONFIRM,
    ],
    ids=named,
)
def test_a_killed_controller_is_made_good_by_the_next_run(arena: Arena, moment: Moment) -> None:
    before = arena.generations()
    arena.release(confirm_s=LONG_CONFIRM_TIMEOUT_S)
    controller = arena.begin()
    controller.wait_for(moment)
    began = time.monotonic()
    controller.hit(signal.SIGKILL)
    assert controller.end().status == -signal.SIGKILL
    assert next_run(arena, before) == NEW
    note("kill -9 of the controller", moment.name, NEW + " (next run)", time.monotonic() - began)
    arena.check_order_flow()


@SLOW
def test_a_roll_out_that_nobody_takes_up_goes_back_by_itself(arena: Arena) -> None:
    before = arena.generations()
    arena.release()
    controller = arena.begin()
    controller.wait_for(BEFORE_CONFIRM)
    began = time.monotonic()
    controller.hit(signal.SIGKILL)
    controller.end()
    found = arena.wait_converged(before, 120)
    note("kill -9, no further run", BEFORE_CONFIRM.name, found + " (itself)", time.monotonic() - began)
    assert found == OLD
    arena.check_order_flow()


@SLOW
def test_a_controller_killed_while_it_puts_back(arena: Arena) -> None:
    before = arena.generations()
    arena.release(good=False)
    controller = arena.begin()
    controller.wait_for(PUT_BACK)
    began = time.monotonic()
    controller.hit(signal.SIGKILL)
    controller.end()
    found = arena.wait_converged(before, 120)
    note("kill -9 of the controller", PUT_BACK.name, found + " (itself)", time.monotonic() - began)
    assert found == OLD
    arena.check_order_flow()


@pytest.mark.parametrize(
    ("number", "status", "moment"),
    [
        pytest.param(signal.SIGINT, 130, ACTIVATE_SECOND, marks=SLOW),
        pytest.param(signal.SIGTERM, 143, ACTIVATE_SECOND, marks=SLOW),
        pytest.param(signal.SIGINT, 130, MIDDLE_OF_CONFIRM, marks=SLOW),
        pytest.param(signal.SIGTERM, 143, BEFORE_CONFIRM, marks=SLOW),
    ],
    ids=["ctrl-c-activate", "sigterm-activate", "ctrl-c-confirm", "sigterm-before-confirm"],
)
def test_an_interrupted_controller_says_so(
    arena: Arena, number: signal.Signals, status: int, moment: Moment
) -> None:
    before = arena.generations()
    arena.release()
    controller = arena.begin()
    controller.wait_for(moment)
    began = time.monotonic()
    controller.hit(number)
    assert controller.end().status == status
    assert arena.wait_converged(before) in ALLOWED
    assert next_run(arena, before) == NEW
    note(number.name, moment.name, NEW + " (next run)", time.monotonic() - began)
    arena.check_order_flow()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(STAGE, marks=SLOW),
        pytest.param(ACTIVATE_GATEWAY, marks=SLOW),
        pytest.param(ACTIVATE_FIRST, marks=SLOW),
        pytest.param(ACTIVATE_SECOND, marks=SLOW),
        pytest.param(MIDDLE_OF_CONFIRM, marks=SLOW),
    ],
    ids=named,
)
def test_the_line_to_a_host_is_cut(arena: Arena, moment: Moment) -> None:
    lab = arena.fleet.lab
    before = arena.generations()
    arena.release()
    controller = arena.begin()
    controller.wait_for(moment)
    began = time.monotonic()
    faults.cut(lab, moment.host, faults.CONTROLLER)
    # Longer than keepalives are waited for, so the connection is lost. What waits for a word from the
    # controller goes back meanwhile; the others follow.
    wait_until(lambda: time.monotonic() - began > CUT_S, 2 * CUT_S, "the connection to be given up")
    wait_until(lambda: not _pending(arena, moment), 120, f"{moment.host} to settle")
    faults.heal(lab.plan.name)
    controller.end(480)
    found = arena.converged(before) or next_run(arena, before)
    note("line to one host cut", moment.name, found, time.monotonic() - began)
    assert found in ALLOWED
    arena.check_order_flow()


def _pending(arena: Arena, moment: Moment) -> bool:
    return any(now["pending"] for now in arena.fleet.status(moment.host).values())
