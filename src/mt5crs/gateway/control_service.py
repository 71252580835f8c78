"""Requests that need no terminal: leases, halts, the gateway's own state. Answered by the network thread at
once.
"""

import time
from collections.abc import Callable

import msgspec

from mt5crs.protocol import events
from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import VERSION
from mt5crs.protocol.records import HaltInfo, LeaseInfo
from mt5crs.protocol.replies import HaltState, Lease, Pong, Reply, StatusState
from mt5crs.version import product_version

from .access import Peer
from .control import Control
from .order_manager import OrderManager
from .phases import Phases
from .refusal import Refusal
from .stream import Stream
from .terminal import Terminal

ControlRequest = (
    ask.Ping
    | ask.Status
    | ask.LeaseAcquire
    | ask.LeaseRenew
    | ask.LeaseRelease
    | ask.Halt
    | ask.Resume
    | ask.PhaseDemote
    | ask.PhaseTrading
)


class ControlService:
    """Answers without waiting for anything but the disk."""

    def __init__(
        self,
        control: Control,
        order_manager: OrderManager,
        terminal: Terminal,
        stream: Stream,
        phases: Phases,
        queue_limit: int,
        note: Callable[..., None],
    ) -> None:
        self._control = control
        self._order_manager = order_manager
        self._terminal = terminal
        self._stream = stream
        self._phases = phases
        self._announced: list[HaltInfo] = control.halts()
        self._queue_limit = queue_limit
        self._note = note
        self._started = time.monotonic()

    def answer(self, request: ControlRequest, peer: Peer) -> Reply:
        """The reply to a client. Raises Refusal."""
        if isinstance(request, ask.Ping):
            return Pong(
                v=VERSION, id=request.id, time_msc=time.time_ns() // 1_000_000, stream=self._stream.name
            )
        if isinstance(request, ask.Status):
            return self._status(request.id, peer)
        if isinstance(request, (ask.Halt, ask.Resume)):
            return self._halt(request)
        if isinstance(request, ask.PhaseDemote):
            self._phases.demote(request.magic, request.profile, request.client, request.reason)
            return self._phases.state(request.id, request.magic)
        if isinstance(request, ask.PhaseTrading):
            self._phases.set_trading(request.magic, request.state, request.client, request.reason)
            return self._phases.state(request.id, request.magic)
        return self._lease(request)

    def state(self) -> tuple[str, str]:
        """State and reason, as in STATUS and heartbeats."""
        if self._terminal.state() == "hung":
            return "terminal_hung", "a call to the terminal does not return"
        view = self._terminal.view()
        return ("ready", "") if view.ready else ("not_ready", view.reason)

    def _status(self, request_id: str, peer: Peer) -> StatusState:
        state, reason = self.state()
        return StatusState(
            v=VERSION,
            id=request_id,
            version=product_version(),
            protocol_min=VERSION,
            protocol_max=VERSION,
            stream=self._stream.name,
            uptime_ms=int((time.monotonic() - self._started) * 1000),
            state=state,
            reason=reason,
            identity=self._terminal.view().identity,
            queue_length=self._terminal.queue_length(),
            queue_limit=self._queue_limit,
            leases=self._leases(None if "administer" in peer.permissions else peer.magics),
            halts=self._control.halts(),
            guards=self._order_manager.guards(),
        )

    def _leases(self, magics: frozenset[int] | None) -> list[LeaseInfo]:
        """All leases; the instance, which a take-over names, of these magic numbers only (None: all)."""
        return [
            lease if magics is None or lease.magic in magics else msgspec.structs.replace(lease, instance="")
            for lease in self._control.leases()
        ]

    def _lease(self, request: ask.LeaseAcquire | ask.LeaseRenew | ask.LeaseRelease) -> Lease:
        magic, client, instance = request.magic, request.client, request.instance
        if isinstance(request, ask.LeaseAcquire):
            epoch, ttl_ms = self._control.acquire(magic, client, instance, request.ttl_ms), request.ttl_ms
            self._note("lease.acquired", magic=magic, client=client, instance=instance, epoch=epoch)
            self._announce()
        elif isinstance(request, ask.LeaseRenew):
            epoch, ttl_ms = request.lease_epoch, request.ttl_ms
            self._control.renew(magic, client, instance, epoch, ttl_ms)
        else:
            epoch, ttl_ms = request.lease_epoch, 0
            self._control.release(magic, client, instance, epoch)
            self._note("lease.released", magic=magic, client=client, instance=instance, epoch=epoch)
            self._announce()
        return Lease(v=VERSION, id=request.id, magic=magic, epoch=epoch, ttl_ms=ttl_ms, instance=instance)

    def _halt(self, request: ask.Halt | ask.Resume) -> HaltState:
        in_flight = 0
        if isinstance(request, ask.Halt):
            try:
                in_flight = self._control.halt(request.scope, request.magic, request.client, request.reason)
            except Refusal:
                self._announce()  # it is in force though it could not be recorded
                raise
            self._note(
                "halt", scope=request.scope, magic=request.magic, client=request.client, reason=request.reason
            )
        else:
            self._control.resume(request.scope, request.magic, request.client, request.reason)
            magic = request.magic if request.scope == "MAGIC" else 0
            self._terminal.call_soon(lambda: self._order_manager.reset_breaker(magic))
            self._note(
                "resume",
                scope=request.scope,
                magic=request.magic,
                client=request.client,
                reason=request.reason,
            )
        self._announce()
        return HaltState(v=VERSION, id=request.id, halts=self._control.halts(), in_flight=in_flight)

    def announce_halts(self) -> None:
        """Tell of halts that the gateway itself has put in force since the last event."""
        if self._control.halts() != self._announced:
            self._announce()

    def _announce(self) -> None:
        self._announced = self._control.halts()
        topic = events.CONTROL_TOPIC
        self._stream.publish(
            topic,
            events.ControlEvent(
                v=VERSION,
                stream=self._stream.name,
                seq=self._stream.next(topic),
                halts=self._control.halts(),
                leases=self._leases(frozenset()),
            ),
        )
