"""How the events of a gateway arrive: how soon, how regularly, and how long each was under way."""

from __future__ import annotations

import time

import msgspec
import zmq

from mt5crs.checks.percentiles import percentile
from mt5crs.client.connection import milliseconds
from mt5crs.protocol.codec import ProtocolError, decode_event
from mt5crs.protocol.curve import Socket
from mt5crs.protocol.events import Heartbeat

ENOUGH = 50
"""So many events end the listening before its time."""


class Clock(msgspec.Struct):
    """How far the gateway's clock is ahead of ours, in ms, as the fastest round trip so far shows it."""

    ahead_ms: float = 0.0
    uncertain_ms: float = float("inf")

    def learn(self, theirs_ms: int, sent_ms: float, received_ms: float) -> None:
        """An answer with the peer's time in whole ms: given somewhere between sending and receiving."""
        uncertain = (received_ms - sent_ms) / 2 + 0.5
        if 0 < uncertain < self.uncertain_ms:
            self.uncertain_ms = uncertain
            self.ahead_ms = theirs_ms + 0.5 - (sent_ms + received_ms) / 2


class EventFigures(msgspec.Struct, kw_only=True):
    """What was heard; times in milliseconds, null: nothing to tell it from.

    `delay_*` are of heartbeats, which carry the gateway's clock; true to ± `delay_uncertain`.
    """

    seconds: float
    events: int
    malformed: int
    first: float | None
    longest_gap: float | None
    delay_p50: float | None = None
    delay_maximum: float | None = None
    delay_uncertain: float | None = None


class Heard(msgspec.Struct):
    """Events as they arrived: seconds since the listening began, and delays of heartbeats in ms."""

    arrivals: list[float] = msgspec.field(default_factory=list)
    delays: list[float] = msgspec.field(default_factory=list)
    malformed: int = 0
    seconds: float = 0.0

    def figures(self, clock: Clock) -> EventFigures:
        """Sum it up. Pure."""
        gaps = [later - sooner for sooner, later in zip(self.arrivals, self.arrivals[1:], strict=False)]
        delays = sorted(self.delays)
        return EventFigures(
            seconds=round(self.seconds, 3),
            events=len(self.arrivals),
            malformed=self.malformed,
            first=self.arrivals[0] * 1000 if self.arrivals else None,
            longest_gap=max(gaps) * 1000 if gaps else None,
            delay_p50=percentile(delays, 0.5) if delays else None,
            delay_maximum=delays[-1] if delays else None,
            delay_uncertain=clock.uncertain_ms if delays else None,
        )


def listen(socket: Socket, seconds: float, clock: Clock, heard: Heard, *, encrypted: bool) -> None:
    """Listen on a connected SUB socket, at most for `seconds`; what arrives goes into `heard`."""
    began = time.perf_counter()
    while len(heard.arrivals) < ENOUGH and (left := seconds - (time.perf_counter() - began)) > 0:
        if socket.poll(milliseconds(left)):
            _take(socket.recv_multipart(zmq.NOBLOCK), began, clock, heard, encrypted=encrypted)
        heard.seconds = time.perf_counter() - began


def _take(frames: list[bytes], began: float, clock: Clock, heard: Heard, *, encrypted: bool) -> None:
    now_ms = time.time() * 1000
    if encrypted:
        try:
            _, payload = frames
            event = decode_event(payload)
        except (ProtocolError, ValueError):
            heard.malformed += 1
            return
        if isinstance(event, Heartbeat):
            heard.delays.append(now_ms + clock.ahead_ms - event.time_msc - 0.5)
    heard.arrivals.append(time.perf_counter() - began)
