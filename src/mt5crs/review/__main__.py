"""`python -m mt5crs.review`: exits 0 after SIGTERM, 1 when it fails, 78 for bad settings."""

from __future__ import annotations

from mt5crs.review.service import Reviews
from mt5crs.service import exits, program
from mt5crs.settings.review import ReviewSettings


def main() -> int:
    """Run until told to stop."""
    return program.main("review", ReviewSettings, Reviews)


if __name__ == "__main__":
    exits.leave(main())
