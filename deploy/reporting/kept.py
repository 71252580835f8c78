"""How many reports and plans the controller keeps in `reports/`: the newest ones, and what is still of use.

Of use are the run just reported and runs that nobody has finished or undone, with their plans. Whatever else
lies there is not touched. The number is the controller's own affair, so it is no setting of a fleet.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEEP = "MT5CRS_REPORTS_KEPT"
"""Environment variable: how many reports, and how many plans, are kept; 0 keeps all."""
DEFAULT = 200
_REPORT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_PLAN = re.compile(r"[0-9a-f]{12}\.json")
_SETTLED = ("changed", "unchanged", "undone")


def number() -> int:
    """How many are kept. ValueError, which names variable and remedy, for what is no number."""
    text = os.environ.get(KEEP, str(DEFAULT))
    if not text.isdecimal():
        raise ValueError(f"{KEEP}={text!r} is no number, so no report is removed; set a number, 0 keeps all")
    return int(text)


def prune(under: Path, keep: int, just_written: Path) -> list[Path]:
    """Remove reports and plans beyond the newest `keep` (0: none); returns what was removed."""
    reports = sorted((path for path in under.glob("*") if _REPORT.fullmatch(path.name)), reverse=True)
    plans = [path for path in under.glob("plans/*.json") if _PLAN.fullmatch(path.name)]
    if not keep or (len(reports) <= keep and len(plans) <= keep):
        return []
    records = [(path, _record(path)) for path in reports]
    needed = {just_written, *(path for path, record in records if record is None), *_unfinished(records)}
    needed_plans = {(record or {}).get("plan") for path, record in records if path in needed}
    newest = sorted(plans, key=lambda path: path.stat().st_mtime, reverse=True)
    doomed = [path for path in reports[keep:] if path not in needed]
    doomed += [path for path in newest[keep:] if path.stem not in needed_plans]
    for path in doomed:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return doomed


def _unfinished(records: list[tuple[Path, dict[str, Any] | None]]) -> Iterator[Path]:
    """Runs that left something on their hosts, with no later run of the environment that went well."""
    settled = set()
    for path, record in records:
        if record is None:
            continue
        environment = record.get("environment")
        waits = any(of.get("state") == "provisional" for of in record.get("services") or ())
        if (record.get("outcome") == "interrupted" or waits) and environment not in settled:
            yield path
        if record.get("outcome") in _SETTLED and not record.get("dry"):
            settled.add(environment)


def _record(report: Path) -> dict[str, Any] | None:
    """What a run has recorded; None when that cannot be told (another run may be writing it)."""
    try:
        found = json.loads((report / "record.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
