"""In which order requests get to the terminal: what ends risk first, then orders, then what only reads; in
each lane the clients take turns. And how many may wait, so that one client cannot take all places, and who
has read so much of late that orders would wait for it.
"""

from __future__ import annotations

from collections import deque

from mt5crs.protocol import requests as ask

from .job import Job
from .reading_time import ReadingTime

URGENT, ORDERS, READS = range(3)
_URGENT = (ask.OrderCancel, ask.PositionClose, ask.OrderResolve)
_ORDERS = (ask.OrderSend, ask.OrderCheck, ask.OrderQuery)
_NO_READS = (*_URGENT, *_ORDERS)
_TURNS = 8
"""After so many turns of higher lanes in a row, one of the lowest that waits: nobody waits for ever."""


def lane_of(request: ask.AnyRequest, *, operator: bool) -> int:
    """The lane that a request waits in. Pure."""
    if isinstance(request, _URGENT):
        return URGENT
    # What an operator reads comes before what observers read, and takes turns with orders.
    return ORDERS if operator or isinstance(request, _ORDERS) else READS


def reads(job: Job) -> bool:
    """Whether a job is no order and ends no risk. Pure."""
    return not isinstance(job.request, _NO_READS)


class Lanes:
    """What waits for the terminal. The caller locks."""

    def __init__(self, limit: int, share: int, reading: ReadingTime) -> None:
        """`limit`: most that may wait; `share`: most of one client."""
        self._limits = (limit, max(1, limit - limit // 4), max(1, limit // 2))
        self._share = share
        self._lanes: tuple[dict[str, deque[Job]], ...] = ({}, {}, {})
        self._streak = 0
        self._reading = reading

    def __len__(self) -> int:
        return sum(self._waiting(lane) for lane in range(3))

    def full(self, job: Job) -> str | None:
        """Why a job cannot wait as well; None when it can. Reads leave half of the places to orders, and
        orders a quarter to what ends risk; what an operator closes or cancels needs no share.
        """
        lane = lane_of(job.request, operator=job.operator)
        name = job.request.client
        exempt = job.operator and lane == URGENT
        if not exempt and sum(len(each.get(name, ())) for each in self._lanes) >= self._share:
            return f"{self._share} requests of {name} are waiting already"
        waiting = sum(self._waiting(each) for each in range(lane, 3))
        if waiting >= self._limits[lane] or len(self) >= self._limits[URGENT]:
            return f"{waiting} requests are waiting already"
        return None

    def add(self, job: Job) -> None:
        """Have a job wait."""
        lane = lane_of(job.request, operator=job.operator)
        name = job.request.client
        queue = self._lanes[lane].setdefault(name, deque())
        if lane == URGENT and not job.operator:
            # What a client closes or cancels does not overtake its own orders; these come along.
            queue.extend(self._lanes[ORDERS].pop(name, ()))
        queue.append(job)

    def take(self) -> Job | None:
        """The next job; None when nothing waits, or only what has to wait longer."""
        waiting = [(lane, name) for lane in self._lanes if (name := self._next(lane)) is not None]
        if not waiting:
            return None
        lowest_now = self._streak >= _TURNS and len(waiting) > 1
        lane, name = waiting[-1] if lowest_now else waiting[0]
        self._streak = 0 if lane is waiting[-1][0] else self._streak + 1
        queue = lane.pop(name)
        job = queue.popleft()
        if queue:
            lane[name] = queue  # behind the other clients
        if not reads(job):
            self._reading.ordered()
        return job

    def done(self, job: Job, seconds: float) -> None:
        """The terminal is done with a job; it took so long."""
        if reads(job):
            self._reading.took(job.request.client, seconds)

    def _next(self, lane: dict[str, deque[Job]]) -> str | None:
        """Whose turn it is in a lane."""
        for name, queue in lane.items():
            if not (reads(queue[0]) and self._reading.must_wait(name)):
                return name
        return None

    def overdue(self, before: float) -> list[Job]:
        """Take out what came in before a moment."""
        found = []
        for lane in self._lanes:
            for name, queue in list(lane.items()):
                found += [job for job in queue if job.received < before]
                lane[name] = kept = deque(job for job in queue if job.received >= before)
                if not kept:
                    del lane[name]
        return found

    def _waiting(self, lane: int) -> int:
        return sum(map(len, self._lanes[lane].values()))
