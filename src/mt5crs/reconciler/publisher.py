"""Publishes the state on a local socket, for the strategy and for checks on the same host."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path

import msgspec

from mt5crs.client.published import SIGN_OF_LIFE_S, PublishedState
from mt5crs.service.held import HeldSockets

_SEND_TIMEOUT_S = 1.0


class Publisher:
    """A thread that serves the local socket. A reader that does not read within a second is dropped."""

    def __init__(self, path: str, state: PublishedState) -> None:
        """Raises OSError that names the path when the socket cannot be made."""
        self._path = path
        self._lock = threading.Lock()
        self._state = state
        self._announced: PublishedState | None = None
        self._closed = False
        self._readers: list[socket.socket] = []
        self._wake_receive, self._wake_send = socket.socketpair()
        held = HeldSockets()
        try:
            self._listener, self._outlives = held.unix(path, 0o660)
        except OSError as error:
            raise OSError(
                f"cannot publish on {path}: {error.strerror}; "
                "RECONCILER_SOCKET must be in a directory this user owns"
            ) from error
        held.drop_unclaimed()
        self._thread = threading.Thread(target=self._serve, name="publisher", daemon=True)
        self._thread.start()

    @property
    def state(self) -> PublishedState:
        """What is published now."""
        return self._state

    def publish(self, state: PublishedState) -> None:
        """Replace the state and tell every reader at once."""
        with self._lock:
            self._state = state
        with contextlib.suppress(OSError):
            self._wake_send.send(b"x")

    def close(self) -> None:
        """Stop; readers see the end of the connection, who connects later waits for the next reconciler."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._wake_send.send(b"x")
        self._thread.join(2.0)
        if not self._outlives:
            Path(self._path).unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._closed:
            ready, _, _ = select.select([self._listener, self._wake_receive], [], [], SIGN_OF_LIFE_S)
            if self._wake_receive in ready:
                self._wake_receive.recv(4096)
            with self._lock:
                state = self._state
            if self._listener in ready:
                self._welcome(state)
            # A new reader shares the line with the others; saying it once too often does no harm.
            self._tell(self._readers, state, whole=not self._same_body(state))
            self._announced = state
        for reader in [*self._readers, self._listener]:
            reader.close()

    def _same_body(self, state: PublishedState) -> bool:
        said = self._announced
        return said is not None and said.positions is state.positions and said.orders is state.orders

    def _welcome(self, state: PublishedState) -> None:
        try:
            reader, _ = self._listener.accept()
        except BlockingIOError:
            return  # gone again
        reader.settimeout(_SEND_TIMEOUT_S)
        if self._tell([reader], state, whole=True):
            self._readers.append(reader)

    def _tell(self, readers: list[socket.socket], state: PublishedState, *, whole: bool) -> bool:
        if not readers:
            return False
        line = msgspec.json.encode(
            state if whole else msgspec.structs.replace(state, positions=None, orders=None)
        )
        gone = []
        for reader in readers:
            try:
                reader.sendall(line + b"\n")
            except OSError:
                gone.append(reader)
        for reader in gone:
            reader.close()
            if reader in self._readers:
                self._readers.remove(reader)
        return not gone
