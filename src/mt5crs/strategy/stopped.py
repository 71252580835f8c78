"""`python -m mt5crs.strategy.stopped LIMIT CAUSE REMEDY`: what a strategy that broke a limit becomes.

Nothing of the strategy is in it, and no way to trade. It says on /health, in its figures and to systemd what
happened, until somebody starts the unit anew.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from mt5crs.service import notify, program
from mt5crs.service.endpoint import Endpoint
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Gauge, Registry
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.limits import NAMES, Broken
from mt5crs.strategy.statefeed import NOT_KNOWN

_FEED_S = 5.0


def limit_gauge(registry: Registry, found: str = "") -> Gauge:
    """The figure that alert rules go by; all limits have their series from the start on."""
    gauge = registry.gauge(
        "mt5crs_strategy_limit_broken", "1 for the limit for which the strategy was stopped.", ("limit",)
    )
    for name in NAMES:
        gauge.set(1 if name == found else 0, name)
    return gauge


class Stopped:
    """Says why the strategy was stopped until told to end."""

    def __init__(self, settings: StrategySettings, found: Broken) -> None:
        """Raises OSError when metrics cannot be served."""
        self._settings = settings
        self._found = found
        self._ended = threading.Event()
        registry = Registry()
        limit_gauge(registry, found.limit)
        self.endpoint = Endpoint(settings.metrics_address, settings.metrics_port, registry, self.health)

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""
        self._ended.set()

    def close(self) -> None:
        """Let go of the port."""
        self.endpoint.close()

    def run(self) -> None:
        """Feed the watchdog."""
        notify.ready(f"stopped for its limit {self._found.limit}: {self._found}")
        # The watchdog's time began with the process before; its setting need not suit a pause of ours.
        pause_s = min(_FEED_S, notify.watchdog_interval_s() or _FEED_S)
        notify.watchdog()
        while not self._ended.wait(pause_s):
            notify.watchdog()

    def health(self) -> dict[str, object]:
        """What `/health` says."""
        return {
            "healthy": False,
            "state": "stopped",
            "reason": f"it broke its limit {self._found.limit}: {self._found}. Then restart "
            f"mt5crs-{Path(self._settings.state_dir).name}",
            "strategy": self._settings.strategy,
            "magic": self._settings.magic_number,
            "login": self._settings.expected_account_login,
            "epoch": None,
            **NOT_KNOWN,
        }


def main(arguments: list[str]) -> int:
    """Run until told to stop."""
    found = Broken(*arguments)

    def made(settings: StrategySettings, log: Log) -> Stopped:
        log.critical("strategy.stopped", limit=found.limit, cause=found.cause, remedy=found.remedy)
        return Stopped(settings, found)

    return program.main("strategy", StrategySettings, made)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
