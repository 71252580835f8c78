"""The table of the matrix: what every cell came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One cell. `pauses`: host → its longest time without an order, in seconds."""

    change: str
    walk: str
    engine: str
    outcome: str
    seconds: float
    pauses: Mapping[str, float]
    runs: tuple[str, ...]


TABLE: list[Row] = []


def note(row: Row) -> None:
    """Add a line, and print it: the whole takes hours."""
    TABLE.append(row)
    print(_line(row), flush=True)


def closing_table() -> list[str]:
    """All cells so far."""
    heads = (
        f"{'change':<30}{'walk':<22}{'engine':<9}{'outcome':<9}{'seconds':>8}  longest time without an order"
    )
    return [heads, *map(_line, TABLE)]


def _line(row: Row) -> str:
    pauses = ", ".join(f"{host} {seconds:.1f} s" for host, seconds in row.pauses.items()) or "not known"
    runs = f"  ({', '.join(row.runs)})" if row.runs else ""
    return f"{row.change:<30}{row.walk:<22}{row.engine:<9}{row.outcome:<9}{row.seconds:>8.1f}  {pauses}{runs}"
