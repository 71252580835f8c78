"""A fleet that trades all the time, what every case leaves behind, and the table of all cases."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import yaml

from lab.handle import wait_until
from lab.state import PROJECT
from tests.faults.fleet.audit import audit
from tests.faults.fleet.collect import all_books, deals_so_far, quiet
from tests.faults.fleet.controller import Controller
from tests.lab.engines import Fleet, Statuses, generations_in, running_in

CONFIRM_TIMEOUT_S = 30
"""The shortest that settings allow: how long an abandoned roll-out stays provisional."""
LONG_CONFIRM_TIMEOUT_S = 180
"""For what the next run is to find still provisional, however slow the machine."""
LAST = "inf-02"
BAD_ON_THE_LAST = f"{{{{ 'nowhere:Nothing' if inventory_hostname == '{LAST}' else 'example' }}}}"
SERVICES = (
    ("gtw-01", "gateway"),
    ("inf-01", "reconciler"),
    ("inf-01", "strategy"),
    ("inf-02", "reconciler"),
    ("inf-02", "strategy"),
)
OLD, NEW = "all old, running", "all new, confirmed"
SETTLE_S = 60.0
LIMITS = yaml.safe_load((PROJECT / "group_vars/lab/main.yml").read_text())["fleet_limits"]
"""Those of labs."""


@dataclass(frozen=True)
class Row:
    """A line of the closing table."""

    fault: str
    phase: str
    outcome: str
    seconds: float


TABLE: list[Row] = []


def note(fault: str, phase: str, outcome: str, seconds: float) -> None:
    """Add a line to the closing table, and print it: the long run takes hours."""
    TABLE.append(Row(fault, phase, outcome, seconds))
    print(_line(TABLE[-1]), flush=True)


@dataclass
class Arena:
    """One fleet under order flow. Every release is a new one: a setting of each service has a new value.

    They go on from the clock, so that they are new on a lab that was kept as well.
    """

    fleet: Fleet
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(int(time.time()) % 100_000))

    def release(self, *, good: bool = True, confirm_s: int = CONFIRM_TIMEOUT_S, **more: Any) -> None:
        """Want a release that no host has seen; a bad one fails on the last Inf host."""
        number = next(self.numbers)
        bad = {} if good else {"strategy_strategy": BAD_ON_THE_LAST}
        self.fleet.override(
            fleet_confirm_timeout_s=confirm_s,
            fleet_alerts_unknown_s=1,
            fleet_step_pause_s=0,
            gateway_heartbeat_interval_s=round(0.5 + number / 1e6, 6),
            reconciler_recheck_interval_s=round(10 + number / 1e6, 6),
            strategy_tick_interval_s=round(0.2 + number / 1e6, 6),
            strategy_strategy_options={"hold_s": 0.5},
            **bad,
            **more,
        )

    def begin(self, *arguments: str, engine: str = "pyinfra") -> Controller:
        """Deploy what is wanted, in the background."""
        return Controller(self.fleet, *arguments, engine=engine)

    def generations(self) -> dict[tuple[str, str], str]:
        """What runs of the services that every release changes."""
        return _of_every_release(self.fleet.statuses())

    def converged(self, before: dict[tuple[str, str], str]) -> str | None:
        """Whether the fleet as a whole is old or new; None while it is neither, or not all runs."""
        statuses = self.fleet.statuses()
        if not running_in(statuses):
            return None
        now = _of_every_release(statuses)
        if now == before:
            return OLD
        return NEW if all(now[key] != before[key] for key in SERVICES) else None

    def wait_converged(self, before: dict[tuple[str, str], str], timeout_s: float = SETTLE_S) -> str:
        """All old or all new, by itself."""
        wait_until(lambda: self.converged(before) is not None, timeout_s, "one state of the whole fleet")
        found = self.converged(before)
        assert found is not None
        return found

    def check_order_flow(self) -> int:
        """No order doubled, no position lost, none under a stale epoch; gives the number of deals."""
        began = deals_so_far(self.fleet)
        wait_until(lambda: deals_so_far(self.fleet) > began + 1, 60, "trades after the roll-out")
        with quiet(self.fleet):
            # The reconcilers' records follow the books by one event or check.
            end = time.monotonic() + 20
            found = [text for books in all_books(self.fleet) for text in audit(books)]
            while found and time.monotonic() < end:
                time.sleep(0.5)
                found = [text for books in all_books(self.fleet) for text in audit(books)]
        assert not found, "\n".join(found[:20])
        return deals_so_far(self.fleet)


def _of_every_release(statuses: Statuses) -> dict[tuple[str, str], str]:
    now = generations_in(statuses)
    return {key: now[key] for key in SERVICES}


def allow_losses(fleet: Fleet) -> None:
    """Let the fleet trade for hours: every trade costs the spread, and labs may lose little.

    In host_vars, because the project's group_vars win over those beside an inventory.
    """
    directory = fleet.inventory.parent / "host_vars"
    directory.mkdir(exist_ok=True)
    for host in fleet.lab.plan.hosts:
        limits = {"fleet_limits": {**LIMITS, "max_daily_loss": 1e6}}
        (directory / f"{host.name}.yml").write_text("---\n" + yaml.safe_dump(limits))


def closing_table() -> list[str]:
    """Fault, phase, outcome and seconds of every case so far."""
    lines = [f"{'fault':<34}{'phase':<24}{'outcome':<36}{'seconds':>8}"]
    return lines + [_line(row) for row in TABLE]


def _line(row: Row) -> str:
    return f"{row.fault:<34}{row.phase:<24}{row.outcome:<36}{row.seconds:>8.1f}"
