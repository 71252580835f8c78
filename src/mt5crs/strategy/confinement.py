"""What a process does before it loads a strategy: from then on it can neither fork nor reach out unseen."""

from __future__ import annotations

from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy import processes
from mt5crs.strategy.refusals import Refusals


def confine(settings: StrategySettings, log: Log, registry: Registry) -> None:
    """Call it before there are other threads. What a system cannot refuse is said in the log."""
    missing = processes.forbid()
    if missing is not None:
        log.warning("strategy.unconfined", reason=f"other processes are not refused by the kernel: {missing}")
    Refusals(
        log,
        registry,
        allowed_hosts=settings.allowed_hosts,
        sockets=[settings.reconciler_socket],
        port=settings.metrics_port,
    ).begin()
