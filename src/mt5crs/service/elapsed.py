"""Time that goes on while the host is suspended: for how long something may count, not when it happened."""

import sys
import time

if sys.platform.startswith("linux"):

    def elapsed_s() -> float:
        """Seconds since some moment, the same one for all processes of this host.

        Python's monotonic clock stands still during a suspension on Linux (clock_gettime(2)): what has run
        out meanwhile would be taken for fresh. Elsewhere it goes on.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    elapsed_s = time.monotonic
