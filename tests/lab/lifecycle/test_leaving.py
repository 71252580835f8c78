"""A host is taken out of the inventory, and nothing else is done; then it is put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.engines import Fleet
from tests.lab.lifecycle.changes import BY_NAME, FIRST, LAST
from tests.lab.lifecycle.course import OUTPUT, Course, restarted
from tests.lab.lifecycle.description import Description

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

CHANGE = BY_NAME["remove an Inf"]


@pytest.fixture
def course(fleet: Fleet) -> Iterator[Course]:
    """The shared fleet; its inventory is as it was afterwards."""
    description = Description(fleet.lab.directory, fleet.lab.plan, {})
    saved = description.saved()
    course = Course(fleet, description)
    yield course
    description.restore(saved)
    course.sync()


@pytest.mark.slow(reason="a host leaves and comes back in every run, in tests/lab/test_decommission.py")
def test_the_rest_trades_on_and_the_host_trades_again_once_it_is_back(course: Course) -> None:
    before, saved = course.state(), course.description.saved()
    CHANGE.make(course.description)
    ran = course.deploy()
    assert ran.status == 0, ran.output[-OUTPUT:]
    assert restarted(before, course.state()) == CHANGE.restarts
    course.require_orders([FIRST])
    course.description.restore(saved)
    ran = course.deploy()
    assert ran.status == 0, ran.output[-OUTPUT:]
    course.require_running()
    assert course.state().contents == before.contents
    course.require_trading([FIRST, LAST])
