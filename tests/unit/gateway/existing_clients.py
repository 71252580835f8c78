"""Clients of other projects, each written from the description of its dialect in docs/existing-clients.md.

They know nothing of our protocol, and read answers as such programs do: `error` first, then what they came
for.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq

from mt5crs.protocol.curve import common_options
from tests.unit.gateway.running import LIMITS, Caller, Running

FIRST_MAGIC, MOST = 5000, 60


class StateUnknownError(Exception):
    """The answer says that it is not known what is open."""


class Door(Running):
    """A gateway with the legacy adapter on. Each existing client has a source address and a magic number
    of its own, so that many tests share one process.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.environment["LEGACY_PORT"] = str(self.legacy_port)
        self.environment["LEGACY_PUB_PORT"] = str(self.legacy_pub_port)
        self._numbers = itertools.count()
        for number in range(MOST):
            magic = FIRST_MAGIC + number
            self.limits[str(magic)] = dict(LIMITS)
            self.legacy[f"old-{number}"] = {
                "address": self._address(number),
                "permissions": ["observe", "trade"],
                "magics": [magic],
            }
            self.allow(f"new-{number}", ["trade"], [magic])

    @staticmethod
    def _address(number: int) -> str:
        return "127.0.0.1" if sys.platform == "win32" else f"127.0.2.{number + 1}"

    def newcomer(self) -> Plain:
        """A client that nobody has used yet."""
        number = next(self._numbers)
        return Plain(self, f"old-{number}", self._address(number), FIRST_MAGIC + number)


class Plain:
    """What all plain clients have: JSON over a REQ socket."""

    def __init__(self, gateway: Door, name: str, address: str, magic: int) -> None:
        self.gateway, self.name, self.address, self.magic = gateway, name, address, magic

    def socket(self, kind: int, port: int) -> zmq.Socket[bytes]:
        """A plain socket from this client's address."""
        socket = self.gateway.context.socket(kind)
        common_options(socket)
        socket.connect(f"tcp://{self.address}:0;127.0.0.1:{port}")
        return socket

    def ask(self, message: Any, timeout_ms: int = 5000) -> Any:
        """One question on a fresh socket; None without an answer."""
        frames = message if isinstance(message, list) else [message]
        socket = self.socket(zmq.REQ, self.gateway.legacy_port)
        try:
            socket.send_multipart(
                [frame if isinstance(frame, bytes) else json.dumps(frame).encode() for frame in frames]
            )
            if not socket.poll(timeout_ms):
                return None
            answer = socket.recv()
            return answer if answer.startswith(b"PONG") else json.loads(answer)
        finally:
            socket.close(0)

    def successor(self) -> Caller:
        """The new program for the same magic number."""
        return self.gateway.client(self.name.replace("old", "new"), magic=self.magic)

    def positions_at_the_broker(self) -> list[Any]:
        """What the broker's own file holds of this client."""
        return [p for p in self.gateway.books("positions") if p.magic == self.magic]

    def trade_by_hand(self, symbol: str, side: str, volume: float) -> None:
        """A position of this client's magic number, made by somebody else."""
        self.gateway.broker(do="trade", symbol=symbol, side=side, volume=volume, magic=self.magic)


def open_message(age_s: float = 0.0, **changes: Any) -> dict[str, Any]:
    """OPEN, as such a client sends it: magic 0 is its default, prices it does not want are null or 0."""
    made = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age_s)
    return {
        "uuid": str(uuid.uuid4()),
        "action": "OPEN",
        "symbol": "EURUSD",
        "type": "BUY",
        "volume": 0.1,
        "price": 0.0,
        "sl": None,
        "tp": None,
        "magic": 0,
        "comment": "old",
        "risk_signature": f"RISK_PASS:abc123:{made.isoformat()}",
        "timestamp": made.isoformat(),
        **changes,
    }


class SyncClient:
    """`{"action": "SYNC_ALL", …}`: asks at its start, and starts trading on `OK` only."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain

    def start(self) -> list[tuple[str, float]]:
        """Type and volume of what it takes over. Raises StateUnknownError."""
        request = {"action": "SYNC_ALL", "magic_number": self.plain.magic, "timestamp": 1_700_000_000}
        answer = self.plain.ask(request)
        if answer["status"] != "OK":
            raise StateUnknownError(answer["message"])
        assert {"balance", "equity", "margin_free", "margin_used", "margin_level", "leverage"} <= set(
            answer["account"]
        )
        return sorted((p["type"], p["volume"]) for p in answer["positions"])


class UuidClient:
    """`{"uuid", "action", …}`: positions as a list; FILLED is a trade, all else is none."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain

    def positions(self, symbol: str | None = None) -> list[tuple[str, float]]:
        """Type and volume. Raises StateUnknownError."""
        request = {"uuid": str(uuid.uuid4()), "action": "get_positions"}
        answer = self.plain.ask(request | ({"symbol": symbol} if symbol else {}))
        assert answer["uuid"] == request["uuid"]
        if answer.get("error"):
            assert "positions" not in answer, "an empty list beside an error reads as flat"
            raise StateUnknownError(answer["message"])
        return sorted((p["type"], p["volume"]) for p in answer["positions"])

    def money(self) -> float:
        """Its balance. Raises StateUnknownError."""
        answer = self.plain.ask({"action": "GET_ACCOUNT"})
        if answer.get("error"):
            raise StateUnknownError(answer["message"])
        assert answer["status"] == "ok"
        return float(answer["balance"])

    def open(self, **changes: Any) -> tuple[str, float]:
        """Outcome and what was filled."""
        message = open_message(**changes)
        answer = self.plain.ask(message)
        assert answer["uuid"] == message["uuid"]
        assert (answer["status"] == "FILLED") == ("error" not in answer)
        return answer["status"], answer.get("volume", 0.0)


class CommandClient:
    """`{"command", …}`: the one position of a symbol as a mapping, `{}` for none; `code` 200 is good."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain

    def position(self, symbol: str = "EURUSD") -> tuple[str, float] | None:
        """Type and volume, None for none. Raises StateUnknownError."""
        answer = self.plain.ask({"command": "GET_POSITION", "symbol": symbol})
        assert (answer["code"] == 200) == ("error" not in answer)
        if answer.get("error"):
            assert "position" not in answer
            raise StateUnknownError(answer["message"])
        held = answer["position"]
        return (held["type"], held["volume"]) if held else None

    def money(self) -> float:
        """Its balance. Raises StateUnknownError."""
        answer = self.plain.ask({"command": "get_balance"})
        if answer.get("error"):
            raise StateUnknownError(answer["message"])
        return float(answer["balance"])

    def order(self, **changes: Any) -> Any:
        """ORDER; the answer."""
        order = {"symbol": "EURUSD", "side": "buy", "type": "market", "volume": 0.1}
        stamp = {"timestamp": datetime.datetime.now().isoformat(), "risk_score": 0.2}  # noqa: DTZ005
        return self.plain.ask({"command": "ORDER", "order": order | stamp | changes})


def heard(plain: Plain, topics: Sequence[bytes]) -> list[bytes]:
    """The frames of the first quote that a subscriber to these topics gets."""
    socket = plain.socket(zmq.SUB, plain.gateway.legacy_pub_port)
    try:
        for topic in topics:
            socket.subscribe(topic)
        assert socket.poll(10_000), "no quote"
        return socket.recv_multipart()
    finally:
        socket.close(0)


needs_addresses = pytest.mark.skipif(
    sys.platform == "win32", reason="loopback has one address to send from on Windows"
)
