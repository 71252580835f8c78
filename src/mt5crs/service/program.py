"""The life of a service's process: settings, signals, work, exit status."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from mt5crs.service import database, exits
from mt5crs.service.endpoint import Endpoint
from mt5crs.service.live import LiveSettings
from mt5crs.service.logs import Log
from mt5crs.settings.schema import AnySettings, SettingsError, load


class Service(Protocol):
    """What a process does until it is told to stop."""

    endpoint: Endpoint

    def run(self) -> None:
        """Return after `stop`."""

    def stop(self) -> None:
        """Make `run` return soon (signal-safe)."""

    def close(self) -> None:
        """Let go of everything."""


_Service = TypeVar("_Service", bound=Service)


class _Reader:
    """Reads the live settings again, on a thread of its own: a signal handler must wait for no lock."""

    def __init__(self, live: LiveSettings[Any], log: Log) -> None:
        self.also: Callable[[], None] = lambda: None
        self._live = live
        self._log = log
        self._lock = threading.Lock()

    def ask(self) -> None:
        """Read again soon. Safe from a signal handler; whatever goes wrong is no reason to end."""
        try:
            threading.Thread(target=self._read, name="settings", daemon=True).start()
        except RuntimeError as error:
            self._live.refuse("", f"no thread could be started to read the settings ({error}); ask again")

    def _read(self) -> None:
        with self._lock:
            try:
                self._settings()
                self.also()
            except Exception as error:
                self._log.error("settings.refused", reason=repr(error), in_force=self._live.digest)

    def _settings(self) -> None:
        if not self._live.settings.live_settings_file:
            return
        problem = self._live.read_again()
        if problem:
            self._log.error("settings.refused", reason=problem, in_force=self._live.digest)
            return
        self._log.set_level(self._live.settings.log_level)
        self._live.show()
        self._log.info("settings.read", digest=self._live.digest)


def main(
    name: str,
    settings_type: type[AnySettings],
    make: Callable[[AnySettings, Log], _Service],
    *,
    read_again: Callable[[_Service, AnySettings], None] = lambda _service, _settings: None,
    misconfigured: tuple[type[Exception], ...] = (),
    foreseen: tuple[type[Exception], ...] = (),
) -> int:
    """Run a service until SIGTERM. Exit status: 0 stopped on request, 78 wrong configuration, 1 failed.

    read_again: on SIGHUP, what the service does with its settings as they are then, beside the log's level.
    misconfigured: what `make` raises, besides SettingsError, when a restart cannot help. foreseen: what `run`
    raises on purpose; it is logged under its own name and without a stack.
    """
    wrong: tuple[type[Exception], ...] = (SettingsError, database.BrokenError, *misconfigured)
    try:
        settings: Any = load(settings_type)  # each service's has `live_settings_file` and `log_level`
        live: LiveSettings[Any] = LiveSettings(settings_type, settings.live_settings_file, os.environ)
        log = Log(name, live.settings.log_level)
        reader = _Reader(live, log)
        if hasattr(signal, "SIGHUP"):  # Windows has none
            signal.signal(signal.SIGHUP, lambda *_: reader.ask())
        service = make(live.settings, log)
    except wrong as error:
        print(error, file=sys.stderr)
        return exits.CONFIGURATION
    except (OSError, ValueError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return exits.FAILED
    # Windows asks a program to end with SIGBREAK
    for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT)):
        signal.signal(number, lambda *_: service.stop())
    reader.also = lambda: read_again(service, live.settings)
    live.show_on(service.endpoint)
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
