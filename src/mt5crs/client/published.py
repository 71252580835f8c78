"""The reconciler's published state: its format, and how other programs of the host read it.

One JSON object per line over the local socket: the whole state on connecting and at every change, a line
without positions and orders (null: unchanged) at least once a second as a sign of life.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Literal

import msgspec

from mt5crs.protocol.records import Order, Position

State = Literal["starting", "syncing", "ready", "unknown", "halted", "shadow"]
SIGN_OF_LIFE_S = 1.0
_MAX_LINE = 64 * 1024 * 1024


class PublishedState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the reconciler knows. Only `ready` permits trading; `shadow` is a legacy gateway, read-only."""

    format: Literal[1] = 1
    state: State
    reason: str
    """Why the state is not ready, with the remedy; empty when it is."""
    login: int
    magic: int
    digest: str
    """state_digest of positions and orders; empty before the first sync."""
    stream: str
    seq: int
    """Last event of the magic's trade topic that the state contains."""
    broker_time_msc: int
    synced_at: float
    """Unix time of the last successful comparison; 0 when there was none."""
    external_positions: int
    unresolved: tuple[str, ...]
    positions: tuple[Position, ...] | None
    orders: tuple[Order, ...] | None


_decoder = msgspec.json.Decoder(PublishedState)


def unit_of(path: str) -> str:
    """The unit of the reconciler that publishes its state there, named as its runtime directory."""
    name = Path(path).parent.name
    return f"{name if name.startswith('mt5crs-reconciler') else 'mt5crs-reconciler'}.service"


class StateUnavailableError(Exception):
    """The reconciler cannot be read; the state must be taken as unknown."""


class StateReader:
    """Keeps the latest published state. Not thread-safe; `fileno` is for polling."""

    def __init__(self, path: str, connect_timeout_s: float = 1.0) -> None:
        """Raises StateUnavailableError when nobody listens."""
        self._path = path
        self._buffer = b""
        self._latest: PublishedState | None = None
        self._heard = time.monotonic()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(connect_timeout_s)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise StateUnavailableError(
                f"no reconciler at {path} ({error.strerror}); start {unit_of(path)}"
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    @property
    def silent_for_s(self) -> float:
        """Seconds since the reconciler last said anything."""
        return time.monotonic() - self._heard

    def read(self, timeout_s: float) -> PublishedState | None:
        """The latest state, waiting at most `timeout_s` for news; None when nothing was ever heard.

        Raises StateUnavailableError when the reconciler closed the connection or sent nonsense.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = self._socket.recv(1 << 20)
            except TimeoutError:
                return self._latest
            except OSError as error:
                raise StateUnavailableError(f"reading {self._path} failed: {error.strerror}") from error
            if not chunk:
                raise StateUnavailableError(f"the reconciler closed {self._path}; see its journal")
            self._buffer += chunk
            *lines, self._buffer = self._buffer.split(b"\n")
            if len(self._buffer) > _MAX_LINE:
                raise StateUnavailableError(
                    f"the line from {self._path} is endless; another program listens there"
                )
            for line in lines:
                self._take(line)
            if lines:
                return self._latest

    def _take(self, line: bytes) -> None:
        try:
            state = _decoder.decode(line)
        except msgspec.DecodeError as error:
            raise StateUnavailableError(f"{self._path} sent no reconciler state: {error}") from error
        if state.positions is None and self._latest is not None:
            state = msgspec.structs.replace(
                state, positions=self._latest.positions, orders=self._latest.orders
            )
        self._latest = state
        self._heard = time.monotonic()


def read_state(path: str, timeout_s: float = 2.0) -> PublishedState:
    """The current state, read once. Raises StateUnavailableError."""
    reader = StateReader(path, timeout_s)
    try:
        state = reader.read(timeout_s)
    finally:
        reader.close()
    if state is None:
        raise StateUnavailableError(
            f"the reconciler at {path} said nothing within {timeout_s:g} s; restart it"
        )
    return state
