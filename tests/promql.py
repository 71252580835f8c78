"""Enough of PromQL and of the exposition format to tell which series a rule asks for, and which there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_SELECTOR = re.compile(r"(?<![\w:$])(?P<name>[a-zA-Z_:][\w:]*)\s*(?:\{(?P<labels>[^}]*)\})?(?!\s*[\w:(])")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "on"})


@dataclass(frozen=True)
class Series:
    """A series by name and labels, `job` and `host` among them, with its value when it was read."""

    name: str
    labels: Mapping[str, str]
    value: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        shown = ", ".join(f'{label}="{value}"' for label, value in sorted(self.labels.items()))
        return f"{self.name}{{{shown}}}"


@dataclass(frozen=True)
class Selector:
    """What a rule asks for: a name, and conditions on labels as (label, operator, value)."""

    name: str
    conditions: tuple[tuple[str, str, str], ...] = ()

    def selects(self, series: Series) -> bool:
        """Whether the series is one of those asked for."""
        return series.name == self.name and all(
            _holds(series.labels.get(label, ""), operator, value)
            for label, operator, value in self.conditions
        )

    def __str__(self) -> str:
        shown = ", ".join(f'{label}{operator}"{value}"' for label, operator, value in self.conditions)
        return f"{self.name}{{{shown}}}"


def _holds(found: str, operator: str, wanted: str) -> bool:
    if operator in ("=", "!="):
        return (found == wanted) == (operator == "=")
    return bool(re.fullmatch(wanted, found)) == (operator == "=~")


def selectors(expression: str) -> set[Selector]:
    """Every series that an expression asks for."""
    bare = _GROUPING.sub(" ", re.sub(r"\[[^\]]*\]", " ", expression))
    return {
        Selector(match["name"], tuple(_LABEL.findall(match["labels"] or "")))
        for match in _SELECTOR.finditer(bare)
        if match["name"] not in _WORDS
    }


def samples(text: str, **scraped: str) -> Iterator[Series]:
    """The series of a text in the exposition format, with the labels that Prometheus adds to them."""
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.fullmatch(line)
        if match:
            labels = {name: value for name, _, value in _LABEL.findall(match["labels"] or "")}
            yield Series(match["name"], {**labels, **scraped}, float(match["value"]))


def series_of(text: str) -> Series:
    """A series as promtool's tests write it: name{label="value", …}."""
    name, _, labels = text.partition("{")
    return Series(name.strip(), {label: value for label, _, value in _LABEL.findall(labels)})


def without(labels: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Labels but for some."""
    return {name: value for name, value in labels.items() if name not in set(names)}
