"""Evidence from a gateway that speaks only the legacy JSON: no encryption, no account number, no deals.

Good enough for a read-only shadow run beside an existing fleet; the state is published as `shadow`, on which
no strategy starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec
import zmq

from mt5crs.client.connection import milliseconds
from mt5crs.client.errors import (
    GatewayError,
    GatewaySilentError,
    GatewayUnreachableError,
    MalformedReplyError,
)
from mt5crs.protocol import addresses, curve
from mt5crs.protocol.records import Position
from mt5crs.reconciler.model import Evidence, LocalState
from mt5crs.reconciler.source import InconsistentSnapshotError, Reading
from mt5crs.settings.reconciler import ReconcilerSettings

_MAX_REPLY = 16 * 1024 * 1024


class LegacyAccount(msgspec.Struct, frozen=True):
    """Money of the account; every key must be there (a missing one is an error, not zero)."""

    balance: float
    equity: float
    margin_free: float
    margin_used: float
    margin_level: float
    leverage: float


class LegacyPosition(msgspec.Struct, frozen=True):
    """An open position. `time_open` is a number of seconds or text, depending on the gateway."""

    symbol: str
    ticket: int
    volume: float
    profit: float
    price_current: float
    price_open: float
    type: Literal["BUY", "SELL"]
    time_open: float | str


class LegacySnapshot(msgspec.Struct, frozen=True):
    """A successful answer to SYNC_ALL."""

    status: Literal["OK"]
    account: LegacyAccount
    positions: list[LegacyPosition]


class _LegacyStatus(msgspec.Struct, frozen=True):
    status: str
    message: str = ""


def parse_snapshot(frame: bytes) -> LegacySnapshot:
    """Strict reading of a SYNC_ALL answer. Raises MalformedReplyError that names the key at fault."""
    try:
        head = msgspec.json.decode(frame, type=_LegacyStatus)
        if head.status != "OK":
            why = head.message or "no reason given"
            raise GatewayError(f"the legacy gateway answered {head.status}: {why}")
        return msgspec.json.decode(frame, type=LegacySnapshot)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedReplyError(
            f"the answer to SYNC_ALL is not the legacy format ({error}); "
            "check GATEWAY_PORT and GATEWAY_PROTOCOL"
        ) from error


def legacy_evidence(snapshot: LegacySnapshot, magic: int, login: int, time_msc: int) -> Evidence:
    """The snapshot in our terms; the ticket stands in for the lasting identifier."""
    tickets = [position.ticket for position in snapshot.positions]
    if len(set(tickets)) != len(tickets) or any(ticket < 1 for ticket in tickets):
        raise InconsistentSnapshotError("the legacy gateway lists a ticket twice or below 1")
    if any(not 0 < position.volume < 1e6 for position in snapshot.positions):
        raise InconsistentSnapshotError("the legacy gateway lists a position without a sensible volume")
    positions = tuple(
        Position(
            identifier=p.ticket,
            ticket=p.ticket,
            symbol=p.symbol,
            type=p.type,
            magic=magic,
            volume=p.volume,
            price_open=p.price_open,
            price_current=p.price_current,
            sl=0.0,
            tp=0.0,
            profit=p.profit,
            swap=0.0,
            time_msc=int(p.time_open * 1000) if isinstance(p.time_open, (int, float)) else 0,
            time_update_msc=time_msc,
            reason=0,
            comment="",
        )
        for p in snapshot.positions
    )
    return Evidence(
        login=login,
        magic=magic,
        time_msc=time_msc,
        positions=positions,
        orders=(),
        deals=(),
        closed_orders=(),
        external=(),
        unresolved=(),
        deals_known=False,
    )


class LegacySource:
    """Asks with a plain REQ socket, fresh for every attempt (a REQ without its reply stays stuck)."""

    def __init__(self, settings: ReconcilerSettings, on_failure: Callable[[int, GatewayError], None]) -> None:
        self._settings = settings
        self._on_failure = on_failure
        self._url = addresses.end_point(settings.gateway_host, settings.gateway_port)

    def read(self, local: LocalState | None, attempts: int | None = None) -> Reading:  # noqa: ARG002
        """SYNC_ALL with retries. Raises GatewayError."""
        settings = self._settings
        limit = attempts or settings.sync_retry_count
        for attempt in range(1, limit + 1):
            now_msc = int(time.time() * 1000)
            request = {
                "action": "SYNC_ALL",
                "magic_number": settings.magic_number,
                "timestamp": now_msc / 1000,
            }
            try:
                snapshot = parse_snapshot(self._exchange(msgspec.json.encode(request)))
                evidence = legacy_evidence(
                    snapshot, settings.magic_number, settings.expected_account_login, now_msc
                )
                return Reading(evidence, "legacy", {}, ())
            except GatewayError as error:
                self._on_failure(attempt, error)
                if attempt == limit:
                    raise
                time.sleep(settings.sync_retry_interval_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def ping(self) -> None:
        """Text PING; the answer begins with PONG."""
        if not self._exchange(b"PING").startswith(b"PONG"):
            raise MalformedReplyError("the answer to PING does not begin with PONG")

    def close(self) -> None:
        """Nothing is kept open between requests."""

    def _exchange(self, frame: bytes) -> bytes:
        timeout_s = self._settings.sync_timeout_s
        socket: curve.Socket = zmq.Context.instance().socket(zmq.REQ)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.setsockopt(zmq.MAXMSGSIZE, _MAX_REPLY)
            addresses.prepare(socket, self._settings.gateway_host)
            socket.connect(self._url)
            deadline = time.monotonic() + timeout_s
            if not socket.poll(milliseconds(timeout_s), zmq.POLLOUT):
                raise GatewayUnreachableError(
                    f"no connection to the legacy gateway {self._url} within {timeout_s:g} s; check that it "
                    "runs, that it speaks without encryption, and the firewall between"
                )
            socket.send(frame, zmq.NOBLOCK)
            if not socket.poll(milliseconds(deadline - time.monotonic()), zmq.POLLIN):
                raise GatewaySilentError(
                    f"no answer from the legacy gateway {self._url} within {timeout_s:g} s"
                )
            return socket.recv(zmq.NOBLOCK)
        finally:
            socket.close(0)
