"""Hosts and lines fail in the middle of a roll-out, or a release fails late: the fleet stays one fleet."""

from __future__ import annotations

import time

import pytest

from lab import faults
from lab.handle import wait_until
from tests.faults.fleet.arena import LAST, NEW, OLD, Arena, note
from tests.faults.fleet.controller import ACTIVATE_FIRST, FIRST_WAITS, MIDDLE_OF_CONFIRM, Controller, since
from tests.lab.engines import Ran

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow(reason="hosts are lost in tests/lab/test_strategies.py and test_deployment_record.py"),
    pytest.mark.timeout(600),
]

HALF = ("gtw-01", "inf-02")


def settled(arena: Arena, before: dict[tuple[str, str], str], ran: Ran) -> str:
    """The roll-out has failed and said so; what the fleet is when everybody has come to rest."""
    assert ran.status not in (0, None), ran.output[-4000:]
    assert ran.record["outcome"] in ("failed", "unchanged"), ran.output[-4000:]
    return arena.wait_converged(before, 180)


def begun(arena: Arena) -> tuple[dict[tuple[str, str], str], Controller]:
    """A roll-out of a new release, Inf hosts one after the other, and what ran before it."""
    before = arena.generations()
    arena.release()
    return before, arena.begin()


@pytest.mark.parametrize("hard", [False, True], ids=["reboot", "power-cut"])
def test_a_host_is_rebooted_while_its_generation_waits(arena: Arena, hard: bool) -> None:
    before, controller = begun(arena)
    controller.wait_for(FIRST_WAITS)
    began = time.monotonic()
    faults.reboot(arena.fleet.lab, FIRST_WAITS.host, hard=hard)
    found = settled(arena, before, controller.end(480))
    note("power cut" if hard else "reboot", FIRST_WAITS.name, found, since(began))
    assert found == OLD
    arena.check_order_flow()


def test_half_of_the_hosts_cannot_be_reached(arena: Arena) -> None:
    before = arena.generations()
    arena.release()
    for host in HALF:
        faults.cut(arena.fleet.lab, host, faults.CONTROLLER)
    began = time.monotonic()
    ran = arena.begin().end(480)
    seconds = since(began)
    assert ran.status != 0, ran.output[-4000:]
    for host in HALF:
        assert host in ran.output
    assert arena.converged(before) == OLD
    note("half of the hosts unreachable", "before the run", OLD + " (refused)", seconds)
    faults.heal(arena.fleet.lab.plan.name)
    arena.check_order_flow()


def test_half_of_the_hosts_are_lost_on_the_way(arena: Arena) -> None:
    before, controller = begun(arena)
    controller.wait_for(ACTIVATE_FIRST)
    began = time.monotonic()
    for host in HALF:
        faults.cut(arena.fleet.lab, host, faults.CONTROLLER)
    # Nobody can tell the gateway to go back; it does so at its deadline.
    wait_until(lambda: _at_rest(arena, HALF), 180, "the hosts that nobody reaches")
    faults.heal(arena.fleet.lab.plan.name)
    found = settled(arena, before, controller.end(480))
    note("half of the hosts lost", ACTIVATE_FIRST.name, found, since(began))
    assert found == OLD
    arena.check_order_flow()


def test_a_host_is_lost_while_the_fleet_is_confirmed(arena: Arena) -> None:
    before, controller = begun(arena)
    controller.wait_for(MIDDLE_OF_CONFIRM)
    began = time.monotonic()
    faults.cut(arena.fleet.lab, LAST, faults.CONTROLLER)
    # The gateway is confirmed by now, and would not go back by itself.
    wait_until(lambda: _at_rest(arena, (LAST,)), 120, f"{LAST} to go back")
    faults.heal(arena.fleet.lab.plan.name)
    ran = controller.end(480)
    found = arena.wait_converged(before, 120)
    note("a host lost", MIDDLE_OF_CONFIRM.name, found, since(began))
    assert found == (NEW if ran.status == 0 else OLD), ran.output[-4000:]
    arena.check_order_flow()


def test_the_gateway_is_cut_off_from_inf(arena: Arena) -> None:
    before, controller = begun(arena)
    controller.wait_for(ACTIVATE_FIRST)
    began = time.monotonic()
    faults.cut(arena.fleet.lab, "gtw-01", "inf-01", "inf-02")
    ran = controller.end(480)
    faults.heal(arena.fleet.lab.plan.name)
    found = settled(arena, before, ran)
    note("gateway cut off from Inf", ACTIVATE_FIRST.name, found, since(began))
    assert found == OLD
    arena.check_order_flow()


def test_a_release_that_crashes_at_every_start(arena: Arena) -> None:
    before = arena.generations()
    arena.release(good=False)
    began = time.monotonic()
    ran = arena.begin().end()
    found = settled(arena, before, ran)
    note("release crash-loops", "Inf step 2", found, since(began))
    assert found == OLD
    assert "nowhere" in ran.output, "the diagnosis names what cannot be loaded"
    arena.check_order_flow()


def test_a_release_that_is_healthy_and_then_dies(arena: Arena) -> None:
    before, controller = begun(arena)
    controller.wait_for(FIRST_WAITS)
    began = time.monotonic()
    kill = ["systemctl", "kill", "-s", "KILL", "mt5crs-strategy.service"]
    arena.fleet.lab.exec(FIRST_WAITS.host, kill)
    found = settled(arena, before, controller.end())
    note("healthy, then dies", FIRST_WAITS.name, found, since(began))
    assert found == OLD
    arena.check_order_flow()


def _at_rest(arena: Arena, hosts: tuple[str, ...]) -> bool:
    return not any(now["pending"] for host in hosts for now in arena.fleet.status(host).values())
