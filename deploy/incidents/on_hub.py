"""Keeps the incidents on the Hub, and has its Alertmanager tell of one. Runs there, as root.

Standard library only.

Standard input: {"keep": incident or null, "told": alert or null, "alertmanager": address}. Prints
{"incidents": [newest first], "told": why nobody was told, empty if somebody was}.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

FILE = Path("/var/lib/mt5crs/incidents.json")
KEEP = 500
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def kept(path: Path, incident: dict[str, Any] | None) -> list[dict[str, Any]]:
    """All incidents, newest first, with this one in place of what was kept of it."""
    lock = os.open(path.parent / ".incidents.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found: list[dict[str, Any]] = json.loads(path.read_bytes())["incidents"] if path.exists() else []
        if incident is None:
            return found
        found = [incident, *(each for each in found if each["id"] != incident["id"])]
        found.sort(key=lambda each: float(each["opened"]), reverse=True)
        new = path.with_name(path.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump({"format": 1, "incidents": found[:KEEP]}, file)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(0o644)
        new.replace(path)
        return found[:KEEP]
    finally:
        os.close(lock)


def tell(alertmanager: str, alert: dict[str, Any]) -> str:
    """Have Alertmanager send it the way of all alerts; why it could not be handed over, or nothing."""
    request = urllib.request.Request(  # noqa: S310 -- the address is made of the inventory's
        f"{alertmanager}/api/v2/alerts",
        data=json.dumps([alert]).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with _direct(request, timeout=10):
            return ""
    except (OSError, ValueError) as error:
        return f"Alertmanager did not take it: {error}"


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    told = tell(asked["alertmanager"], asked["told"]) if asked["told"] else ""
    print(json.dumps({"incidents": kept(FILE, asked["keep"]), "told": told}))
