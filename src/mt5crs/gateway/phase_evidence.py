"""What is recorded in a phase, and the facts that are made of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mt5crs.protocol.records import PhaseFact
from mt5crs.protocol.replies import OrderResult

from .phase_store import Act, Standing, Stats

_DAY_MS = 86_400_000
_BOUNDS_MS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 60_000)


def count(stats: Stats, answer: OrderResult, took_ms: float | None) -> None:
    """Count the first answer to an order; `took_ms` None: it never went to the broker."""
    stats.orders += 1
    stats.dry_runs += answer.outcome == "DRY_RUN"
    stats.fills += answer.outcome in ("FILLED", "PARTIAL")
    stats.rejects += answer.outcome == "REJECTED"
    if took_ms is not None:
        bound = next((each for each in _BOUNDS_MS if took_ms <= each), _BOUNDS_MS[-1])
        stats.latency[bound] = stats.latency.get(bound, 0) + 1


def facts(
    standing: Standing, observed_ms: int, now_msc: int, last_ms: Callable[[Sequence[Act]], int | None]
) -> list[PhaseFact]:
    """The facts of a phase, each with its source; what is not known is None.

    last_ms: observed time of the newest of these acts; None: there was none.
    """
    stats = standing.stats
    wall_ms = now_msc - stats.started_msc
    counted = "control.db, counted by the gateway in this phase"
    ran = "control.db, time that the gateway has run"

    def days(*acts: Act) -> float:
        last = last_ms(acts) if acts else None
        return (observed_ms - max(standing.since_ms, last or 0)) / _DAY_MS

    figures: dict[str, tuple[float | None, str]] = {
        "days_in_phase": (days(), ran),
        "days_without_crash": (days("crash"), f"{ran} since the last run that was not stopped"),
        "days_without_critical": (
            days("critical", "forged"),
            f"{ran} since the last broken rollback criterion",
        ),
        "uptime_percent": (
            min(100.0, (observed_ms - standing.since_ms) / wall_ms * 100) if wall_ms > 0 else None,
            f"{ran}, of the time that has passed",
        ),
        "orders": (stats.orders, counted),
        "dry_runs": (stats.dry_runs, counted),
        "fills": (stats.fills, counted),
        "reject_percent": (stats.rejects / stats.orders * 100 if stats.orders else None, counted),
        "worst_day": (stats.worst_day, f"{counted}, in account currency"),
        "latency_p95_ms": (_p95(stats.latency), f"{counted}, at most so long from order to answer"),
    }
    return [
        PhaseFact(name=name, value=None if value is None else round(value, 4), source=source)
        for name, (value, source) in figures.items()
    ]


def _p95(latency: Mapping[int, int]) -> float | None:
    """The bound that 95 of 100 orders kept; None without orders."""
    total, seen = sum(latency.values()), 0
    for bound in sorted(latency):
        seen += latency[bound]
        if seen >= 0.95 * total:
            return float(bound)
    return None
