"""What a peer that means harm does to the gateway, and what a trader beside it sees; runs on a lab's host.

`python - NAME SECONDS` with the release's own interpreter; the program takes the keys that are on its host.
Prints one JSON object. What ends an attack (the gateway cut it off, the firewall refuses) begins it anew.
It attacks every other TURN_S seconds, and in between computes for nothing: what orders take in both differs
by the attack alone, and not by what the machine does besides.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from mt5crs.protocol import curve, requests
from mt5crs.protocol.codec import decode_reply, encode
from mt5crs.protocol.fields import MAX_REQUEST_BYTES
from mt5crs.protocol.replies import Error, OrderResult

ENV = "/opt/mt5crs/{}/current/.env"
GIVEN: dict[str, dict[str, str]] = {}
"""Keys of others, given on standard input."""
_ANSWER_MS = 5000
_SETTLES_S = 0.7
"""Of each turn: what was sent in the one before it is answered by then."""
TURN_S = 3.0


def attacking(at: float) -> bool:
    """Whether it is the attackers' turn (Unix time: all hosts of a lab have one clock)."""
    return bool(int(at // TURN_S) % 2)


def environment(service: str) -> dict[str, str]:
    """Connection and key of a service of this host."""
    from pathlib import Path

    from mt5crs.settings import envfile

    return envfile.read(Path(ENV.format(service)))


class Caller:
    """One client of the gateway, with a key that may be somebody else's."""

    def __init__(self, env: dict[str, str], kind: int = zmq.DEALER, *, queues: bool = False) -> None:
        """`queues`: before it is connected; or libzmq aborts this process in the middle of a message."""
        self.env = env
        self.socket = zmq.Context.instance().socket(kind)
        curve.secure_client(self.socket, env["GATEWAY_PUBLIC_KEY"], env["CLIENT_SECRET_KEY"])
        # An attacker who is cut off must live on: libzmq aborts over a heartbeat that is due then (curve.py).
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
        self.socket.setsockopt(zmq.SNDHWM, 50)
        if queues:
            self.socket.setsockopt(zmq.IMMEDIATE, 0)
        port = env["GATEWAY_PUB_PORT"] if kind == zmq.SUB else env["GATEWAY_PORT"]
        self.socket.connect(f"tcp://{env['GATEWAY_HOST']}:{port}")

    def message(self, kind: type[requests.Request], **fields: Any) -> bytes:
        head: dict[str, Any] = {
            "v": 1,
            "id": uuid.uuid4().hex,
            "client": self.env["CLIENT_NAME"],
            "magic": int(self.env["MAGIC_NUMBER"]),
        }
        return encode(kind(**{**head, **fields}))

    def ask(self, kind: type[requests.Request], **fields: Any) -> Any:
        frame = self.message(kind, **fields)
        if not self.socket.poll(_ANSWER_MS, zmq.POLLOUT):
            raise TimeoutError("not connected")
        self.socket.send(frame)
        if not self.socket.poll(_ANSWER_MS):
            raise TimeoutError("no answer")
        return decode_reply(self.socket.recv())


def trade(seconds: float) -> dict[str, Any]:
    """Place orders far from the market and cancel them, which costs nothing, under the lease of this host's
    strategy, which goes on beside; how long answers took.
    """
    caller = Caller(environment("strategy"))
    magic = int(caller.env["MAGIC_NUMBER"])
    held = {lease.magic: lease.epoch for lease in caller.ask(requests.Status).leases}
    times: list[tuple[float, float]] = []
    refused: list[str] = []
    end = time.monotonic() + seconds

    def submit(kind: type[requests.Request], **terms: Any) -> Any:
        at, began = time.time(), time.perf_counter()
        head = {"client_order_id": uuid.uuid4().hex, "lease_epoch": held[magic], "valid_ms": 5000}
        answer = caller.ask(kind, **head, **terms)
        times.append((at, (time.perf_counter() - began) * 1000))
        if isinstance(answer, Error):
            refused.append(f"{answer.code} {answer.field}")
        return answer

    order = {
        "symbol": "EURUSD",
        "side": "BUY",
        "type": "LIMIT",
        "volume": 0.01,
        "price": 0.5,
        "sl": None,
        "tp": None,
        "max_slippage_points": None,
        "filling": "RETURN",
        "expiration_msc": None,
    }
    while time.monotonic() < end:
        placed = submit(requests.OrderSend, **order)
        if isinstance(placed, OrderResult) and placed.order:
            submit(requests.OrderCancel, order=placed.order)
        time.sleep(0.02)
    return {
        **_figures([took for _, took in times]),
        "refused": sorted(set(refused)),
        "attacked": _figures([took for at, took in times if attacking(at) and at % TURN_S > _SETTLES_S]),
        "quiet": _figures([took for at, took in times if not attacking(at) and at % TURN_S > _SETTLES_S]),
    }


def _figures(times: list[float]) -> dict[str, Any]:
    times.sort()
    last = len(times) - 1
    return {
        "orders": len(times),
        "p50_ms": round(times[last // 2], 2) if times else None,
        "p99_ms": round(times[round(last * 0.99)], 2) if times else None,
    }


# ---- attacks: each is called again and again until its time is over ----


def idle_connections() -> Iterator[None]:
    """No key: as many connections as there are, which say nothing, and new ones for those that were ended."""
    env = environment("reconciler")
    time.sleep(6)  # the others have none once these have them
    made: list[socket.socket] = []
    for number in itertools.count():
        each = socket.socket()
        each.setblocking(False)
        each.connect_ex((env["GATEWAY_HOST"], int(env["GATEWAY_PORT" if number % 2 else "GATEWAY_PUB_PORT"])))
        made.append(each)
        if len(made) > 1500:
            made.pop(0).close()
        if number % 20 == 19:
            time.sleep(0.1)
            yield


def unlisted_key() -> Iterator[None]:
    """A key that nobody knows, again and again."""
    env = {**environment("reconciler"), "CLIENT_SECRET_KEY": curve.new_keypair()[1]}
    while True:
        callers = [Caller(env) for _ in range(20)]
        time.sleep(0.2)
        for caller in callers:
            caller.socket.close(0)
        yield


def stolen_key() -> Iterator[None]:
    """A listed key: of another host's strategy, of an operator."""
    for env in itertools.cycle(GIVEN.values()):
        caller = Caller(env)
        if caller.socket.poll(500, zmq.POLLOUT):
            raise AssertionError("it got in")
        caller.socket.close(0)
        yield


def endless_message() -> Iterator[None]:
    """Key of a trader: a message of a thousand large frames."""
    body = bytes(MAX_REQUEST_BYTES - 100)
    while True:
        caller = Caller(environment("strategy"), queues=True)
        ended = caller.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        for _ in range(1000):
            caller.socket.send(zmq.Frame(body), zmq.SNDMORE, copy=False)
        caller.socket.send(b"")
        ended.poll(_ANSWER_MS)  # the gateway looks every two seconds
        caller.socket.close(0)
        yield


def small_frames() -> Iterator[None]:
    """Key of an observer: messages of thousands of empty frames, each complete."""
    caller = Caller(environment("reconciler"))
    while True:
        if caller.socket.poll(500, zmq.POLLOUT):
            with contextlib.suppress(zmq.Again):
                caller.socket.send_multipart([b"x"] * 5000, zmq.NOBLOCK)
        yield


def subscriptions() -> Iterator[None]:
    """Key of an observer: a thousand subscriptions, and long ones."""
    while True:
        caller = Caller(environment("reconciler"), zmq.SUB)
        for number in range(1000):
            caller.socket.subscribe(f"tick.{number}.".encode() + b"x" * 400 * (number % 2))
        time.sleep(0.5)
        caller.socket.close(0)
        yield


def others_events() -> Iterator[None]:
    """Key of a trader: everybody's events."""
    while True:
        caller = Caller(environment("strategy"), zmq.SUB)
        caller.socket.subscribe(b"")
        time.sleep(0.5)
        caller.socket.close(0)
        yield


def flood(env: dict[str, str], frame: Callable[[Caller], bytes]) -> Iterator[None]:
    """The same request as fast as it goes, on four connections; answers are read."""
    callers = [Caller(env) for _ in range(4)]
    ask = frame(callers[0])
    while True:
        for caller in callers:
            for _ in range(20):
                with contextlib.suppress(zmq.Again):
                    caller.socket.send(ask, zmq.NOBLOCK)
            while caller.socket.poll(0):
                caller.socket.recv()
        time.sleep(0.001)
        yield


def _everything(caller: Caller) -> bytes:
    return caller.message(requests.SyncAll, whole_account=True, history_since_msc=0)


def _status(caller: Caller) -> bytes:
    return caller.message(requests.Status)


ATTACKS: dict[str, Callable[[], Iterator[None]]] = {
    "idle_connections": idle_connections,
    "unlisted_key": unlisted_key,
    "stolen_key": stolen_key,
    "endless_message": endless_message,
    "small_frames": small_frames,
    "subscriptions": subscriptions,
    "others_events": others_events,
    "observer_flood": lambda: flood(environment("reconciler"), _everything),
    "trader_flood": lambda: flood(environment("strategy"), _status),
    "operator_flood": lambda: flood(GIVEN["operator"], _everything),
}


def attack(names: list[str], seconds: float) -> dict[str, Any]:
    """All of these at once, each in a thread, until the time is over."""
    os.nice(19)  # a host of its own, as far as this machine's processors are concerned
    GIVEN.update(json.loads(sys.stdin.read()))
    end = time.monotonic() + seconds
    failed: list[str] = []

    def one(name: str) -> None:
        try:
            for _ in ATTACKS[name]():
                while not attacking(time.time()) and time.monotonic() < end:
                    sum(range(10_000))
                if time.monotonic() > end:
                    return
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.1, end + 5 - time.monotonic()))
    return {"failed": failed, "hung": [each.name for each in threads if each.is_alive()]}


if __name__ == "__main__":
    what, for_seconds = sys.argv[1], float(sys.argv[2])
    done = trade(for_seconds) if what == "trade" else attack(what.split(","), for_seconds)
    print(json.dumps(done), flush=True)
    os._exit(0)  # sockets with unsent messages are not waited for
