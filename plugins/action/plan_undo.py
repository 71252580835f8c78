"""Action `plan_undo`: which deployment a rollback of the fleet undoes, where, and whether all fits then.

Runs once, on the controller; changes nothing. Before the hosts are asked it returns `deployment` and the
hosts it concerns; afterwards (argument `asked`: true) `fleet_plan.batches.undo`: the hosts that go back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.fleet.inventory import Fleet
from deploy.rollout import undoing
from deploy.rollout.batches import OrderError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Decides as a pyinfra run does."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what is to be undone, or a failed result that says why nothing can be."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        every = {name: known["hostvars"][name] for name in known["ansible_play_hosts"]}
        statuses = {name: of["release_status"] for name, of in every.items()}
        fleet = Fleet(Path(), "", known["hostvars"], known["groups"])
        try:
            undoing.gives_back(known.get("access"))
            undoing.require_told(fleet, statuses)
            deployment = undoing.chosen(statuses, self._task.args.get("deployment") or None)
            services = undoing.affected(statuses, deployment)
            undoing.require_steps(statuses, services)
            if not self._task.args.get("asked"):
                where = ", ".join(f"{name} ({', '.join(of)})" for name, of in services.items())
                said = [f"undoing deployment {deployment}: {where}"]
                return {
                    **result,
                    "changed": False,
                    "deployment": deployment,
                    "hosts": list(services),
                    "rollout_said": said,
                    "rollout_undoes": deployment,
                }
            answers = {name: json.loads(every[name]["release_undo_answer"]) for name in services}
            undoing.require_fit(fleet, statuses, answers)
            said = [line for name, answer in answers.items() for line in undoing.access_told(name, answer)]
        except (OrderError, undoing.NothingToUndoError) as error:
            return {**result, "failed": True, "msg": str(error)}
        waves = undoing.waves(fleet, list(services))
        batch = {"hosts": [host for wave in waves for host in wave], "serial": [len(wave) for wave in waves]}
        plan = {"batches": {"undo": batch}}
        return {**result, "changed": False, "fleet_plan": plan, "rollout_said": said}
