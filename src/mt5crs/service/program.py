"""The life of a service's process: settings, signals, work, exit status."""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from mt5crs.service import database, exits
from mt5crs.service.logs import Log
from mt5crs.settings.schema import SettingsError, load

if TYPE_CHECKING:  # each service imports its own alone
    from mt5crs.settings.gateway import GatewaySettings
    from mt5crs.settings.hub import HubSettings
    from mt5crs.settings.reconciler import ReconcilerSettings
    from mt5crs.settings.review import ReviewSettings
    from mt5crs.settings.strategy import StrategySettings

_Settings = TypeVar(
    "_Settings",
    "GatewaySettings",
    "HubSettings",
    "ReconcilerSettings",
    "ReviewSettings",
    "StrategySettings",
)


class Service(Protocol):
    """What a process does until it is told to stop."""

    def run(self) -> None:
        """Return after `stop`."""

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""

    def close(self) -> None:
        """Let go of everything."""


def main(
    name: str,
    settings_type: type[_Settings],
    make: Callable[[_Settings, Log], Service],
    *,
    misconfigured: tuple[type[Exception], ...] = (),
    foreseen: tuple[type[Exception], ...] = (),
) -> int:
    """Run a service until SIGTERM. Exit status: 0 stopped on request, 78 wrong configuration, 1 failed.

    misconfigured: what `make` raises, besides SettingsError, when a restart cannot help. foreseen: what `run`
    raises on purpose; it is logged under its own name and without a stack.
    """
    wrong: tuple[type[Exception], ...] = (SettingsError, database.BrokenError, *misconfigured)
    try:
        settings = load(settings_type)
        log = Log(name, settings.log_level)
        service = make(settings, log)
    except wrong as error:
        print(error, file=sys.stderr)
        return exits.CONFIGURATION
    except (OSError, ValueError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return exits.FAILED
    # Windows asks a program to end with SIGBREAK
    for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT)):
        signal.signal(number, lambda *_: service.stop())
    try:
        service.run()
    except foreseen as error:
        log.critical(type(error).__name__, reason=str(error))
        return exits.FAILED
    except database.UnusableError as error:
        log.critical("state_unusable", reason=str(error))
        return exits.FAILED
    except Exception as error:
        import traceback

        log.critical("crashed", error=repr(error), trace=traceback.format_exc())
        return exits.FAILED
    finally:
        service.close()
    log.info("stopped")
    return exits.OK
