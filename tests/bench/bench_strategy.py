"""Figures of a strategy's callbacks: the time around one that does nothing, and processor time for each.

Run: `python -m tests.bench.bench_strategy [--quick]`. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import urllib.request
from pathlib import Path

from mt5crs.local_fleet.rehearsal import Fleet
from tests.bench.bench_client import cpu_s
from tests.bench.figures import Table
from tests.promql import samples

TICK_S = 0.02
NOTHING = """
from mt5crs.strategy.api import Strategy

class Idle(Strategy):
    def on_timer(self, trading):
        pass
"""


def callbacks(fleet: Fleet) -> tuple[float, float]:
    """How often the timer's callback ended, and how many seconds all of them took."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{fleet.metrics_ports['strategy']}/metrics", timeout=5
    ) as answer:
        text = answer.read().decode()
    found = {
        series.name.removeprefix("mt5crs_strategy_callback_seconds_"): series.value
        for series in samples(text)
        if series.labels.get("callback") == "on_timer" and "le" not in series.labels
    }
    return found["count"], found["sum"]


def run(table: Table, *, quick: bool) -> None:
    """Add the figures."""
    seconds = 5.0 if quick else 30.0
    with tempfile.TemporaryDirectory(prefix="mt5crs-bench-") as scratch:
        directory = Path(scratch)
        (directory / "nothing.py").write_text(NOTHING)
        own = {"STRATEGY": "nothing:Idle", "PYTHONPATH": str(directory), "TICK_INTERVAL_S": TICK_S}
        with Fleet(directory / "fleet", {"strategy": own}) as fleet:
            for service in ("gateway", "reconciler", "strategy"):
                fleet.start_ready(service)
            (calls, took), used = callbacks(fleet), cpu_s(fleet, "strategy")
            time.sleep(seconds)
            (more, all_took), all_used = callbacks(fleet), cpu_s(fleet, "strategy")
    done = more - calls
    note = f"{done:.0f} calls, one each {TICK_S * 1000:g} ms"
    table.add("around a callback that does nothing (mean)", (all_took - took) / done * 1e6, "us", None, note)
    table.add(
        "processor time of a strategy for each callback", (all_used - used) / done * 1e6, "us", None, note
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 s, not 30")
    run(Table(), quick=parser.parse_args().quick)
