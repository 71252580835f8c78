"""`mt5crs standby`: the release tool's question before a blue/green switch: do both hold the same state?"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import click

from mt5crs.client.published import StateReader, StateUnavailableError
from mt5crs.probes.health import HealthCheckBrokenError, ask_health
from mt5crs.probes.sameness import Outcome, Sameness, Sighting, sighting_of, sighting_of_health
from mt5crs.service import exits

_READ_S = 0.02
_ASK_EVERY_S = 0.05
_RETRY_S = 0.2
_STATUS = {"equal": exits.OK, "differ": exits.FAILED, "unknown": exits.INCONCLUSIVE}
Look = Callable[[], Sighting | None]
"""Asks one side: what it says now, None when it cannot be asked at the moment."""


class Follower:
    """Reads what a reconciler publishes on its socket; connects again by itself."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader: StateReader | None = None
        self._retry_at = 0.0

    def __call__(self) -> Sighting | None:
        """What it says now, waiting a moment for news."""
        if self._reader is None and time.monotonic() < self._retry_at:
            time.sleep(_READ_S)
            return None
        try:
            if self._reader is None:
                self._reader = StateReader(self._path)
            state = self._reader.read(_READ_S)
        except StateUnavailableError:
            self._retry_at = time.monotonic() + _RETRY_S
            self.close()
            return None
        return None if state is None else sighting_of(state)

    def close(self) -> None:
        """Let go of the connection."""
        if self._reader is not None:
            with contextlib.suppress(OSError):
                self._reader.close()
        self._reader = None


def asker(address: str, port: int) -> Look:
    """Asks a strategy's /health."""

    def look() -> Sighting | None:
        time.sleep(_ASK_EVERY_S)
        try:
            return sighting_of_health(ask_health(address, port)[1])
        except (OSError, HealthCheckBrokenError):
            return None

    return look


def compare(running: Look, standby: Look, timeout_s: float) -> Outcome:
    """Look at both until it is certain whether they hold the same state, or the time is up."""
    sameness = Sameness()
    began = time.monotonic()
    while (now := time.monotonic()) - began < timeout_s:
        for look, take in ((running, sameness.running), (standby, sameness.standby)):
            sighting = look()
            if sighting is not None:
                take(sighting, now)
        outcome = sameness.outcome(time.monotonic())
        if outcome is not None:
            return outcome
    return sameness.give_up(timeout_s)


@click.group()
def standby() -> None:
    """Compare a candidate that stands by with the service that runs (exit 0 equal, 1 differs, 75 unknown).

    The release tool asks this before a blue/green switch. Both must show the same state digest at the same
    event of the gateway. The answer is one JSON object.
    """


_timeout = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1, 600),
    default=20.0,
    show_default=True,
    help="Seconds after which it is given up (exit 75).",
)


@standby.command()
@click.option("--running", required=True, help="Local socket of the running reconciler.")
@click.option("--candidate", required=True, help="Local socket of the one that stands by.")
@_timeout
def reconciler(running: str, candidate: str, timeout_s: float) -> None:
    """Compare the published states of two reconcilers."""
    ours, theirs = Follower(running), Follower(candidate)
    try:
        _answer(compare(ours, theirs, timeout_s))
    finally:
        ours.close()
        theirs.close()


@standby.command()
@click.option(
    "--running", required=True, metavar="ADDRESS:PORT", help="Metrics end point of the running one."
)
@click.option(
    "--candidate", required=True, metavar="ADDRESS:PORT", help="Metrics end point of the one that stands by."
)
@_timeout
def strategy(running: str, candidate: str, timeout_s: float) -> None:
    """Compare the states that two strategies go by."""
    _answer(compare(_end_point(running), _end_point(candidate), timeout_s))


def _end_point(text: str) -> Look:
    address, _, port = text.rpartition(":")
    if not address or not port.isdigit():
        raise click.BadParameter(f"{text!r} is not ADDRESS:PORT, such as 127.0.0.1:9103")
    return asker(address.strip("[]"), int(port))


def _answer(outcome: Outcome) -> None:
    answer = {
        "equal": {"equal": True, "differ": False}.get(outcome.result),
        "reason": outcome.reason,
        "digest_running": outcome.digest_running,
        "digest_standby": outcome.digest_standby,
        "differences": list(outcome.differences),
    }
    click.echo(json.dumps(answer, sort_keys=True))
    raise SystemExit(_STATUS[outcome.result])
