"""A real gateway process with its simulated broker, and clients of it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import zmq

from mt5crs.broker.sim.inbox import ask as ask_broker
from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.protocol import requests
from mt5crs.protocol.addresses import with_port
from mt5crs.protocol.codec import decode_reply, encode
from mt5crs.protocol.curve import Context, new_keypair, secure_client
from mt5crs.protocol.records import Deal, Order, Position
from mt5crs.protocol.replies import AnyReply, Error, Lease, OrderResult, Snapshot
from tests.unit.orders import TERMS

MAGIC, OTHER_MAGIC = 202401, 202402
LIMITS: dict[str, Any] = {
    "dry_run": False,
    "symbols": ["EURUSD", "XAUUSD"],
    "max_order_volume": 5.0,
    "max_position_volume": 20.0,
}
PASSES_S = 60.0
"""What comes sooner or later on a machine that does other things besides; only what fails takes this long."""
_T = TypeVar("_T")


def eventually(condition: Callable[[], _T | None], timeout_s: float = PASSES_S) -> _T:
    """The first true value of a condition; fails loudly when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still {value!r} after {timeout_s} s")
        time.sleep(0.02)


@contextlib.contextmanager
def cut(*sockets: zmq.Socket[bytes]) -> Iterator[None]:
    """Ends when each of these, all connected, has lost its connection since.

    What is asked in the moment before is lost with it: a client asks again, a test's caller does not.
    """
    ended = [socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) for socket in sockets]
    yield
    for each in ended:
        assert each.poll(int(PASSES_S * 1000)), "still connected"
    for socket in sockets:
        socket.disable_monitor()


class Running:
    """Starts, kills and restarts one gateway; knows the keys of its clients."""

    def __init__(self, directory: Path, *, host: str = "127.0.0.1", **environment: str) -> None:
        self.directory = directory
        self.host = host
        self.public, self._secret = new_keypair()
        self.port, self.pub_port, self.metrics_port, self.legacy_port, self.legacy_pub_port = free_ports(5)
        self.context: Context = zmq.Context()
        self.secrets: dict[str, str] = {}
        self.clients: dict[str, Any] = {}
        self.limits: dict[str, Any] = {str(MAGIC): dict(LIMITS), str(OTHER_MAGIC): dict(LIMITS)}
        self.legacy: dict[str, Any] = {}
        self.serial = 0
        """Version of the clients file that is written next."""
        self.allow("strategy", ["trade"], [MAGIC])
        self.allow("other", ["trade"], [OTHER_MAGIC])
        self.allow("watcher", ["observe"], [])
        self.allow("ops", ["observe", "administer"], [])
        self.allow("halter", ["halt"], [MAGIC])
        self.environment = {
            "GATEWAY_BIND": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_PUB_PORT": str(self.pub_port),
            "GATEWAY_SECRET_KEY": self._secret,
            "CLIENTS_FILE": str(directory / "clients.json"),
            "STATE_DIR": str(directory / "state"),
            "METRICS_PORT": str(self.metrics_port),
            "SIM_FAULTS": "true",
            "SIM_BALANCE": "1000000",
            "POLL_INTERVAL_S": "0.05",
            "HEARTBEAT_INTERVAL_S": "0.1",
            # Nothing hangs but what is told to: that one says less.
            "TERMINAL_TIMEOUT_S": "10",
            "RESOLVE_AFTER_S": "0",
            **environment,
        }
        self.program = "mt5crs.gateway"
        """The module to run."""
        self.process: subprocess.Popen[bytes] | None = None

    def allow(self, name: str, permissions: list[str], magics: list[int]) -> None:
        """Add a client (takes effect with `write_clients`)."""
        public, self.secrets[name] = new_keypair()
        self.clients[name] = {"key": public, "permissions": permissions, "magics": magics}

    def write_clients(self) -> None:
        """Replace the clients file atomically."""
        path = self.directory / "clients.json"
        temporary = path.with_suffix(".new")
        document = {"clients": self.clients, "limits": self.limits, "legacy": self.legacy}
        temporary.write_text(json.dumps({"serial": self.serial, **document}))
        temporary.replace(path)

    def start(self) -> Running:
        """Start and wait until healthy."""
        self.write_clients()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.program],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self._started)
        return self

    def _started(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended at once: {self.log()[-2000:]}"
        return self.health().get("state") not in (None, "starting")

    def log(self) -> str:
        """Everything it has logged."""
        return (self.directory / "log").read_text()

    def health(self) -> dict[str, Any]:
        """`/health`; empty when it does not answer."""
        try:
            with urllib.request.urlopen(
                f"http://{with_port(self.host, self.metrics_port)}/health", timeout=2
            ) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except (OSError, ValueError):
            return {}

    def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        with urllib.request.urlopen(
            f"http://{with_port(self.host, self.metrics_port)}/metrics", timeout=2
        ) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        """kill -9 and start again on the same disk."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Stop it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.context.destroy(0)

    def broker(self, **command: Any) -> dict[str, Any]:
        """Do something at the simulated broker."""
        return ask_broker(self.directory / "state" / "sim" / "inbox", command)

    def fault(self, *send: dict[str, Any], **flags: Any) -> None:
        """Replace the faults in force."""
        self.broker(do="faults", faults={"send": list(send), **flags})

    def books(self, table: str) -> list[Any]:
        """The broker's truth, from its own file: positions, orders, deals or closed_orders."""
        kind = {"positions": Position, "orders": Order, "closed_orders": Order, "deals": Deal}[table]
        path = self.directory / "state" / "sim" / "broker.db"
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(f"SELECT data FROM {table}").fetchall()  # noqa: S608
        return [msgspec.json.decode(data, type=kind) for (data,) in rows]

    def client(self, name: str, magic: int = MAGIC, secret: str | None = None) -> Caller:
        """A client on a socket of its own."""
        return Caller(self, name, magic, secret or self.secrets[name])


class Caller:
    """Sends requests and waits for the answer with the same id."""

    def __init__(self, gateway: Running, name: str, magic: int, secret: str) -> None:
        self.name, self.magic = name, magic
        self.socket = gateway.context.socket(zmq.DEALER)
        secure_client(self.socket, gateway.public, secret)
        self.socket.connect(f"tcp://127.0.0.1:{gateway.port}")
        self.epoch = 0

    def send(self, kind: type[requests.Request], **fields: Any) -> str:
        """Send only; returns the id."""
        request_id = uuid.uuid4().hex
        head: dict[str, Any] = {"v": 1, "id": request_id, "client": self.name, "magic": self.magic}
        self._connected()
        self.socket.send(encode(kind(**{**head, **fields})))
        return request_id

    def _connected(self) -> None:
        """Wait for a connection, which sending would wait for without an end."""
        if not self.socket.poll(int(PASSES_S * 1000), zmq.POLLOUT):
            raise TimeoutError(f"no connection within {PASSES_S:g} s")

    def receive(self, request_id: str, timeout_s: float = PASSES_S) -> AnyReply:
        """The answer to a request; others are dropped."""
        deadline = time.monotonic() + timeout_s
        while self.socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            reply = decode_reply(self.socket.recv())
            if reply.id == request_id:
                return reply
        raise TimeoutError(f"no answer to {request_id} within {timeout_s} s")

    def ask(self, kind: type[requests.Request], **fields: Any) -> Any:
        """Send and wait."""
        return self.receive(self.send(kind, **fields))

    def raw(self, frames: list[bytes], timeout_s: float = PASSES_S) -> AnyReply:
        """Send bytes as they are."""
        self._connected()
        self.socket.send_multipart(frames)
        if not self.socket.poll(int(timeout_s * 1000)):
            raise TimeoutError("no answer")
        return decode_reply(self.socket.recv_multipart()[-1])

    def lease(self, instance: str = "run-1", ttl_ms: int = 60_000, timeout_s: float = PASSES_S) -> Lease:
        """Take the lease; its epoch goes into every later order."""
        lease = self.receive(self.send(requests.LeaseAcquire, instance=instance, ttl_ms=ttl_ms), timeout_s)
        assert isinstance(lease, Lease), lease
        self.epoch = lease.epoch
        return lease

    def terms(self, **changes: Any) -> dict[str, Any]:
        """Keys of an ORDER_SEND."""
        return {
            **TERMS,
            "client_order_id": uuid.uuid4().hex,
            "lease_epoch": self.epoch,
            "valid_ms": 60_000,
            **changes,
        }

    def order(self, **changes: Any) -> OrderResult | Error:
        """ORDER_SEND."""
        reply = self.ask(requests.OrderSend, **self.terms(**changes))
        assert isinstance(reply, (OrderResult, Error)), reply
        return reply

    def query(self, client_order_id: str) -> OrderResult | Error:
        """ORDER_QUERY."""
        reply = self.ask(requests.OrderQuery, client_order_id=client_order_id)
        assert isinstance(reply, (OrderResult, Error)), reply
        return reply

    def cancel(self, order: int, **changes: Any) -> OrderResult | Error:
        """ORDER_CANCEL."""
        head = {"client_order_id": uuid.uuid4().hex, "lease_epoch": self.epoch, "valid_ms": 60_000}
        reply = self.ask(requests.OrderCancel, **{**head, "order": order, **changes})
        assert isinstance(reply, (OrderResult, Error)), reply
        return reply

    def close_position(self, position: int, **changes: Any) -> OrderResult | Error:
        """POSITION_CLOSE."""
        head: dict[str, Any] = {
            "client_order_id": uuid.uuid4().hex,
            "lease_epoch": self.epoch,
            "valid_ms": 60_000,
            "volume": None,
            "max_slippage_points": None,
        }
        reply = self.ask(requests.PositionClose, **{**head, "position": position, **changes})
        assert isinstance(reply, (OrderResult, Error)), reply
        return reply

    def sync(self, **changes: Any) -> Snapshot | Error:
        """SYNC_ALL."""
        reply = self.ask(requests.SyncAll, **{"whole_account": False, "history_since_msc": None, **changes})
        assert isinstance(reply, (Snapshot, Error)), reply
        return reply


def with_settings(**environment: str) -> pytest.MarkDecorator:
    """For a test whose fixture `gateway` has these settings."""
    return pytest.mark.parametrize("gateway", [environment], indirect=True, ids=["-".join(environment)])


@contextlib.contextmanager
def running(directory: Path, **environment: str) -> Iterator[Running]:
    """A started gateway, stopped at the end."""
    gateway = Running(directory, **environment)
    try:
        yield gateway.start()
    finally:
        gateway.close()
