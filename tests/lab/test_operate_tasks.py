"""Every task of operate.yml and operate.py that acts, on a fleet that trades, with both engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.coordination.alone import alone
from deploy.fleet.inventory import resolve
from lab.handle import wait_until
from tests.lab.engines import Fleet, Ran
from tests.lab.test_operator import findings, operate

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.slow(reason="the unit tests do each at a real gateway; test_operator.py has the kill switch"),
]

Act = Callable[..., Ran]
MAGIC, INF, GTW = "202402", "inf-02", "gtw-01"
GATEWAY, RECONCILER = "mt5crs-gateway.service", "mt5crs-reconciler.service"
GIVEN_UP = (
    f"until systemctl is-failed --quiet {GATEWAY}; do systemctl kill -s KILL {GATEWAY}; sleep 0.3; done"
)
UNEXPLAINED = """
import sqlite3, msgspec
from mt5crs.protocol.records import Position
from mt5crs.reconciler.model import LocalState

books = sqlite3.connect("/var/lib/mt5crs/reconciler/reconciler.db")
magic, body = books.execute("SELECT magic, body FROM state").fetchone()
known = msgspec.msgpack.decode(body, type=LocalState)
invented = Position(
    identifier=999_999, ticket=999_999, symbol="EURUSD", type="BUY", magic=magic, volume=0.01,
    price_open=1.1, price_current=1.1, sl=0.0, tp=0.0, profit=0.0, swap=0.0,
    time_msc=1, time_update_msc=1, reason=0, comment="",
)
known = msgspec.structs.replace(known, positions=(*known.positions, invented))
books.execute("UPDATE state SET body = ? WHERE magic = ?", (msgspec.msgpack.encode(known), magic))
books.commit()
"""
"""Makes the reconciler's record know a position that the broker never had."""
REFUSES = (
    f"systemctl stop {RECONCILER} && "
    f"setpriv --reuid=mt5crs --regid=mt5crs --clear-groups "
    f"/opt/mt5crs/reconciler/current/venv/bin/python -c '{UNEXPLAINED}' && "
    f"systemctl start --no-block {RECONCILER} mt5crs-strategy.service"
)


def with_ansible(fleet: Fleet, task: str, **told: str) -> Ran:
    return fleet.playbook("operate.yml", "--tags", task, "-e", json.dumps(told))


def with_pyinfra(fleet: Fleet, task: str, **told: str) -> Ran:
    data = [word for name, value in told.items() for word in ("--data", f"{name}={value}")]
    return fleet.pyinfra("--data", f"do={task}", *data, file="operate.py")


def halts(fleet: Fleet) -> list[tuple[int, str]]:
    """(magic number, reason) of what is halted."""
    said = json.loads(operate(fleet, "status", "--json").stdout)[GTW]
    return [(halt["magic"], halt["reason"]) for halt in said["halts"]]


def open_of(fleet: Fleet) -> list[dict[str, Any]]:
    """Positions and working orders of the magic number at the broker."""
    positions = json.loads(operate(fleet, "positions", "--all", "--json").stdout)[GTW]["positions"]
    orders = json.loads(operate(fleet, "orders", "--json").stdout)[GTW]["working"]
    return [one for one in (*positions, *orders) if one["magic"] == int(MAGIC)]


def state(fleet: Fleet, host: str, unit: str) -> str:
    return fleet.lab.exec(host, ["systemctl", "is-active", unit], check=False).stdout.strip()


def go(fleet: Fleet) -> None:
    """Wait until nothing is in the way of a start: alerts of an earlier test are told for five minutes."""
    seen: list[object] = []

    def decided() -> bool:
        seen.append(findings(operate(fleet, "preflight", "--json"), stopping=True))
        return not seen[-1]

    wait_until(decided, 330, "GO", seen=lambda: seen[-1])


def nothing_is_left(fleet: Fleet) -> None:
    """Wait until recover finds nothing to tell."""
    seen: list[str] = []

    def well() -> bool:
        ran = operate(fleet, "recover", "--reason", "drill of recover")
        seen.append(ran.stdout)
        return ran.returncode == 0

    wait_until(well, 60, "nothing is left to a person", seen=lambda: seen[-1])


def done(fleet: Fleet, act: Act, task: str, **told: str) -> str:
    ran = act(fleet, task, **told)
    assert ran.status == 0, ran.output[-3000:]
    return ran.output


def refused(fleet: Fleet, act: Act, task: str, **told: str) -> str:
    ran = act(fleet, task, **told)
    assert ran.status != 0, ran.output[-3000:]
    return ran.output


@pytest.fixture
def drilled(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, which trades again afterwards."""
    yield fleet
    fleet.lab.exec(GTW, ["sh", "-c", f"systemctl reset-failed {GATEWAY}; systemctl start {GATEWAY}"])
    wait_until(lambda: operate(fleet, "status").returncode == 0, 30, "the gateway's answer")
    for words in (("phase", "activate", "--magic", MAGIC), ("resume", "--magic", MAGIC), ("resume",)):
        operate(fleet, *words, "--reason", "the drill is over")
    assert halts(fleet) == []


def test_each_task_that_acts_does_what_it_says(drilled: Fleet) -> None:
    fleet = drilled
    for act in (with_ansible, with_pyinfra):
        go(fleet)
        done(fleet, act, "halt", why="drill of halt")
        assert halts(fleet) == [(0, "drill of halt")]
        done(fleet, act, "resume", why="drill of resume")
        assert halts(fleet) == []

        # One magic number, and the others trade on. When its run began is known once it was started.
        assert "stopped, HALTED" in act(fleet, "stop", magic=MAGIC, why="drill of stop").output
        done(fleet, act, "start", magic=MAGIC, yes="true")
        assert halts(fleet) == []
        done(fleet, act, "stop", magic=MAGIC, why="drill of stop")
        assert halts(fleet) == [(int(MAGIC), "drill of stop")]
        done(fleet, act, "resume", magic=MAGIC, why="drill of resume")
        done(fleet, act, "cancel", magic=MAGIC, why="drill of cancel")
        assert halts(fleet) == [(int(MAGIC), "drill of cancel")]
        done(fleet, act, "flatten", magic=MAGIC)
        assert open_of(fleet) == []
        assert "has to be told why" in refused(fleet, act, "withdraw", magic=MAGIC)
        done(fleet, act, "withdraw", magic=MAGIC, why="drill of withdraw")
        assert "trading was withdrawn" in refused(fleet, act, "start", magic=MAGIC, yes="true")
        unknown = refused(fleet, act, "resolve", order_id="nosuch", magic=MAGIC, why="drill of resolve")
        assert "nothing is recorded under nosuch" in unknown
        for words in (("phase", "activate"), ("resume",)):
            given = operate(fleet, *words, "--magic", MAGIC, "--reason", "drill")
            assert given.returncode == 0, given.stderr

    # A position that nothing explains: the reconciler refuses to start until somebody says who is right.
    log = ["journalctl", "-u", RECONCILER, "-n", "3", "-o", "cat"]
    for act in (with_ansible, with_pyinfra):
        assert "its reconciler runs" in refused(fleet, act, "accept", host=INF, why="drill of accept")
        fleet.lab.exec(INF, ["sh", "-c", REFUSES])
        wait_until(
            lambda: "position 999999" in fleet.lab.exec(INF, log).stdout,
            60,
            "the reconciler refuses",
            seen=lambda: fleet.lab.exec(INF, log).stdout,
        )
        told = done(fleet, act, "accept", host=INF, why="drill of accept")
        assert "has taken over the broker's state" in told
        assert state(fleet, INF, RECONCILER) == "active"

    # What systemd has given up is started again, but not while somebody deploys.
    for act in (with_ansible, with_pyinfra):
        fleet.lab.exec(GTW, ["sh", "-c", GIVEN_UP], timeout_s=120)
        with alone(resolve(fleet.inventory), "drill", "somebody deploys", print):
            told = refused(fleet, act, "recover", why="drill of recover")
        assert "holds the fleet's lock" in told
        assert state(fleet, GTW, GATEWAY) == "failed"
        # An order that was under way when it was killed may be of unknown fate for a moment: that is told.
        assert f"{GTW}: {GATEWAY} started" in act(fleet, "recover", why="drill of recover").output
        assert state(fleet, GTW, GATEWAY) == "active"
        nothing_is_left(fleet)
