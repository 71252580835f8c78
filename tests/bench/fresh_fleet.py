"""A lab fleet of a benchmark's own, deployed from nothing and removed at its end; runs with their seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
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


@contextmanager
def deployed(
    name: str, hosts: int, *words: str, settings: Mapping[str, Any] | None = None
) -> Iterator[tuple[Fleet, Timed]]:
    """A fresh lab with that name and that many hosts, removed at the end.

    It is deployed with these settings, and with these options of pyinfra.
    """
    labs.down(name, _quiet)
    labs.up(name, _quiet, hosts)
    try:
        fleet = Fleet(Lab.open(name))
        fleet.override(**(settings or {}))
        yield fleet, timed(lambda: fleet.pyinfra(*words))
    finally:
        labs.down(name, _quiet)


def _quiet(_phase: labs.Phase) -> None:
    pass
