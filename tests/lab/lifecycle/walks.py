"""What is done with a change: deployed, failing, interrupted, rolled back. Each ends as it began."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.faults.fleet.controller import Controller, Moment
from tests.lab.lifecycle.changes import GATEWAY, LAST, Back, Change
from tests.lab.lifecycle.course import OUTPUT, Course, State, require_as_told, restarted
from tests.lab.lifecycle.description import Saved

NOBODY = "203.0.113.77"
"""An address that no lab host has."""
FAULTS: dict[str, Callable[[Course], None]] = {
    "baseline": lambda course: course.description.set(
        baseline_sysctl={"net.ipv4.no_such": "1"}, baseline_sysctl_strict=True
    ),
    "gateway": lambda course: course.description.set_on(GATEWAY, gateway_bind=NOBODY),
    "inf": lambda course: course.description.set_on(
        course.fleet.hosts("strategy")[-1], strategy_strategy="nowhere:Nothing"
    ),
}
"""Phase → what is wanted beside the change and cannot become healthy in that phase."""


def deployed(course: Course, change: Change) -> None:
    """Looked at, deployed, deployed again, taken out of the description and deployed, with the same looks."""
    before, saved = course.state(), course.description.saved()
    change.make(course.description, course.fleet.lab)
    said = course.look()
    _deploy(course)
    after = course.state()
    require_as_told(said, before, after)
    assert restarted(before, after) == change.restarts
    course.require_trading(course.magics())
    course.require_nothing_to_do()

    _take_out(course, change, saved)
    after = course.state()
    said = course.look()
    _deploy(course)
    back = course.state()
    require_as_told(said, after, back)
    assert _same(before, back)
    course.require_trading(course.magics())


def failing(phase: str) -> Callable[[Course, Change], None]:
    """A deployment that fails in a phase leaves what ran; what it only takes away stays taken."""

    def walk(course: Course, change: Change) -> None:
        before, saved = course.state(), course.description.saved()
        change.make(course.description, course.fleet.lab)
        course.sync()
        FAULTS[phase](course)
        course.description.write()
        ran = course.deploy()
        assert ran.status not in (0, None), ran.output[-OUTPUT:]
        assert ran.record["outcome"] == "failed", ran.output[-OUTPUT:]
        assert ran.record["failures"], ran.output[-OUTPUT:]
        _take_out(course, change, saved)
        back = course.state()
        assert _same(before, back), ran.output[-OUTPUT:]
        if change.takes:
            _deploy(course)
        course.require_running()
        course.require_trading(course.magics())
        course.require_nothing_to_do()

    return walk


def interrupted(number: signal.Signals, when: str) -> Callable[[Course, Change], None]:
    """The controller is hit; the next run brings the change, and a rollback of the fleet takes it back."""

    def walk(course: Course, change: Change) -> None:
        before, saved = course.state(), course.description.saved()
        change.make(course.description, course.fleet.lab)
        course.renew()
        controller = course.begin()
        controller.wait_for(_moment(controller, when))
        controller.hit(number)
        ended = controller.end()
        assert ended.status == (-number if number == signal.SIGKILL else 128 + number), ended.output[-OUTPUT:]
        _deploy(course)
        course.require_trading(course.magics())
        course.require_nothing_to_do()
        _fleet_back(course, change, before, saved)

    return walk


def rolled_back(course: Course, change: Change) -> None:
    """Deployed, and taken back by a rollback of the fleet, and of one host before that."""
    before, saved = course.state(), course.description.saved()
    change.make(course.description, course.fleet.lab)
    _deploy(course)
    _fleet_back(course, change, before, saved)


def rolled_back_by(part: str, host: str = "") -> Callable[[Course, Change], None]:
    """A part, or one host, goes back alone: the fleet trades afterwards, or nothing was changed."""

    def walk(course: Course, change: Change) -> None:
        saved = course.description.saved()
        change.make(course.description, course.fleet.lab)
        _deploy(course)
        after = course.state()
        ran = course.roll_back(part, host)
        now = course.state()
        if ran.status != 0:
            assert _same(after, now), ran.output[-OUTPUT:]
        course.require_running()
        course.require_trading(course.magics())
        _deploy(course)
        assert _same(after, course.state())
        _take_out(course, change, saved)
        _deploy(course)
        course.require_trading(course.magics())

    return walk


REMEDIES = {
    Back.WITH_ACCESS: "access=back",
    Back.OTHERS: "leave this host out of the rollback (--limit)",
}
"""What a rollback of the fleet that is refused says to do."""
WALKS: dict[str, Callable[[Course, Change], None]] = {
    "deployed": deployed,
    **{f"fails in {phase}": failing(phase) for phase in FAULTS},
    "killed early": interrupted(signal.SIGKILL, "early"),
    "killed late": interrupted(signal.SIGKILL, "late"),
    "Ctrl-C early": interrupted(signal.SIGINT, "early"),
    "Ctrl-C late": interrupted(signal.SIGINT, "late"),
    "rolled back": rolled_back,  # the fleet
    **{f"{part} rolled back": rolled_back_by(part) for part in ("gateway", "reconciler", "strategy")},
    f"{LAST} rolled back": rolled_back_by("fleet", LAST),
    f"{GATEWAY} rolled back": rolled_back_by("fleet", GATEWAY),
}


def fits(change: Change, walk: str) -> bool:
    """Whether a walk says anything of a change: a part that it leaves alone has nothing to go back to."""
    what, _, rest = walk.partition(" ")
    touched = {name for member in change.restarts | change.live for name in member}
    return rest != "rolled back" or what in touched


def _deploy(course: Course) -> None:
    ran = course.deploy()
    assert ran.status == 0, ran.output[-OUTPUT:]
    course.require_running()


def _take_out(course: Course, change: Change, saved: Saved) -> None:
    """The change is out of the description, and the machines are as they were."""
    change.undo(course.fleet.lab)
    course.description.restore(saved)


def _fleet_back(course: Course, change: Change, before: State, saved: Saved) -> None:
    """A rollback of the fleet, with the description of before; then nothing is to be done."""
    if change.back is Back.NOTHING:
        _take_out(course, change, saved)
        _deploy(course)
        return
    remedy = REMEDIES.get(change.back)
    if remedy:
        after = course.state()
        refused = course.roll_back("fleet")
        assert refused.status != 0, refused.output[-OUTPUT:]
        assert remedy in refused.output, refused.output[-OUTPUT:]
        assert course.state() == after
    if change.back is Back.OTHERS:
        _take_out(course, change, saved)
        course.sync()
    change.undo(course.fleet.lab)
    ran = course.roll_back("fleet", access=change.back is Back.WITH_ACCESS)
    assert ran.status == 0, ran.output[-OUTPUT:]
    _take_out(course, change, saved)
    back = course.state()
    assert _same(before, back), ran.output[-OUTPUT:]
    if change.back in (Back.KEEPS_ACCESS, Back.OTHERS):
        _deploy(course)
    course.require_running()
    course.require_trading(course.magics())
    course.require_nothing_to_do()


def _same(before: State, now: State) -> bool:
    """Whether the same runs; of hosts that are no members any more nothing is asked."""
    return {key: now.contents.get(key) for key in before.contents} == before.contents


def _moment(controller: Controller, when: str) -> Moment:
    """When the gateway is being activated, or the last strategy of those that ran before waits."""
    if when == "early":
        return Moment("early", GATEWAY, "gateway", ("activating", "provisional"))
    members = {host.name for host in controller.fleet.plan.hosts}
    last = max(host for host, service in controller.known if service == "strategy" and host in members)
    return Moment("late", last, "strategy", ("provisional", "confirmed"))
