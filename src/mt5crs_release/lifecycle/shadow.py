"""The shadow stage: a candidate is called as what runs is, its orders go nowhere, and both are compared.

It is a standby with a longer look: the same pointer, the same links, the same way out. How long, what is
demanded and who promotes are not part of a generation, but of the run that activates it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mt5crs_release.desired.spec import StandbySpec
from mt5crs_release.errors import RefusedError
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.lifecycle import standby
from mt5crs_release.lifecycle.standby import EQUAL, INCONCLUSIVE, UNHEALTHY, Report
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import ServicePaths

_DISAGREE, _UNKNOWN = 1, 75
_EVENTS = {0: EQUAL, _DISAGREE: INCONCLUSIVE, _UNKNOWN: INCONCLUSIVE}
"""A version that decides otherwise is not a bad one: it may be tried again, and promoted by a word."""
_STOPPED = 2
REMEDY = (
    "look at the differences (`mt5crs --inventory … shadow show`); if they are wanted, deploy again and "
    "promote it by a word (`… shadow promote`), or deploy with another strategy"
)


@dataclass(frozen=True)
class Terms:
    """What the candidate has to show; the settings ``fleet_shadow_…``."""

    window_s: float
    agreement_percent: float = 100.0
    least_decisions: int = 1
    promotion: Literal["rule", "command"] = "rule"


def compare(session: Session, candidate: Content, wanted: StandbySpec, terms: Terms) -> Report:
    """Run ``candidate`` in the shadow of what runs for its window, and stop it again.

    :raises FailedError: systemd does not answer
    :raises OSError: the disk is full or broken
    """
    forget(session.paths)
    values = {
        name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in vars(terms).items()
    }
    values |= {"record": str(record(session.paths)), "word": str(_word(session.paths))}
    check = tuple(_filled(text, values) for text in wanted.check)
    spec = replace(wanted, check=check, check_timeout_s=wanted.check_timeout_s + terms.window_s)
    figures: dict[str, Any] = {}

    def judge(status: int | None, output: str) -> standby.Verdict:
        event, reason, fields = standby.verdict(status, output, {**_EVENTS, _STOPPED: UNHEALTHY})
        figures.update(fields)
        return event, reason, fields

    try:
        report = standby.compare(session, candidate, spec, judge, doing="shadow", watched=True)
    finally:
        _word(session.paths).unlink(missing_ok=True)
    session.shadow = {
        "units": list(report.units),
        "terms": asdict(terms),
        "decisions": figures.get("decisions"),
        "agreement": figures.get("agreement"),
        "promoted": report.event == EQUAL,
        "seconds": round(report.seconds, 3),
        "reason": report.reason,
    }
    return report


def left_out(reason: str, terms: Terms) -> dict[str, Any]:
    """Return how a stage ended that there was no reason for: nothing ran."""
    return {
        "units": [],
        "terms": asdict(terms),
        "decisions": None,
        "agreement": None,
        "promoted": True,
        "seconds": 0.0,
        "reason": reason,
    }


def show(paths: ServicePaths) -> dict[str, Any]:
    """Return how far the comparison is, or how the last one ended; ``shadow`` is null when there was none."""
    try:
        told = json.loads(record(paths).read_bytes())
    except FileNotFoundError:
        told = None
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"{record(paths)} cannot be read ({type(error).__name__})",
            remedy="repeat; it is written anew each second while a comparison runs",
        ) from error
    now = store.read_link(paths.standby)
    if isinstance(told, dict) and told.get("state") == "running" and now is None:
        told = {**told, "state": "ended", "promoted": False, "reason": "it was ended before it was decided"}
    return {
        "changed": False,
        "service": paths.base.name,
        "generation": None if now is None else now.rpartition("/")[2],
        "shadow": told,
    }


def say(paths: ServicePaths, said: Literal["promote", "drop"], by: str) -> dict[str, Any]:
    """Tell the run that waits for its window that it is to go on at once, or to take the candidate back.

    :raises RefusedError: nothing of this service runs in the shadow now
    """
    now = show(paths)
    if now["generation"] is None or (now["shadow"] or {}).get("state") != "running":
        raise RefusedError(
            f"no new version of {paths.base.name} runs in the shadow here now",
            remedy="deploy with strategy=shadow; a comparison that has ended is decided "
            f"(`mt5crs-release shadow {paths.base.name} show`)",
        )
    store.replace_file(_word(paths), json.dumps({"said": said, "by": by}).encode(), 0o600)
    verb = "goes on" if said == "promote" else "is taken back"
    return {**now, "changed": True, "reason": f"{now['generation']} {verb}; said by {by}"}


def forget(paths: ServicePaths) -> None:
    """Remove what is left of the comparison before."""
    for path in (record(paths), _word(paths)):
        path.unlink(missing_ok=True)


def record(paths: ServicePaths) -> Path:
    """Where the comparison says how far it is; kept until the next one."""
    return paths.base / "shadow.json"


def _word(paths: ServicePaths) -> Path:
    return paths.base / "shadow.word"


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
