"""What a scan says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final, Literal

import msgspec

State = Literal["clean", "found", "not checked"]
_WORST: Final = ("found", "not checked", "clean")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a scan found; `key` names it for an acceptance."""

    key: str
    detail: str


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """One scan: how many things it looked at, what it found, why it could not look."""

    name: str
    looked_at: int = 0
    what: str = ""
    """What is counted."""
    found: list[Found] = []
    accepted: list[Found] = []
    not_checked: str = ""
    """Why something was not looked at; empty: all was."""

    @property
    def state(self) -> State:
        """The worst of it; a scan that looked at nothing has not found anything out."""
        if self.found:
            return "found"
        return "not checked" if self.not_checked or not self.looked_at else "clean"

    @property
    def detail(self) -> str:
        """Why it is not clean, else what was looked at."""
        if self.found:
            more = f" and {len(self.found) - 1} more" if len(self.found) > 1 else ""
            return f"{self.found[0].key}: {self.found[0].detail}{more}"
        if self.state == "not checked":
            return self.not_checked or f"there were no {self.what} to look at"
        return f"{self.looked_at} {self.what}" + (f", {len(self.accepted)} accepted" if self.accepted else "")


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody takes the blame for a finding until a day (UTC)."""

    scan: str
    key: str
    reason: str
    owner: str
    until: date


class AcceptanceError(RuntimeError):
    """The list of acceptances cannot be read, or one has expired; the text names the remedy."""


def acceptances(text: str, today: date) -> list[Acceptance]:
    """Read the list (TOML, tables `accepted`).

    AcceptanceError: it is malformed, or one has expired: that is no smaller fault than the finding itself.
    """
    try:
        told = msgspec.toml.decode(text, type=dict[str, list[Acceptance]]) if text.strip() else {}
    except msgspec.DecodeError as error:
        raise AcceptanceError(f"the list of accepted findings cannot be read ({error}): mend it") from None
    listed = told.get("accepted", [])
    for each in listed:
        if each.until < today:
            raise AcceptanceError(
                f"the acceptance of {each.key} ({each.scan}) by {each.owner} expired on {each.until}: "
                "mend what it is about, or accept it anew"
            )
    return listed


def with_acceptances(scan: Scan, listed: Sequence[Acceptance]) -> Scan:
    """The scan with its accepted findings set apart."""
    keys = {each.key for each in listed if each.scan == scan.name}
    return msgspec.structs.replace(
        scan,
        found=[each for each in scan.found if each.key not in keys],
        accepted=[each for each in scan.found if each.key in keys],
    )


def status(scans: Sequence[Scan], unchecked: int) -> int:
    """Exit status: 0 all clean, 1 something was found, `unchecked` when something could not be looked at."""
    states = {scan.state for scan in scans}
    worst = next((state for state in _WORST if state in states), "not checked")
    return {"found": 1, "not checked": unchecked, "clean": 0}[worst]


def table(scans: Sequence[Scan]) -> list[str]:
    """One line for each scan, and below it what it found; the last line sums up what is not clean."""
    width = max(len(scan.name) for scan in scans)
    lines = []
    for scan in scans:
        lines.append(f"{scan.name:{width}}  {scan.state:11}  {scan.detail}")
        lines += [f"{'':{width}}    {each.key}: {each.detail}" for each in scan.found[1:]]
    return [*lines, summary(scans)]


def summary(scans: Sequence[Scan]) -> str:
    """What is not clean, in one line."""
    parts: Mapping[str, list[str]] = {
        "found": [scan.name for scan in scans if scan.state == "found"],
        "not checked": [f"{scan.name} ({scan.detail})" for scan in scans if scan.state == "not checked"],
    }
    told = [f"{state}: {', '.join(names)}" for state, names in parts.items() if names]
    return "; ".join(told) or "all clean"
