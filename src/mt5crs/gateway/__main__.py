"""`python -m mt5crs.gateway`: run the gateway with the settings of the environment."""

import gc
import signal
import sqlite3
import sys
from types import FrameType

from mt5crs.service import exits
from mt5crs.service.logs import Log
from mt5crs.settings.gateway import GatewaySettings
from mt5crs.settings.schema import SettingsError, load

from .access import ClientsFileError
from .service import Gateway


def main() -> int:
    """Exit status: 0 stopped on request, 78 wrong configuration, 1 failed."""
    try:
        settings = load(GatewaySettings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return exits.CONFIGURATION
    log = Log("gateway", settings.log_level)
    try:
        gateway = Gateway(settings, log)
    except ClientsFileError as error:
        log.critical("clients.unusable", error=str(error))
        return exits.CONFIGURATION
    except (OSError, sqlite3.Error) as error:
        log.critical("start.failed", error=str(error))
        return exits.FAILED

    def stop(_signal: int, _frame: FrameType | None) -> None:
        gateway.stop()

    def reload(_signal: int, _frame: FrameType | None) -> None:
        gateway.reload()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if hasattr(signal, "SIGBREAK"):  # how Windows asks a program to end
        signal.signal(signal.SIGBREAK, stop)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, reload)
    gc.freeze()  # what is there now stays: no need to look through it again in the middle of a request
    gateway.run()
    log.info("stopped")
    return exits.FAILED if gateway.failed else exits.OK


if __name__ == "__main__":
    exits.leave(main())
