"""`python -m mt5crs.reconciler`: exits 0 after SIGTERM, 1 on SystemHaltException, 78 for bad settings."""

from __future__ import annotations

import signal
import sys
import traceback

from mt5crs.reconciler.halt import SystemHaltException
from mt5crs.reconciler.service import Reconciler
from mt5crs.service import exits
from mt5crs.service.logs import Log
from mt5crs.settings.reconciler import ReconcilerSettings
from mt5crs.settings.schema import SettingsError, load


def main() -> int:
    """Run until told to stop."""
    try:
        settings = load(ReconcilerSettings)
        log = Log("reconciler", settings.log_level)
        reconciler = Reconciler(settings, log)
    except (SettingsError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return exits.CONFIGURATION if isinstance(error, SettingsError) else exits.FAILED
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reconciler.stop())
    try:
        reconciler.run()
    except SystemHaltException as halt:
        log.critical("SystemHaltException", reason=str(halt))
        return exits.FAILED
    except Exception as error:
        log.critical("crashed", error=repr(error), trace=traceback.format_exc())
        return exits.FAILED
    finally:
        reconciler.close()
    log.info("stopped")
    return exits.OK


if __name__ == "__main__":
    exits.leave(main())
