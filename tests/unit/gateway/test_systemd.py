"""What systemd sees of the gateway: READY, watchdog, and sockets that it holds open across a restart."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mt5crs.protocol import requests
from mt5crs.protocol.replies import OrderResult, Pong
from tests.unit.gateway.running import MAGIC, PASSES_S, Caller, Running, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no systemd on Windows")


SOON_S = 2.0
"""Without an answer for so long it is asked again: whom it was sent to may have been killed."""


class Systemd:
    """A notification socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """Every message so far."""
        try:
            while True:
                self._heard.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return self._heard

    def count(self, message: str) -> int:
        """How often a line was sent."""
        return sum(message in each.splitlines() for each in self.heard())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


def test_ready_comes_once_and_only_when_requests_are_answered(tmp_path: Path, systemd: Systemd) -> None:
    gateway = Running(tmp_path, NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC="400000")
    try:
        gateway.start()
        eventually(lambda: systemd.count("WATCHDOG=1") >= 3)
        assert systemd.count("READY=1") == 1
        assert systemd.heard()[0].startswith("READY=1")
        assert gateway.process is not None
        gateway.process.terminate()
        assert gateway.process.wait(10) == 0
        assert systemd.count("STOPPING=1") == 1
    finally:
        gateway.close()


def test_a_hanging_terminal_does_not_stop_the_watchdog(tmp_path: Path, systemd: Systemd) -> None:
    """A restart would not cure the terminal, and the gateway still answers PING, STATUS and HALT."""
    gateway = Running(tmp_path, NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC="400000", TERMINAL_TIMEOUT_S="0.6")
    try:
        gateway.start()
        gateway.fault(hang_ms=4000)
        eventually(lambda: gateway.client("watcher").ask(requests.Status).state == "terminal_hung")
        before = systemd.count("WATCHDOG=1")
        eventually(lambda: systemd.count("WATCHDOG=1") >= before + 3)
    finally:
        gateway.close()


def test_a_gateway_that_cannot_listen_never_says_ready(tmp_path: Path, systemd: Systemd) -> None:
    """It ends with a status and a remedy instead."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    gateway = Running(
        tmp_path,
        NOTIFY_SOCKET=systemd.path,
        WATCHDOG_USEC="400000",
        GATEWAY_PORT=str(taken.getsockname()[1]),
    )
    try:
        gateway.write_clients()
        done = subprocess.run(
            [sys.executable, "-m", "mt5crs.gateway"],
            env={**os.environ, **gateway.environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert "use free ports" in done.stderr
        assert systemd.count("READY=1") == systemd.count("WATCHDOG=1") == 0
    finally:
        taken.close()
        gateway.close()


class Activated(Running):
    """A gateway whose listening sockets belong to somebody who outlives it, as with a systemd socket unit."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._held = []
        for port in (self.port, self.pub_port):
            each = socket.socket()
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", port))
            each.listen(128)
            self._held.append(each)

    def start(self) -> Running:
        """Start with the descriptors 3 and 4, LISTEN_FDS and LISTEN_PID as systemd passes them."""
        self.write_clients()
        first, second = (os.dup(each.fileno()) for each in self._held)
        pass_on = (
            "import os, sys\n"
            f"a, b = os.dup2({first}, 100), os.dup2({second}, 101)\n"
            "os.dup2(a, 3), os.dup2(b, 4)\n"
            "os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'mt5crs.gateway'])\n"
        )
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", pass_on],
                env={**os.environ, **self.environment},
                pass_fds=(first, second),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(first)
        os.close(second)
        eventually(lambda: self.health().get("state") not in (None, "starting"))
        return self

    def close(self) -> None:
        """Stop it and let go of the ports."""
        super().close()
        for each in self._held:
            each.close()


@pytest.fixture
def activated(tmp_path: Path) -> Iterator[Activated]:
    gateway = Activated(tmp_path)
    gateway.start()
    yield gateway
    gateway.close()


def test_the_port_stays_open_while_the_gateway_is_away(activated: Activated) -> None:
    """A client that connects and asks while nobody serves is answered when the next gateway comes."""
    activated.kill()
    caller = activated.client("strategy")
    answers: list[object] = []

    def ask() -> None:
        answers.append(caller.ask(requests.Ping))  # the handshake waits in the kernel's queue

    waiting = threading.Thread(target=ask, daemon=True)
    waiting.start()
    try:
        activated.start()
    finally:
        waiting.join(2 * PASSES_S)  # a socket that is closed while a thread waits at it ends this process
    assert [type(each) for each in answers] == [Pong]


def test_asking_across_restarts_loses_nothing_and_doubles_nothing(activated: Activated) -> None:
    """Orders go on, each retried under its id, while the gateway is ended and started three times.

    A kill between the gateway's record and the broker's leaves that order UNRESOLVED, on purpose, until a
    person says what it was.
    """
    state: dict[str, object] = {"stop": False}
    done: list[str] = []

    def trade() -> None:
        number = 0
        while not state["stop"]:
            number += 1
            done.append(submit(activated, f"order-{number}"))

    trader = threading.Thread(target=trade, daemon=True)
    trader.start()
    try:
        for signal_number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            three_more(done)
            assert activated.process is not None
            activated.process.send_signal(signal_number)
            activated.process.wait(10)
            activated.start()
        three_more(done)
    finally:
        state["stop"] = True
        trader.join(2 * PASSES_S)
    assert not trader.is_alive()
    assert set(done) <= {"FILLED", "REJECTED"}
    assert done.count("REJECTED") <= 1
    assert len(activated.books("positions")) == done.count("FILLED")


def three_more(done: list[str]) -> None:
    """Wait for three more orders."""
    reached = len(done) + 3
    eventually(lambda: len(done) >= reached)


def submit(gateway: Running, client_order_id: str) -> str:
    """Send one order until it is answered, on a fresh socket and under the current lease each time."""

    def once() -> str | None:
        caller = gateway.client("strategy")
        try:
            caller.lease("run", timeout_s=SOON_S)
            reply = answer_within(caller, client_order_id)
        except (TimeoutError, AssertionError):
            return None
        finally:
            caller.socket.close(0)
        if not isinstance(reply, OrderResult):
            return None
        return declare(gateway, client_order_id) if reply.outcome == "UNRESOLVED" else reply.outcome

    return eventually(once)


def declare(gateway: Running, client_order_id: str) -> str | None:
    """Say that it was not executed; the gateway refuses that if the books show it."""
    ops = gateway.client("ops")
    try:
        asked = ops.send(
            requests.OrderResolve, magic=MAGIC, client_order_id=client_order_id, reason="not in the books"
        )
        reply = ops.receive(asked, SOON_S)
    except (TimeoutError, AssertionError):
        return None
    finally:
        ops.socket.close(0)
    return reply.outcome if isinstance(reply, OrderResult) and reply.outcome != "UNRESOLVED" else None


def answer_within(caller: Caller, client_order_id: str) -> object:
    """The answer, or TimeoutError soon."""
    terms = caller.terms(client_order_id=client_order_id, volume=0.01)
    return caller.receive(caller.send(requests.OrderSend, **terms), SOON_S)
