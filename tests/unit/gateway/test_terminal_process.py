"""The gateway beside a terminal process that hangs, crashes, raises or is killed: nothing else may suffer."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, HaltState, OrderResult, Pong
from tests.unit.gateway import hostile_terminal as hostile
from tests.unit.gateway.running import Caller, Running, eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

PASSWORD = "the-broker-password"


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One gateway for all of it: each test leaves it healthy."""
    gateway = Running(
        tmp_path_factory.mktemp("hostile"),
        TERMINAL_TIMEOUT_S="0.3",
        TERMINAL_READ_DEADLINE_S="1",
        TERMINAL_ORDER_DEADLINE_S="1.5",
        MT5_PASSWORD=PASSWORD,
    )
    gateway.program = hostile.MODULE
    try:
        gateway.start()
        gateway.client("strategy").lease()
        yield gateway
    finally:
        gateway.close()


@pytest.fixture
def trading(beside: Running) -> Caller:
    caller = beside.client("strategy")
    caller.lease()
    return caller


def children(gateway: Running) -> list[int]:
    """The terminal processes of a gateway."""
    assert gateway.process is not None
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == gateway.process.pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def state(gateway: Running) -> str:
    """The terminal's state, as the figures have it."""
    names = ("connected", "hung", "reconnecting", "login_failed", "failing", "starting")
    series = {name: f'mt5crs_gateway_terminal_state{{state="{name}"}}' for name in names}
    return next((name for name in names if gateway.metric(series[name])), "none of them")


def lost(gateway: Running, cause: str) -> float:
    return gateway.metric(f'mt5crs_gateway_terminal_lost_total{{cause="{cause}"}}')


def settled(caller: Caller, client_order_id: str) -> OrderResult:
    """The outcome, once there is one."""

    def known() -> OrderResult | None:
        reply = caller.query(client_order_id)
        return reply if isinstance(reply, OrderResult) and reply.outcome != "UNRESOLVED" else None

    return eventually(known)


def healthy(gateway: Running) -> None:
    eventually(lambda: gateway.health().get("healthy"))


def test_while_the_terminal_holds_its_interpreter_the_gateway_answers(
    beside: Running, trading: Caller
) -> None:
    watcher, ops = beside.client("watcher"), beside.client("ops")
    assert isinstance(watcher.ask(requests.Ping), Pong)
    assert not isinstance(ops.ask(requests.Status), Error)
    before, beats = children(beside), beside.metric("mt5crs_gateway_events_total")
    sent = trading.send(
        requests.OrderSend, **trading.terms(client_order_id="held", volume=hostile.HOLDS_THE_LOCK)
    )
    eventually(lambda: watcher.ask(requests.Status).state == "terminal_hung")
    eventually(lambda: state(beside) == "hung")
    times = []
    for _ in range(100):
        began = time.perf_counter()
        assert isinstance(watcher.ask(requests.Ping), Pong)
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    halted = ops.ask(requests.Halt, scope="FLEET", reason="it hangs")
    times.append(time.perf_counter() - began)
    assert isinstance(halted, HaltState)
    assert halted.in_flight == 1
    assert sorted(times)[len(times) // 2] < 0.05  # the machine may be busy with other tests
    assert max(times) < 1
    told = trading.receive(sent)
    assert isinstance(told, Error)
    assert told.code == "BUSY"
    assert settled(trading, "held").outcome == "FILLED"
    assert settled(trading, "held").evidence == "books"
    assert lost(beside, "deadline") == 1
    assert beside.metric("mt5crs_gateway_events_total") > beats
    assert len(children(beside)) == 1
    assert children(beside) != before
    assert not isinstance(ops.ask(requests.Resume, scope="FLEET", reason="it is another one"), Error)
    healthy(beside)
    assert trading.order().outcome == "FILLED"  # type: ignore[union-attr]


@pytest.mark.parametrize(("what", "volume"), [("raises", hostile.RAISES), ("crashes", hostile.CRASHES)])
def test_an_order_of_which_nothing_is_heard_is_looked_up(
    beside: Running, trading: Caller, what: str, volume: float
) -> None:
    before = len(beside.books("positions"))
    reply = trading.order(client_order_id=what, volume=volume)
    assert isinstance(reply, OrderResult)
    assert reply.outcome in ("FILLED", "UNRESOLVED")
    assert settled(trading, what).outcome == "FILLED"
    again = trading.order(client_order_id=what, volume=volume)
    assert isinstance(again, OrderResult)
    assert (again.outcome, again.replayed) == ("FILLED", True)
    assert len(beside.books("positions")) == before + 1
    healthy(beside)


def test_kill_9_of_the_terminal_process_loses_no_position(beside: Running, trading: Caller) -> None:
    trading.order(volume=0.2)
    before, ended = beside.books("positions"), lost(beside, "ended")
    (child,) = children(beside)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: lost(beside, "ended") == ended + 1)
    healthy(beside)
    snapshot = eventually(lambda: None if isinstance(found := trading.sync(), Error) else found)
    assert [p.identifier for p in snapshot.positions] == [p.identifier for p in before]
    assert trading.order().outcome == "FILLED"  # type: ignore[union-attr]


def test_a_terminal_that_was_restarted_is_connected_again(beside: Running, trading: Caller) -> None:
    before = children(beside)
    mark(beside, hostile.RESTARTED)
    eventually(lambda: not (beside.directory / "state" / hostile.RESTARTED).exists())
    healthy(beside)
    assert children(beside) == before
    assert trading.order().outcome == "FILLED"  # type: ignore[union-attr]


def test_a_terminal_whose_lists_are_slow_is_no_hanging_one(beside: Running, trading: Caller) -> None:
    made = mark(beside, hostile.SLOW)
    try:
        for _ in range(3):
            reply = trading.order()
            assert isinstance(reply, OrderResult), reply  # though it takes longer than a call may
            assert reply.outcome == "FILLED"
            assert beside.health()["state"] == "ready"
    finally:
        made.unlink()


def test_what_the_package_raises_at_each_look_ends_nothing(beside: Running, trading: Caller) -> None:
    made = mark(beside, hostile.RAISES_ALWAYS)
    eventually(lambda: state(beside) == "failing")
    assert "identity raised SystemError" in str(beside.health()["reason"])
    assert isinstance(trading.ask(requests.Ping), Pong)
    made.unlink()
    healthy(beside)
    eventually(lambda: state(beside) == "connected")
    assert beside.log().count("identity raised SystemError") == 1  # told once, not at each look


def test_the_terminal_process_has_no_secret_where_others_could_look(beside: Running) -> None:
    (child,) = children(beside)
    for name in ("environ", "cmdline"):
        shown = Path(f"/proc/{child}/{name}").read_bytes().decode()
        assert PASSWORD not in shown
        assert beside.environment["GATEWAY_SECRET_KEY"] not in shown


def test_a_password_that_is_refused_is_told_and_not_tried_at_once_again(beside: Running) -> None:
    """The last one: the next attempt is a minute away."""
    mark(beside, hostile.REFUSES)
    (child,) = children(beside)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: state(beside) == "login_failed")
    assert "Authorization failed" in str(beside.health()["reason"])
    attempts = beside.log().count('"terminal.not_started"')
    assert isinstance(beside.client("watcher").ask(requests.Ping), Pong)
    refused = beside.client("watcher").sync()
    assert isinstance(refused, Error)
    assert "Authorization failed" in refused.message
    assert beside.log().count('"terminal.not_started"') == attempts == 1


def mark(gateway: Running, name: str) -> Any:
    """Make the file that tells the hostile broker what to do."""
    path = gateway.directory / "state" / name
    path.touch()
    return path
