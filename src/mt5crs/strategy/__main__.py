"""`python -m mt5crs.strategy`: exits 0 after SIGTERM, 1 when the strategy fails, 78 for bad settings."""

from __future__ import annotations

import signal
import sys
import traceback

from mt5crs.service import exits
from mt5crs.service.logs import Log
from mt5crs.settings.schema import SettingsError, load
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.runner import Runner


def main() -> int:
    """Run until told to stop."""
    try:
        settings = load(StrategySettings)
        log = Log("strategy", settings.log_level)
        runner = Runner(settings, log)
    except (SettingsError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return exits.CONFIGURATION if isinstance(error, SettingsError) else exits.FAILED
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    try:
        runner.run()
    except Exception as error:
        log.critical("crashed", error=repr(error), trace=traceback.format_exc())
        return exits.FAILED
    finally:
        runner.close()
    log.info("stopped")
    return exits.OK


if __name__ == "__main__":
    sys.exit(main())
