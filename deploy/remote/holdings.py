"""What the gateways' accounts hold, asked with the operator's key as `mt5crs --inventory … positions` does.

In a process of its own: pyinfra's greenlets and blocking sockets do not go together.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from deploy.fleet.vault_password import PROJECT
from deploy.rollout import consequences
from deploy.rollout.consequences import Held
from deploy.rollout.plan import Plan
from mt5crs.foreign_text import shown, shown_tree

TIMEOUT_S = 60.0


def consequences_of(plan: Plan, statuses: Mapping[str, Mapping[str, Any]], inventory: Path) -> list[str]:
    """The lines of :func:`consequences.shown`; gateways are asked only where a magic number is left alone."""
    alone = [left.gateway for left in consequences.leaving(plan, statuses)]
    return consequences.shown(plan, statuses, ask(inventory, alone))


def ask(inventory: Path, gateways: Collection[str]) -> dict[str, Held | str]:
    """Gateway → what its account holds, or why that is not known. Nothing is asked when none is named."""
    if not gateways:
        return {}
    command = [sys.executable, "-m", "mt5crs", "--inventory", str(inventory.resolve())]
    try:
        done = subprocess.run(
            [*command, "positions", "--all", "--json"],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return dict.fromkeys(gateways, f"the gateways could not be asked: {type(error).__name__}")
    return read(done.stdout, done.stderr, gateways)


def read(output: str, errors: str, gateways: Collection[str]) -> dict[str, Held | str]:
    """What `positions --all --json` printed; pure."""
    try:
        told = shown_tree(json.loads(output))
    except (ValueError, RecursionError):
        told = {}
    last = shown((errors.strip().splitlines() or ["no answer"])[-1])
    return {name: _held(told.get(name) if isinstance(told, Mapping) else None, last) for name in gateways}


def _held(answer: Any, why: str) -> Held | str:
    try:
        if "error" in answer:
            return str(answer["error"])
        positions, orders = ([int(one["magic"]) for one in answer[part]] for part in ("positions", "orders"))
        return Held(Counter(positions), Counter(orders))
    except (TypeError, KeyError, ValueError):
        return why
