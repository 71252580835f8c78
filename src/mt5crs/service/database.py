"""A service's own SQLite file: durable once written; errors name the file and what to do."""

import sqlite3
from pathlib import Path

_IOERR, _CORRUPT, _FULL, _NOTADB = 10, 11, 13, 26
"""Primary result codes (https://www.sqlite.org/rescode.html)."""


class UnusableError(OSError):
    """The file cannot be used; the text names it, the reason and a remedy."""


class BrokenError(UnusableError):
    """What is in the file is no database, or a damaged one: a restart cannot help."""


def opened(path: Path, schema: str, *, durable: bool = True, threads: bool = False) -> sqlite3.Connection:
    """Open or create it. `durable` false (for tests): no sync, and what a transaction needs to be undone is
    in memory; `threads`: used by several. Raises UnusableError.
    """
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=not threads)
        db.execute(f"PRAGMA journal_mode={'WAL' if durable else 'MEMORY'}")
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        db.executescript(schema)
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    return db


def unusable(path: Path, error: Exception) -> UnusableError:
    """An error of SQLite, or of reading what is in a row, in terms of the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (_CORRUPT, _NOTADB) or not isinstance(error, sqlite3.Error):
        return BrokenError(
            f"{path} is damaged ({error}): keep a copy of it, put a backup in its place, and compare it with "
            "the broker's books before anything trades again"
        )
    remedy = (
        "free space on its disk"
        if code in (_FULL, _IOERR)
        else "make the file and its directory writable for the user of this service, and end who locks it"
    )
    return UnusableError(f"{path} cannot be used ({error}): {remedy}")
