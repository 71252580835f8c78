"""Evidence from a gateway that speaks only the legacy JSON: no encryption, no account number, no deals.

Good enough for a read-only shadow run beside an existing fleet; the state is published as `shadow`, on which
no strategy starts.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import zmq
from msgspec import Meta

from mt5crs.client.connection import milliseconds
from mt5crs.client.errors import (
    GatewayError,
    GatewaySilentError,
    GatewayUnreachableError,
    MalformedReplyError,
)
from mt5crs.protocol import addresses, curve
from mt5crs.protocol.plain_json import PlainJsonError, read_object
from mt5crs.protocol.records import Position
from mt5crs.reconciler.model import Evidence, LocalState
from mt5crs.reconciler.source import InconsistentSnapshotError, Reading
from mt5crs.settings.reconciler import ReconcilerSettings

_MAX_REPLY = 16 * 1024 * 1024
_Amount = Annotated[float, Meta(ge=-1e15, le=1e15)]
_NotNegative = Annotated[float, Meta(ge=0, le=1e15)]
_Ticket = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class LegacyAccount(msgspec.Struct, frozen=True):
    """Money of the account; every key must be there (a missing one is an error, not zero) but `login`."""

    balance: _Amount
    equity: _Amount
    margin_free: _Amount
    margin_used: _NotNegative
    margin_level: _Amount
    leverage: _NotNegative
    login: int | None = None


class LegacyPosition(msgspec.Struct, frozen=True):
    """An open position. `time_open` is a number of seconds or text, depending on the gateway; `magic` is told
    by few.
    """

    symbol: str
    ticket: _Ticket
    volume: Annotated[float, Meta(gt=0, le=1e6)]
    profit: _Amount
    price_current: _Amount
    price_open: _Amount
    type: Literal["BUY", "SELL"]
    time_open: Annotated[float, Meta(ge=0, le=1e11)] | str
    magic: int | None = None


class LegacySnapshot(msgspec.Struct, frozen=True):
    """A successful answer to SYNC_ALL. `other_positions`: how many more the account has, if it is told."""

    status: Literal["OK", "HALTED"]
    account: LegacyAccount
    positions: list[LegacyPosition]
    other_positions: Annotated[int, Meta(ge=0)] = 0


class _LegacyStatus(msgspec.Struct, frozen=True):
    status: str
    message: str = ""


def parse_snapshot(frame: bytes) -> LegacySnapshot:
    """Strict reading of a SYNC_ALL answer. Raises MalformedReplyError that names the key at fault."""
    try:
        answer = read_object(frame)
        head = msgspec.convert(answer, _LegacyStatus)
        if head.status not in ("OK", "HALTED"):
            why = head.message or "no reason given"
            raise GatewayError(f"the legacy gateway answered {head.status}: {why}")
        return msgspec.convert(answer, LegacySnapshot)
    except (PlainJsonError, msgspec.ValidationError) as error:
        raise MalformedReplyError(
            f"the answer to SYNC_ALL is not the legacy format ({error}); "
            "check GATEWAY_PORT and GATEWAY_PROTOCOL"
        ) from error


def legacy_evidence(snapshot: LegacySnapshot, magic: int, login: int, time_msc: int) -> Evidence:
    """The snapshot in our terms; the ticket stands in for the lasting identifier.

    Raises InconsistentSnapshotError for one that cannot be believed.
    """
    account, told = snapshot.account, [_position(p, magic, time_msc) for p in snapshot.positions]
    if account.login not in (None, login):
        raise InconsistentSnapshotError(
            f"the legacy gateway shows account {account.login}, not {login}; correct EXPECTED_ACCOUNT_LOGIN"
        )
    if len({position.ticket for position in told}) != len(told):
        raise InconsistentSnapshotError("the legacy gateway lists a ticket twice")
    if account.margin_used > 0 and not told and not snapshot.other_positions:
        raise InconsistentSnapshotError(
            f"the legacy gateway lists no positions, but margin of {account.margin_used:g} is in use; "
            "look at the terminal"
        )
    return Evidence(
        login=login,
        magic=magic,
        time_msc=time_msc,
        positions=tuple(p for p in told if p.magic == magic),
        orders=(),
        deals=(),
        closed_orders=(),
        external=tuple(p for p in told if p.magic != magic),
        unresolved=(),
        deals_known=False,
    )


def _position(p: LegacyPosition, magic: int, time_msc: int) -> Position:
    return Position(
        identifier=p.ticket,
        ticket=p.ticket,
        symbol=p.symbol,
        type=p.type,
        magic=magic if p.magic is None else p.magic,
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


def _doubt(snapshot: LegacySnapshot, magic: int) -> str:
    """What of the evidence is only assumed; empty if nothing is."""
    unsaid = sum(p.magic is None for p in snapshot.positions)
    if not unsaid:
        return ""
    return f"it does not say whose {unsaid} of the positions are; they are shown as those of magic {magic}"


def _has_only_ipv6(host: str) -> bool:
    """Whether a name leads to IPv6 addresses alone; libzmq looks for these only when asked to."""
    try:
        families = {found[0] for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False  # told by the connection that fails
    return families == {socket.AF_INET6}


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
                return Reading(evidence, "legacy", {}, (), _doubt(snapshot, settings.magic_number))
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
        asking: curve.Socket = zmq.Context.instance().socket(zmq.REQ)
        try:
            asking.setsockopt(zmq.LINGER, 0)
            asking.setsockopt(zmq.IMMEDIATE, 1)
            asking.setsockopt(zmq.MAXMSGSIZE, _MAX_REPLY)
            asking.setsockopt(zmq.IPV6, int(_has_only_ipv6(self._settings.gateway_host)))
            asking.connect(self._url)
            deadline = time.monotonic() + timeout_s
            if not asking.poll(milliseconds(timeout_s), zmq.POLLOUT):
                raise GatewayUnreachableError(
                    f"no connection to the legacy gateway {self._url} within {timeout_s:g} s; check that it "
                    "runs, that it speaks without encryption, and the firewall between"
                )
            asking.send(frame, zmq.NOBLOCK)
            if not asking.poll(milliseconds(deadline - time.monotonic()), zmq.POLLIN):
                raise GatewaySilentError(
                    f"no answer from the legacy gateway {self._url} within {timeout_s:g} s"
                )
            frames = asking.recv_multipart(zmq.NOBLOCK)
        finally:
            asking.close(0)
        if len(frames) != 1:
            raise MalformedReplyError(
                f"the legacy gateway answered in {len(frames)} frames; the legacy format has one"
            )
        return frames[0]
