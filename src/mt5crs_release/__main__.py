"""``python -m mt5crs_release`` and the zipapp start here."""

import sys

from mt5crs_release.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
