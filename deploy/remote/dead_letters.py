"""Asks the Hub's service what its signed webhook did not accept, and has it tried again. Runs there, as root.

Standard library only.

Standard input: {"act": "retry", "forget" or null, "ids": their ids, or null for all}. Prints what the
service tells of its dead letters, with `done`: how many it was about. The token is that of its settings.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

SETTINGS = Path("/opt/mt5crs/hub/current/.env")
PATH = "/api/alerts/dead-letters"
_LINE = re.compile(r"([A-Z_]+)='([^']*)'\Z")
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def asked(settings: Path, act: str | None, ids: list[str] | None) -> dict[str, Any]:
    """What the service answers. OSError, ValueError: it cannot be asked."""
    lines = settings.read_text(encoding="utf-8").splitlines()
    of = {match[1]: match[2] for line in lines if (match := _LINE.match(line))}
    address = of["HTTP_ADDRESS"]
    base = f"http://{f'[{address}]' if ':' in address else address}:{of['HTTP_PORT']}{PATH}"
    done = 0
    if act is not None:
        request = urllib.request.Request(
            base,
            data=json.dumps({"act": act, "ids": ids}).encode(),
            headers={"Authorization": f"Bearer {of['ALERTS_TOKEN']}"},
        )
        with _direct(request, timeout=10) as answer:
            done = int(json.load(answer)["done"])
    with _direct(base, timeout=10) as answer:
        return {**json.load(answer), "done": done}


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    try:
        print(json.dumps(asked(SETTINGS, wanted["act"], wanted["ids"])))
    except (OSError, ValueError, KeyError) as error:
        print(f"its service does not answer ({error}); look whether mt5crs-hub runs", file=sys.stderr)
        sys.exit(1)
