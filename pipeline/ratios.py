"""Figures beside those of the last release. Only ratios are compared: they say the same on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

RATIO: Final = "times"
"""Unit of a figure that is a ratio of two measurements of one run."""
WORSE: Final = 1.25
"""A ratio may become so many times larger. Beside other work it moves by a tenth."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A measured value, as `python -m tests.bench --json` writes it."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: float | None = None
    note: str = ""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a release, kept in `pipeline/last_release.json`."""

    version: str
    commit: str
    figures: list[Figure]


def worse(now: Sequence[Figure], before: Sequence[Figure]) -> list[str]:
    """Ratios that are worse than those of before by more than `WORSE`, or that are not measured any more."""
    measured = {each.name: each for each in now}
    told = []
    for old in before:
        if old.unit != RATIO:
            continue
        new = measured.get(old.name)
        if new is None:
            told.append(f"{old.name}: not measured any more, {old.value:.2f} before")
        elif new.value > old.value * WORSE:
            told.append(f"{old.name}: {new.value:.2f}, {old.value:.2f} before")
    return told


def lines(now: Sequence[Figure], before: Sequence[Figure]) -> list[str]:
    """A line for each ratio, with that of before."""
    was = {each.name: each.value for each in before}
    return [
        f"{each.name:52} {each.value:6.2f}  before {was[each.name]:6.2f}"
        if each.name in was
        else f"{each.name:52} {each.value:6.2f}  before: not measured"
        for each in now
        if each.unit == RATIO
    ]


def decode(content: bytes) -> list[Figure]:
    """Figures from their JSON. msgspec.DecodeError."""
    return msgspec.json.decode(content, type=list[Figure])


def of_release(told: Any) -> Release:
    """The figures of a release from their JSON. msgspec.ValidationError."""
    return msgspec.convert(told, Release)
