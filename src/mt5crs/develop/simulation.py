"""Gateway with the simulated broker, reconciler and a strategy: real processes on this machine."""

from __future__ import annotations

import csv
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec

from mt5crs.broker.sim.store import Store
from mt5crs.broker.sim.symbols import CONTRACTS
from mt5crs.client.errors import GatewaySilentError
from mt5crs.develop.project import Project, ProjectError
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet, RehearsalError
from mt5crs.protocol import replies, requests

_LOOK_EVERY_S = 0.25
_ROWS = 8
_COLUMNS = 72


class Quote(NamedTuple):
    """A recorded quote; `after_s` counts from the first one."""

    after_s: float
    bid: float
    ask: float


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a run. Money in the account's currency."""

    seconds: float
    first_trade_s: float | None
    deals: int
    closed: int
    won: int
    lots: float
    realised: float
    equity: list[float]
    """Equity at every look, `_LOOK_EVERY_S` apart."""

    @property
    def profit(self) -> float:
        """Realised and open profit."""
        return round(self.equity[-1] - self.equity[0], 2) if self.equity else 0.0


def recorded(path: Path) -> list[Quote]:
    """Quotes of a CSV file with the columns time_msc, bid, ask. ProjectError when it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                (int(row["time_msc"]), float(row["bid"]), float(row["ask"])) for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ProjectError(
            f"{path} is no file of quotes ({error}); wanted is CSV with the columns time_msc, bid, ask"
        ) from None
    if not rows or any(later[0] < earlier[0] for earlier, later in itertools.pairwise(rows)):
        raise ProjectError(f"{path} holds no quotes in the order of their time; sort it by time_msc")
    return [Quote((time_msc - rows[0][0]) / 1000, bid, ask) for time_msc, bid, ask in rows]


def run(
    project: Project,
    *,
    options: Mapping[str, Any],
    symbol: str,
    volume: float,
    interval_s: float,
    seconds: float,
    seed: int,
    quotes: list[Quote] | None,
    speed: float,
    say: Callable[[str], None],
) -> Outcome:
    """Run until `seconds` are over, the quotes are at their end, or somebody interrupts.

    Raises RehearsalError with the last log lines when a service ends or does not become healthy.
    """
    if symbol not in CONTRACTS:
        raise ProjectError(f"the simulated broker has no {symbol}; it has {', '.join(CONTRACTS)}")
    with TemporaryDirectory(prefix="mt5crs-sim-") as directory, project.data_directory() as data:
        strategy = {
            "STRATEGY": project.loads,
            "STRATEGY_OPTIONS": json.dumps(options),
            "SYMBOL": symbol,
            "VOLUME": volume,
            "TICK_INTERVAL_S": interval_s,
            "DATA_DIR": data,
            "PYTHONPATH": python_path(project),
            "PYTHONDONTWRITEBYTECODE": 1,
        }
        gateway = {"SIM_SEED": seed, "SIM_FAULTS": str(quotes is not None).lower(), "POLL_INTERVAL_S": 0.05}
        with Fleet(Path(directory) / "fleet", {"gateway": gateway, "strategy": strategy}) as fleet:
            began = time.monotonic()
            fleet.start_ready("gateway")
            fleet.start_ready("reconciler")
            feed = _Feed(fleet, symbol, quotes, speed)
            fleet.start_ready("strategy")
            say(f"trading after {time.monotonic() - began:.1f} s")
            return _watched(fleet, feed, began, seconds, say)


def python_path(project: Project) -> str:
    """PYTHONPATH of a process that loads the project's code as it is."""
    return os.pathsep.join(
        part for part in (str(project.path or ""), os.environ.get("PYTHONPATH", "")) if part
    )


def plot(values: list[float]) -> Iterator[str]:
    """The course of `values` in lines of text."""
    if len(values) < 2:
        return
    step = max(1.0, len(values) / _COLUMNS)
    shown = [values[int(index * step)] for index in range(int(len(values) / step))]
    low, high = min(shown), max(shown)
    scale = (high - low) or 1.0
    heights = [round((value - low) / scale * (_ROWS - 1)) for value in shown]
    for row in reversed(range(_ROWS)):
        label = f"{low + row / (_ROWS - 1) * (high - low):12.2f} " if row in (0, _ROWS - 1) else " " * 13
        yield label + "".join("█" if height >= row else " " for height in heights).rstrip()


class _Feed:
    """Puts recorded quotes into the simulated broker when their time has come."""

    def __init__(self, fleet: Fleet, symbol: str, quotes: list[Quote] | None, speed: float) -> None:
        self._fleet, self._symbol, self._quotes, self._speed = fleet, symbol, quotes, speed
        self._next = 0
        self._began = time.monotonic()
        self.put()

    @property
    def at_end(self) -> bool:
        return self._quotes is not None and self._next >= len(self._quotes)

    def put(self) -> None:
        """The newest quote that is due; those between two looks are passed over."""
        due = None
        now = (time.monotonic() - self._began) * self._speed
        while self._quotes is not None and not self.at_end and self._quotes[self._next].after_s <= now:
            due, self._next = self._quotes[self._next], self._next + 1
        if due is not None:
            self._fleet.broker(do="price", symbol=self._symbol, bid=due.bid, ask=due.ask)


def _watched(fleet: Fleet, feed: _Feed, began: float, seconds: float, say: Callable[[str], None]) -> Outcome:
    outcome = Outcome(
        seconds=0.0, first_trade_s=None, deals=0, closed=0, won=0, lots=0.0, realised=0.0, equity=[]
    )
    books = Store(fleet.directory / "gateway" / "sim" / "broker.db")
    client = fleet.client("reconciler")
    until = time.monotonic() + seconds
    with suppress(KeyboardInterrupt):
        while time.monotonic() < until and not feed.at_end:
            _require_alive(fleet)
            feed.put()
            with suppress(GatewaySilentError):  # asked again at the next look
                answer = client.call(requests.AccountQuery, replies.AccountState, magic=MAGIC)
                outcome.equity.append(answer.account.equity)
            if outcome.first_trade_s is None and any(deal.magic == MAGIC for deal in books.deals(0)):
                outcome.first_trade_s = round(time.monotonic() - began, 2)
                say(f"first trade after {outcome.first_trade_s:.1f} s")
            time.sleep(_LOOK_EVERY_S)
    deals = [deal for deal in books.deals(0) if deal.magic == MAGIC]
    books.close()
    client.close()
    ended = [deal for deal in deals if deal.entry != "IN"]
    outcome.seconds = round(time.monotonic() - began, 1)
    outcome.deals, outcome.closed = len(deals), len(ended)
    outcome.won = sum(deal.profit > 0 for deal in ended)
    outcome.lots = round(sum(deal.volume for deal in deals), 2)
    outcome.realised = round(sum(deal.profit + deal.commission + deal.fee + deal.swap for deal in deals), 2)
    return outcome


def _require_alive(fleet: Fleet) -> None:
    for service, process in fleet.processes.items():
        if process.poll() is not None:
            raise RehearsalError(f"{service} ended with status {process.returncode}\n{fleet.tail(service)}")
