"""Figures beside their targets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value; `target` is the most it may be, `at_least` the least; None: nothing is demanded."""

    name: str
    value: float
    unit: str
    target: float | None
    note: str = ""
    at_least: float | None = None

    def line(self) -> str:
        """One row of the table."""
        verdict = "OK" if self._good() else "MISSED"
        target = "" if self.target is None else f"<={self.target:g}"
        target = target if self.at_least is None else f">={self.at_least:g}"
        verdict = verdict if target else ""
        return (
            f"{self.name:52} {self.value:10.2f} {self.unit:8} {target:>7} {verdict:6}  {self.note}".rstrip()
        )

    def _good(self) -> bool:
        low = self.at_least is not None and self.value < self.at_least
        return not low and not (self.target is not None and self.value > self.target)


class Table:
    """Shows each figure as soon as it is there, and all of them at the end."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        target: float | None = None,
        note: str = "",
        at_least: float | None = None,
    ) -> None:
        """Add a figure and show it."""
        self.figures.append(Figure(name, value, unit, target, note, at_least))
        print(self.figures[-1].line(), flush=True)

    def text(self) -> str:
        """All figures, with a heading."""
        heading = f"{'figure':52} {'measured':>10} {'unit':8} {'target':>7}"
        return "\n".join([heading, *(figure.line() for figure in self.figures)])
