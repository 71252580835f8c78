"""Action `plan_baseline`: asks a host once what it is like and tells what the baseline has to do there.

Changes nothing, so it does the same in check mode. Question and plan are those of a pyinfra run
(`deploy/baseline/plan.py`); nothing but a shell is needed on the host.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.baseline import plan as baseline_plan
from deploy.fleet.rendering import by_ansible


class ActionModule(ActionBase):  # type: ignore[misc]
    """Compares the host with what its variables ask for."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `plan` (fields of `baseline_plan.Plan`), the host's `system` and what is wrong with that."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        packages = [str(name) for name in self._task.args["packages"]]
        try:
            files = baseline_plan.managed_files(by_ansible(self._loader, self._templar, known))
        except (AnsibleError, baseline_plan.ReleaseToolMissingError) as error:
            return {**result, "failed": True, "msg": str(error)}
        # By standard input, so that there is no terminal, which would mix output and errors.
        answer = self._low_level_execute_command("sh", in_data=baseline_plan.question(packages).encode())
        if answer["rc"] != 0:
            said = (answer["stderr"] or answer["stdout"]).strip()
            return {**result, "failed": True, "msg": f"the host could not be asked what it is like: {said}"}
        now = baseline_plan.observed(answer["stdout"].splitlines())
        todo = baseline_plan.plan(files, packages, now)
        plan = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(todo).items()
        }
        problem = baseline_plan.system_problem(now.system, packages)
        found = {"system": now.system, "problem": problem, "plan": plan}
        return {**result, "changed": False, **found}
