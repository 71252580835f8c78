"""A lab fleet of a benchmark's own, deployed from nothing and removed at its end; runs with their seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab import fleet as labs
from lab.handle import Lab
from tests.lab.engines import Fleet, Ran


@dataclass(frozen=True)
class Timed:
    """A finished run and its wall-clock seconds."""

    ran: Ran
    seconds: float


def timed(run: Callable[[], Ran]) -> Timed:
    """Run and time it. RuntimeError with the end of its output when it failed."""
    began = time.perf_counter()
    ran = run()
    seconds = time.perf_counter() - began
    if ran.status != 0:
        raise RuntimeError(f"a run failed, so there is nothing to compare:\n{ran.output[-4000:]}")
    return Timed(ran, seconds)


TOGETHER = 10
"""As many hosts of a fresh fleet are deployed by one run: on dozens that all start services at once on this
machine's few cores, systemctl does not answer in time."""


@contextmanager
def deployed(
    name: str, hosts: int, *, settings: Mapping[str, Any] | None = None
) -> Iterator[tuple[Fleet, float]]:
    """A fresh lab with that name and that many hosts, removed at the end.

    It is deployed with these settings; with it come the seconds that this took.
    """
    labs.down(name, _quiet)
    labs.up(name, _quiet, hosts)
    try:
        fleet = Fleet(Lab.open(name))
        fleet.override(**(settings or {}))
        yield fleet, sum(_seconds(fleet, words) for words in _slices(fleet))
    finally:
        labs.down(name, _quiet)


def _seconds(fleet: Fleet, words: Sequence[str]) -> float:
    return timed(lambda: fleet.pyinfra(*words)).seconds


def _slices(fleet: Fleet) -> list[list[str]]:
    """Options of pyinfra for each run: Hub and gateways are in the first one."""
    names = sorted((host.name for host in fleet.lab.plan.hosts), key=lambda name: name.startswith("inf"))
    slices = [names[first : first + TOGETHER] for first in range(0, len(names), TOGETHER)]
    return [[word for name in slice_ for word in ("--limit", name)] for slice_ in slices]


def _quiet(_phase: labs.Phase) -> None:
    pass
