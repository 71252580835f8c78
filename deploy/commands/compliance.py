"""What a period of the audit log says: what changed, by whom, what was overridden, what nobody vouches for.

Pure: records and what verifying them found go in. A record belongs to the time at which it was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mt5crs_release.records.audit_chain import Verified

SECTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "deployments": ("Deployments", ("deployment.",)),
    "changes": ("Changes of the configuration", ("configuration.", "host.")),
    "access": ("Who gets in", ("access.",)),
    "waivers": ("Waivers of the policy", ("waiver.",)),
    "halts": (
        "Halts, and what lifts them",
        ("halt", "resume", "flatten", "trading.", "orders.", "order.", "broker.", "services."),
    ),
    "phases": ("Phases", ("phase.",)),
    "rotations": ("Keys and passwords", ("secret.", "vault.")),
    "others": ("Others", ("",)),
}
"""Section → its heading, and how the names of its records begin; the first that fits."""


@dataclass(frozen=True)
class Whole:
    """What is known of the log besides its records."""

    verified: Verified
    signed: int
    """Up to which record a release key has signed it."""
    silent: Mapping[str, str]
    """Witnesses that could not be asked, and why."""


def time_of(record: Mapping[str, Any]) -> datetime | None:
    """When it was done; None when the record does not say."""
    try:
        found = datetime.fromisoformat(str(record["at"]).replace("Z", "+00:00"))
    except (KeyError, ValueError):
        return None
    return found if found.tzinfo is not None else None


def section_of(what: str) -> str:
    """The section that a record belongs to."""
    return next(name for name, (_, begins) in SECTIONS.items() if what.startswith(begins))


def report(
    records: Sequence[Mapping[str, Any]], whole: Whole, begin: datetime, end: datetime, now: datetime
) -> dict[str, Any]:
    """The report of the time from `begin` up to, and without, `end`."""
    inside = [one for one in records if (at := time_of(one)) is not None and begin <= at < end]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SECTIONS}
    for one in inside:
        found[section_of(str(one.get("what")))].append(_shown(one))
    return {
        "from": begin.isoformat(),
        "to": end.isoformat(),
        "records": len(inside),
        "people": _people(inside),
        **found,
        "overrides": [_shown(one) | {"override": why} for one in inside for why in overrides(one)],
        "broken": [
            f"record {one.n}: {one.what}" if one.n else f"the log: {one.what}"
            for one in whole.verified.findings
        ],
        "unverified": list(_unverified(records, inside, whole)),
        "notes": list(_notes(records, inside, whole, begin, end, now)),
    }


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    own = ("format", "log", "before", "hub", "account", "id")
    return {name: value for name, value in record.items() if name not in own}


def _people(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Who → kind of record → how many; the operator's key too, where one was used."""
    found: dict[str, dict[str, int]] = {}
    for one in records:
        key = f" (key {one['operator']})" if one.get("operator") else ""
        of = found.setdefault(f"{one.get('by')} on {one.get('controller') or 'an unknown machine'}{key}", {})
        what = str(one.get("what"))
        of[what] = of.get(what, 0) + 1
    return found


def overrides(record: Mapping[str, Any]) -> Iterator[str]:
    """What was done although something stood against it."""
    for service in record.get("services") or ():
        review = service.get("review") if isinstance(service, Mapping) else None
        override = review.get("override") if isinstance(review, Mapping) else None
        if override:
            yield (
                f"{service.get('host')} {service.get('service')} without a verdict of the review: "
                f"{override.get('by')}, until {override.get('until')}: {override.get('reason')}"
            )
    if record.get("what") == "phase.promoted" and record.get("override"):
        yield f"promoted to {record.get('to')} with --override"
    if record.get("unasked"):
        yield "started without a countdown (--yes)"
    if record.get("lost"):
        yield f"{record.get('host')} left without being stopped (--lost)"


def _unverified(
    records: Sequence[Mapping[str, Any]],
    inside: Sequence[Mapping[str, Any]],
    whole: Whole,
) -> Iterator[str]:
    """Spans that nobody vouches for, and why; what is not known is no silence."""
    if not any(time_of(one) for one in records):
        yield "the log has no record, so nothing is known of this period"
    if whole.verified.findings:
        first = min(one.n for one in whole.verified.findings)
        yield (
            f"from record {first} on: the chain is broken there"
            if first
            else "all of it: the log is not whole"
        )
    unseen = [one for one in inside if int(one["n"]) > whole.verified.witnessed]
    if unseen:
        yield (
            f"records {unseen[0]['n']} to {unseen[-1]['n']}: no other host has seen them, so what is missing "
            "after them is not known"
        )
    for host, why in whole.silent.items():
        yield f"{host} may have seen more, and was not asked ({why})"
    for one in inside:
        if one.get("mended"):
            yield f"before record {one['n']}: a torn end was cut off, and what it said is not known"
    undated = [str(one["n"]) for one in records if time_of(one) is None]
    if undated:
        yield f"records {', '.join(undated)}: they do not say when they were done, so they are in no period"
    yield from _without_end(records, inside)


def _notes(
    records: Sequence[Mapping[str, Any]],
    inside: Sequence[Mapping[str, Any]],
    whole: Whole,
    begin: datetime,
    end: datetime,
    now: datetime,
) -> Iterator[str]:
    """How far the report goes: what is true of every young log, and keeps nobody from relying on this one."""
    times = [at for one in records if (at := time_of(one)) is not None]
    if times and begin < min(times):
        yield f"before {min(times):%Y-%m-%d %H:%M:%S} there is no record: the log begins then"
    if end > now:
        yield "the period is not over"
    unsigned = [one for one in inside if int(one["n"]) > whole.signed]
    if unsigned:
        yield (
            f"records {unsigned[0]['n']} to {unsigned[-1]['n']}: no release key has signed them (`audit-log "
            "checkpoint`), so who is root on every host could have written them"
        )
    for one in inside:
        if one.get("rekeyed"):
            yield f"record {one['n']}: after another vault password digests cannot be compared with before"


def _without_end(records: Iterable[Mapping[str, Any]], inside: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    ended = {str(one.get("deployment")) for one in records if one.get("what") == "deployment.ended"}
    # Who takes over says what became of the dead one.
    ended |= {str(one.get("settled")) for one in records if one.get("settled")}
    for one in inside:
        if one.get("what") == "deployment.begun" and str(one.get("deployment")) not in ended:
            name = str(one.get("deployment"))[:8]
            yield f"deployment {name} (record {one['n']}): how it ended is not recorded"
