"""Action `check_settings`: settings and policy of every host, `-e` included, before anything is touched.

Runs on the controller alone and changes nothing, so it does the same in check mode.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.fleet.inventory import InventoryError, files_of, resolve
from deploy.fleet.settings import require
from deploy.policy import enforcing as policy
from mt5crs.settings.schema import SettingsError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Compares what Ansible resolves with the settings schema and the policy."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a failed result that lists every problem, or how many hosts are good."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        # Molecule names one of its own that need not exist; Ansible itself refuses what it cannot read.
        given = context.CLIARGS["inventory"] or ()
        sources = files_of(given) or [Path(source) for source in given if not source.endswith(",")]
        extra = {
            name: value
            for name, value in load_extra_vars(self._loader).items()
            if name not in ("to", "plan", "deployment", "why", "lock")
        }
        hosts = 0
        told: list[str] = []
        try:
            for source in sources:
                fleet = resolve(source, extra)
                require(fleet)
                told += policy.require(fleet)
                hosts += len(fleet.hosts)
        except (InventoryError, SettingsError) as error:
            return {**result, "failed": True, "msg": str(error)}
        for line in told:
            self._display.display(line)
        return {**result, "changed": False, "msg": f"settings of {hosts} hosts are good"}
