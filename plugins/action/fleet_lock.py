"""Action `fleet_lock`: takes the fleet's lock on the Hub and settles what dead deployments have left.

Runs once, on the controller. `last: true` says that the Hub should have its release tool by now. The callback
plugin, which lives as long as the run, sends the heartbeats and gives the lock back. Skipped in check mode.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.coordination.fleet_lock import HELD, FleetLock, LockError, hub_of
from deploy.fleet.inventory import InventoryError, file_of, resolve
from deploy.rollout.record import Rollout

_OF_THE_RUN = frozenset(("access", "deployment", "lock", "part", "plan", "strategy", "to", "why"))
"""Names that say something of the run, and set nothing."""


def _held(lock: FleetLock) -> dict[str, Any] | None:
    """What the callback needs to hold a lock and to end it; None when it is not held."""
    log = vars(lock.log) if lock.log is not None else None
    return {"hub": lock.hub, "settled": lock.settled, "log": log} if lock.held else None


class ActionModule(ActionBase):  # type: ignore[misc]
    """Takes the lock for the run whose record the callback plugin keeps."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `fleet_lock` (what the callback needs to hold it), or a failed result naming the holder."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        settings = dict(load_extra_vars(self._loader))
        if self._task.check_mode or settings.get("lock") == "none" or os.environ.get(HELD):
            return {**result, "changed": False, "skipped": True}
        if (task_vars or {}).get("ansible_facts", {}).get("fleet_lock_taken"):
            return {**result, "changed": False}
        try:
            fleet = resolve(file_of(context.CLIARGS["inventory"]), settings)
            rollout = Rollout(
                "ansible",
                fleet.environment,
                action=str(self._task.args.get("action", "deploy")),
                id=os.environ["MT5CRS_DEPLOYMENT"],
                why=str(settings.get("why") or ""),
            )
            lock = FleetLock(hub_of(fleet), rollout.id)
            last = bool(self._task.args.get("last", False))
            lock.take(rollout, fleet, last=last, beat=False, given=set(settings) - _OF_THE_RUN)
        except (InventoryError, LockError) as error:
            return {**result, "failed": True, "msg": str(error)}
        return {
            **result,
            "changed": False,
            "rollout_said": lock.said,
            "fleet_lock": _held(lock),
            "ansible_facts": {"fleet_lock_taken": lock.held, "fleet_put_back": list(lock.put_back)},
        }
