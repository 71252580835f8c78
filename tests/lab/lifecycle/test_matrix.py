"""Every change of a fleet's life, every walk, both engines, under order flow (`make lifecycle-long`)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.lifecycle.changes import BY_NAME, CHANGES, GATEWAY, LAST
from tests.lab.lifecycle.conftest import empty
from tests.lab.lifecycle.course import ANSIBLE, OUTPUT, PYINFRA, Course
from tests.lab.lifecycle.table import Row, note
from tests.lab.lifecycle.walks import WALKS, fits

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

ENGINES = (PYINFRA, ANSIBLE)
PAIRS = os.environ.get("MT5CRS_LIFECYCLE_PAIRS", "") not in ("", "0")
"""Every change in every walk, engines in turns; else with both."""


def cells() -> Iterator[tuple[str, str, str]]:
    """(change, walk, engine)"""
    number = 0
    for change in CHANGES:
        for walk in WALKS:
            if fits(change, walk):
                number += 1
                for engine in (ENGINES[number % 2],) if PAIRS else ENGINES:
                    yield change.name, walk, engine


@pytest.mark.slow(reason="hours; every run takes a host out of the inventory and in again")
@pytest.mark.parametrize(("change", "walk", "engine"), list(cells()))
def test_a_change_can_be_made_fails_whole_and_is_taken_back(
    course: Course, change: str, walk: str, engine: str
) -> None:
    course.engine = engine
    made = BY_NAME[change]
    try:
        with noted(course, change, walk):
            WALKS[walk](course, made)
    finally:
        made.undo(course.fleet.lab)


@contextmanager
def noted(course: Course, change: str, walk: str) -> Iterator[None]:
    """A cell of the table; the body is what is done in it."""
    began, outcome, pauses = time.monotonic(), "BROKEN", dict[str, float]()
    try:
        with course.pauses() as pauses:
            yield
        outcome = "good"
    finally:
        seconds = time.monotonic() - began
        note(Row(change, walk, course.engine, outcome, seconds, pauses, tuple(course.runs)))


BROKER = "/var/lib/mt5crs/gateway/sim/broker.db"


@pytest.mark.slow(reason="hours; every run takes a host out of the inventory and in again")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("host", [LAST, GATEWAY])
def test_a_host_that_was_reinstalled_is_put_on_its_feet_by_a_deployment(
    course: Course, host: str, engine: str
) -> None:
    """Nothing is left of it but its address and its host key. The broker's books are not its own."""
    course.engine = engine
    lab, before = course.fleet.lab, course.state()
    with noted(course, f"{host} reinstalled", "deployed"):
        if host == GATEWAY:
            lab.exec(host, ["systemctl", "stop", "mt5crs-gateway.service"])
            books = lab.exec(host, ["base64", BROKER]).stdout
        empty(lab, host)
        course.description.write()
        if host == GATEWAY:
            lab.exec(host, ["mkdir", "-p", str(Path(BROKER).parent)])
            lab.exec(host, ["sh", "-c", f"base64 -d >{BROKER}"], input_text=books)
        ran = course.deploy()
        assert ran.status == 0, ran.output[-OUTPUT:]
        assert course.state().contents == before.contents
        course.require_running()
        course.forgive()
        course.require_trading(course.magics())
        course.require_nothing_to_do()
