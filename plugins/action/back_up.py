"""Action `back_up`: a backup of the fleet before anything is staged, by `fleet_backup_before_deploy`.

Runs once, on the controller, if the plan has something to do. Skipped in check mode.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.backup.before import backed_up
from deploy.fleet.inventory import InventoryError, file_of, resolve


class ActionModule(ActionBase):  # type: ignore[misc]
    """Does what `deploy/operations/safeguard.py` does for pyinfra."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was said, or a failed result that says why the deployment must not begin."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        plan = (task_vars or {}).get("fleet_plan") or {}
        if self._task.check_mode or not plan.get("in_service"):
            return {**result, "changed": False, "skipped": True}
        try:
            fleet = resolve(file_of(context.CLIARGS["inventory"]), dict(load_extra_vars(self._loader)))
        except InventoryError as error:
            return {**result, "failed": True, "msg": str(error)}
        said, refused = backed_up(fleet, plan["in_service"], os.environ.get("SUDO_USER") or getpass.getuser())
        if refused:
            return {**result, "failed": True, "msg": refused, "rollout_said": said}
        return {**result, "changed": False, "rollout_said": said}
