"""The real MetaTrader5 package, on Python for Windows under Wine and without a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.state import PROJECT
from lab.wine import PYTHON, Windows
from mt5crs.broker.interface import BrokerError, TradeRequest
from mt5crs.broker.mt5 import Mt5Broker, Terminal
from mt5crs.broker.sim.backend import Profile, SimulatedBroker
from mt5crs.protocol import requests
from mt5crs.protocol.replies import OrderResult, Pong, Snapshot
from tests.unit.broker.fake_metatrader5 import FakeMetaTrader5
from tests.unit.broker.test_terminal_process import gone
from tests.unit.gateway.running import Running, eventually
from tests.windows_contract.cases import CASES
from tests.windows_contract.record import RECORDED, asked, text_of

NOWHERE = r"Z:\nowhere\terminal64.exe"
NO_TERMINAL = [
    [-10004, "No IPC connection"],
    [-10003, f"IPC initialize failed, Process create failed '{NOWHERE}'"],
]
NO_TERMINAL += [[1, "Success"]]


def test_the_package_is_and_answers_what_is_recorded(windows: Windows) -> None:
    facts = asked(windows, CASES)
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert facts == recorded, "look at what differs, then `python -m tests.windows_contract.record`"
    assert text_of(facts) == RECORDED.read_text(encoding="utf-8")


class Recorder:
    """The fake package, and every call of it as an expression."""

    def __init__(self, package: FakeMetaTrader5) -> None:
        self.calls: list[str] = []
        self._package = package

    def __getattr__(self, function: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            given = [repr(each) for each in arguments]
            given += [f"{name}={value!r}" for name, value in options.items()]
            self.calls.append(f"{function}({', '.join(given)})")
            return getattr(self._package, function)(*arguments, **options)

        return call


def calls_of_the_backend(directory: Path) -> list[str]:
    """Everything that the backend asks of the package, in every form.

    Time stands still: a quote that moves on meanwhile measures the broker's clock, and `symbols_get` is not
    asked for any more.
    """
    now = time.time_ns() // 1_000_000
    simulated = SimulatedBroker(directory, Profile(), clock=lambda: now, durable=False)
    package = Recorder(FakeMetaTrader5(simulated, 90_000_001, "pw"))
    terminal = Terminal(
        path=NOWHERE, login=90_000_001, password="pw", server="Sim-Demo", timeout_s=1, portable=True
    )
    broker = Mt5Broker(terminal, package=package, wall_msc=lambda: now)
    broker.start()
    broker.identity()
    for symbol in ("EURUSD", "NOPE"):
        broker.symbol(symbol)
        broker.tick(symbol)
    base: dict[str, Any] = {"magic": 2**63 - 1, "comment": "c" * 26, "symbol": "EURUSD"}
    for deviation in (None, 0, 10):
        bought = broker.send(
            TradeRequest(action="DEAL", type="BUY", volume=1, filling="IOC", deviation=deviation, **base)
        )
    assert bought is not None
    for request in (
        TradeRequest(action="DEAL", type="SELL", volume=0.5, filling="FOK", position=bought.order, **base),
        TradeRequest(
            action="PENDING", type="BUY_LIMIT", volume=0.1, price=1.0, sl=0.9, tp=1.2, filling="RETURN",
            expiration_msc=broker.time_msc() + 3_600_000, **base,
        ),
    ):  # fmt: skip
        broker.check(request)
        sent = broker.send(request)
        assert sent is not None
        assert sent.retcode == 10009
    broker.send(TradeRequest(action="REMOVE", magic=7, comment="", filling=None, order=sent.order))
    broker.books()
    broker.deals(0)
    broker.closed_orders(2**53)
    broker.deals_of_position(bought.order)
    with suppress(BrokerError):
        broker.tick("E" * 30)
    broker.close()
    simulated.close()
    return list(dict.fromkeys(package.calls))


def test_the_package_takes_every_call_of_the_backend(windows: Windows, tmp_path: Path) -> None:
    """Refused would be -2, an exception, or an argument that is not known."""
    calls = [call for call in calls_of_the_backend(tmp_path) if not call.startswith("last_error")]
    assert {call.split("(")[0] for call in calls} == {
        "initialize", "shutdown", "account_info", "terminal_info", "positions_get", "orders_get",
        "symbols_get", "symbol_info", "symbol_info_tick", "symbol_select", "order_check", "order_send",
        "history_deals_get", "history_orders_get", "positions_total", "orders_total", "history_deals_total",
        "history_orders_total",
    }  # fmt: skip
    answers = asked(windows, calls)["answers"]
    refused = {
        call: each
        for call, each in answers.items()
        if each["raised"] or (each["error"] not in NO_TERMINAL and not call.startswith("symbols_get"))
    }
    assert refused == {}


MT5 = {
    "GATEWAY_BACKEND": "mt5",
    "MT5_PATH": NOWHERE,
    "MT5_LOGIN": "5000001",
    "MT5_PASSWORD": "pw",
    "MT5_SERVER": "Broker-Demo",
    "MT5_TIMEOUT_S": "1",
}


@contextmanager
def gateway_on_windows(windows: Windows, gateway: Running, **environment: str) -> Iterator[None]:
    """The gateway as a Windows process; its sockets are on this loopback, its STATE_DIR is here."""
    directory = gateway.directory
    gateway.write_clients()
    gateway.environment |= {
        **environment,
        "STATE_DIR": r"Z:\opt\own\state",
        "CLIENTS_FILE": r"Z:\opt\own\clients.json",
        "PYTHONPATH": r"Z:\opt\src",
    }
    inside = replace(
        windows,
        shared={PROJECT / "src": "/opt/src"},
        written={directory: "/opt/own"},
        variables=gateway.environment,
    )
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    with (directory / "log").open("ab") as log:
        gateway.process = subprocess.Popen(
            inside.argv(scratch, f"/{PYTHON}/python.exe", "-X", "utf8", "-m", "mt5crs.gateway"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(os.environ),
        )
    try:
        yield
    finally:
        gateway.process.kill()
        gateway.process.wait(20)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    """One that is not started yet."""
    made = Running(tmp_path)
    yield made
    made.close()


def test_a_gateway_on_windows_trades_and_comes_back_from_kill_9(windows: Windows, gateway: Running) -> None:
    """Its terminal process ends with it: the job object, whose last handle the kernel closes."""

    def traded(positions: int) -> None:
        ready(gateway)
        caller = gateway.client("strategy")
        caller.lease()
        reply = caller.order(valid_ms=5000)
        assert isinstance(reply, OrderResult), reply
        assert reply.outcome == "FILLED"
        snapshot = caller.sync()
        assert isinstance(snapshot, Snapshot)
        assert len({each.identifier for each in snapshot.positions}) == positions

    with gateway_on_windows(windows, gateway, TERMINAL_TIMEOUT_S="5"):
        traded(1)
        (terminal,) = windows_processes(gateway, "mt5crs.broker.terminal")
        os.kill(terminal, signal.SIGKILL)
        eventually(lambda: gone(terminal) and not gateway.health().get("healthy"), 20)
        traded(2)
        (own,) = windows_processes(gateway, "mt5crs.gateway")
        (terminal,) = windows_processes(gateway, "mt5crs.broker.terminal")
        os.kill(own, signal.SIGKILL)
        eventually(lambda: gone(terminal), 20)
    with gateway_on_windows(windows, gateway):
        traded(3)


def ready(gateway: Running) -> None:
    try:
        eventually(lambda: gateway.health().get("healthy"), 60)
    except AssertionError as error:
        raise AssertionError(f"{gateway.health()}\n{gateway.log()[-3000:]}") from error


def windows_processes(gateway: Running, module: str) -> list[int]:
    """The processes of this machine that run a module in the namespace of this gateway."""
    assert gateway.process is not None
    (entered,) = (
        int(each)
        for each in Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
        .read_text()
        .split()
    )
    namespace = Path(f"/proc/{entered}/ns/pid").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = re.split(r"[\0 ]", (process / "cmdline").read_text(errors="replace"))
            here = (process / "ns/pid").readlink() == namespace
            if here and words[0].endswith("python.exe") and module in words and not gone(int(process.name)):
                found.append(int(process.name))
    return found


def test_a_gateway_without_a_terminal_says_what_the_package_said(windows: Windows, gateway: Running) -> None:
    with gateway_on_windows(windows, gateway, **MT5):
        reason = eventually(lambda: why(gateway), 40)
        assert f"initialize failed: IPC initialize failed, Process create failed '{NOWHERE}'" in reason
        assert isinstance(gateway.client("watcher").ask(requests.Ping), Pong)


def why(gateway: Running) -> str:
    """Why it is not ready, once it has tried to start the terminal."""
    assert gateway.process is not None
    assert gateway.process.poll() is None, gateway.log()[-2000:]
    health = json.dumps(gateway.health()).replace(r"\\", "\\")
    return health if "did not start" in health else ""
