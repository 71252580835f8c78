"""Requests with time-outs and retries: every retry on a fresh socket under a fresh request id."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from mt5crs.client.connection import Connection, Peer
from mt5crs.client.errors import (
    ConnectionLostError,
    GatewayError,
    GatewayUnreachableError,
    KeyRefusedError,
    MalformedReplyError,
    RefusedError,
)
from mt5crs.protocol import curve, replies, requests
from mt5crs.protocol.fields import VERSION

R = TypeVar("R", bound=replies.Reply)


class Patience(msgspec.Struct, frozen=True):
    """How long and how often to try (SYNC_TIMEOUT_S, SYNC_RETRY_COUNT, SYNC_RETRY_INTERVAL_S)."""

    timeout_s: float = 3.0
    attempts: int = 3
    pause_s: float = 1.0


class GatewayClient:
    """A client of one gateway. One thread at a time."""

    def __init__(
        self,
        peer: Peer,
        patience: Patience | None = None,
        *,
        context: curve.Context | None = None,
        on_failure: Callable[[int, GatewayError], None] | None = None,
    ) -> None:
        """`on_failure(attempt, error)` hears of every failed attempt, for counters and logs."""
        self.peer = peer
        self.patience = patience or Patience()
        self._context = context
        self._on_failure = on_failure
        self._connection: Connection | None = None
        self._run = os.urandom(6).hex()
        self._requests = 0
        self.last_attempts = 0
        """How many attempts the last call took."""

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def once(
        self, request: type[requests.Request], reply: type[R], *, timeout_s: float, magic: int, **fields: Any
    ) -> R:
        """One attempt. Raises a GatewayError; after a failure other than a refusal the socket is replaced."""
        self._requests += 1
        message = request(
            v=VERSION, id=f"{self._run}-{self._requests}", client=self.peer.client_name, magic=magic, **fields
        )
        if self._connection is not None and self._connection.lost():
            self.close()
        if self._connection is None:
            self._connection = Connection(self.peer, self._context)
        try:
            answer = self._connection.ask(message, timeout_s)
        except BaseException:
            self.close()
            raise
        if isinstance(answer, reply):
            return answer
        if isinstance(answer, replies.Error):
            raise RefusedError(answer)
        self.close()
        raise MalformedReplyError(f"asked {request.__name__}, got {type(answer).__name__}")

    def call(
        self,
        request: type[requests.Request],
        reply: type[R],
        *,
        magic: int,
        patience: Patience | None = None,
        **fields: Any,
    ) -> R:
        """Up to `attempts` tries of a request that is safe to repeat.

        Refusals that will not change (no retry_ms) and a refused key end it at once. Raises the last error.
        """
        patience = patience or self.patience
        for attempt in range(1, patience.attempts + 1):
            self.last_attempts = attempt
            pause = patience.pause_s
            try:
                return self.once(request, reply, timeout_s=patience.timeout_s, magic=magic, **fields)
            except GatewayError as error:
                if self._on_failure is not None:
                    self._on_failure(attempt, error)
                hopeless = isinstance(error, KeyRefusedError) or (
                    isinstance(error, RefusedError) and not error.retryable
                )
                if hopeless or attempt == patience.attempts:
                    raise
                if isinstance(error, ConnectionLostError):
                    pause = 0.0
                if isinstance(error, RefusedError):
                    pause = min(pause, (error.reply.retry_ms or 0) / 1000)
                if isinstance(error, GatewayUnreachableError):
                    self._wait_for_it(pause)
                    continue
            time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _wait_for_it(self, pause_s: float) -> None:
        """Pause, but no longer than until a gateway that was not there lets us in."""
        if self._connection is None:
            self._connection = Connection(self.peer, self._context)
        until = time.monotonic() + pause_s
        try:
            self._connection.connect(pause_s)
        except GatewayUnreachableError:
            self.close()  # the next attempt says why
            time.sleep(max(0.0, until - time.monotonic()))

    def snapshot(
        self, magic: int, *, history_since_msc: int | None, whole_account: bool = True
    ) -> replies.Snapshot:
        """SYNC_ALL with retries."""
        return self.call(
            requests.SyncAll,
            replies.Snapshot,
            magic=magic,
            whole_account=whole_account,
            history_since_msc=history_since_msc,
        )
