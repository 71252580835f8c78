"""`mt5crs standby`: the release tool's question before a blue/green switch: do both hold the same state?"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

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


@standby.command()
@click.option(
    "--running", required=True, type=click.Path(path_type=Path), help="Tape of the running strategy."
)
@click.option("--candidate", required=True, type=click.Path(path_type=Path), help="Tape of its shadow.")
@click.option("--health", required=True, metavar="ADDRESS:PORT", help="Metrics end point of the shadow.")
@click.option(
    "--window",
    "window_s",
    required=True,
    type=click.FloatRange(1, 86400),
    help="Seconds that are compared.",
)
@click.option(
    "--agreement",
    "agreement_percent",
    required=True,
    type=click.FloatRange(0, 100),
    help="Least percentage of decisions that must agree.",
)
@click.option(
    "--least",
    "least_decisions",
    required=True,
    type=click.IntRange(1),
    help="Least number of decisions that says anything.",
)
@click.option(
    "--promotion",
    required=True,
    type=click.Choice(["rule", "command"]),
    help="Whether the figures promote it, or a word of somebody.",
)
@click.option(
    "--tolerance",
    "tolerance_s",
    required=True,
    type=click.FloatRange(0),
    help="Seconds by which a decision may come earlier or later.",
)
@click.option(
    "--record", required=True, type=click.Path(path_type=Path), help="File that says how far it is."
)
@click.option(
    "--word", required=True, type=click.Path(path_type=Path), help="File in which somebody promotes or drops."
)
def shadow(
    running: Path,
    candidate: Path,
    health: str,
    window_s: float,
    agreement_percent: float,
    least_decisions: int,
    promotion: Literal["rule", "command"],
    tolerance_s: float,
    record: Path,
    word: Path,
) -> None:
    """Compare what a strategy decides with what its shadow does (exit 0 promoted, 1 or 75 not, 2 stopped)."""
    from mt5crs.probes.agreement import Terms
    from mt5crs.probes.shadow import Follower

    terms = Terms(window_s, agreement_percent, least_decisions, promotion)
    follower = Follower(
        running,
        candidate,
        _address_and_port(health),
        terms,
        tolerance_s=tolerance_s,
        record=record,
        word=word,
    )
    verdict = follower.follow()
    found = follower.found
    answer: dict[str, object] = {
        "reason": verdict.reason,
        "decisions": found.decisions,
        "agreement": found.ratio,
        **{str(what): number for what, number in found.counts.items()},
    }
    click.echo(json.dumps(answer, sort_keys=True))
    raise SystemExit(verdict.status)


def _end_point(text: str) -> Look:
    return asker(*_address_and_port(text))


def _address_and_port(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isdigit():
        raise click.BadParameter(f"{text!r} is not ADDRESS:PORT, such as 127.0.0.1:9103")
    return address.strip("[]"), int(port)


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
