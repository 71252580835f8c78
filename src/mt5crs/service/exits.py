"""Exit statuses of services and of the health command (the units' RestartPreventExitStatus relies on 78)."""

import os
import sys
from typing import NoReturn

OK = 0
FAILED = 1
"""Failed for a reason that a restart may cure: systemd restarts the service."""
CONFIGURATION = 78
"""EX_CONFIG: the configuration is wrong; a restart cannot help."""
INCONCLUSIVE = 75
"""EX_TEMPFAIL: the health command cannot say yet (still starting)."""


def leave(status: int) -> NoReturn:
    """End the process at once, everything having been closed: its successor may already be waited for.

    Taking an interpreter with its threads apart takes tens of milliseconds, during which nobody answers.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
