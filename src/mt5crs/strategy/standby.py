"""`python -m mt5crs.strategy.standby`: a strategy that stands by before a blue/green switch.

It loads the strategy with its options, proves that its key is known at the gateway, and follows the state.
There is no lease keeper, no journal and no execution adapter in this process: it cannot trade.
"""

from __future__ import annotations

import sys
import time

from mt5crs.client.connecting import connection_of
from mt5crs.client.errors import GatewayError
from mt5crs.client.gateway import GatewayClient
from mt5crs.protocol import replies, requests
from mt5crs.service import notify, program
from mt5crs.service.endpoint import Endpoint
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.confinement import confine
from mt5crs.strategy.connecting import state_feed_of
from mt5crs.strategy.loading import make_strategy
from mt5crs.strategy.statefeed import NOT_KNOWN

_POLL_S = 0.2
_RETRY_S = 1.0


class Observer:
    """Follows the state until told to stop; says on /health what a running strategy would go by."""

    def __init__(self, settings: StrategySettings, log: Log) -> None:
        """Raises SettingsError or OSError that say what to correct."""
        self._settings = settings
        self._log = log
        registry = Registry()
        confine(settings, log, registry)
        make_strategy(settings)
        peer, patience = connection_of(settings)
        self._client = GatewayClient(peer, patience)
        self._feed = state_feed_of(settings)
        self._unreachable: str | None = "the gateway has not been asked yet"
        self._ask_at = 0.0
        self._shown = NOT_KNOWN
        self._unfit: str | None = "starting"
        self._stopping = False
        self._synced = registry.gauge("mt5crs_strategy_synced", "1 while bound to a ready reconciler.")
        self._synced.set(0)
        self.endpoint = Endpoint(settings.metrics_address, settings.metrics_port, registry, self.health)

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""
        self._stopping = True

    def close(self) -> None:
        """Let go of everything."""
        self._client.close()
        self._feed.close()
        self.endpoint.close()

    def run(self) -> None:
        """Follow the reconciler; ask the gateway until it has answered once."""
        notify.ready("standing by")
        watchdog_s = notify.watchdog_interval_s()
        fed_at = time.monotonic()
        while not self._stopping:
            self._feed.update(_POLL_S)
            if self._unreachable is not None and time.monotonic() >= self._ask_at:
                self._ask_gateway()
            self._unfit, self._shown = self._unreachable or self._feed.unfit(), self._feed.shown()
            self._synced.set(0 if self._unfit else 1)
            if watchdog_s is not None and time.monotonic() - fed_at >= watchdog_s:
                notify.watchdog()
                fed_at = time.monotonic()

    def health(self) -> dict[str, object]:
        """What `/health` says."""
        unfit = self._unfit
        return {
            "healthy": unfit is None,
            "state": "standby",
            "reason": unfit or "",
            "strategy": self._settings.strategy,
            "magic": self._settings.magic_number,
            "login": self._settings.expected_account_login,
            "epoch": None,
            **(self._shown if unfit is None else NOT_KNOWN),
        }

    def _ask_gateway(self) -> None:
        settings = self._settings
        try:
            self._client.once(
                requests.Ping, replies.Pong, timeout_s=settings.sync_timeout_s, magic=settings.magic_number
            )
        except GatewayError as error:
            self._unreachable = f"the gateway does not answer this strategy: {error}"
            self._log.warning("gateway.refused", error=str(error))
        else:
            self._unreachable = None
        self._ask_at = time.monotonic() + _RETRY_S


def main() -> int:
    """Run until told to stop."""
    return program.main("strategy-standby", StrategySettings, Observer)


if __name__ == "__main__":
    sys.exit(main())
