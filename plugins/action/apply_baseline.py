"""Action `apply_baseline`: does one part of a host's baseline plan: `layout`, `account` or `notice`.

`plan` is what `plan_baseline` has returned. The steps are those of a pyinfra run
(`deploy/baseline/steps.py`); nothing but a shell is needed on the host. Check mode names what would be done;
with --diff files are shown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.baseline import plan as baseline_plan
from deploy.baseline import steps
from deploy.baseline.host_files import ManagedFile
from deploy.fleet.rendering import by_ansible
from deploy.remote.command import tell


class ActionModule(ActionBase):  # type: ignore[misc]
    """One command a step; the first that fails ends it."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was done, or would be, in `done`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        plan, part = baseline_plan.Plan(**self._task.args["plan"]), str(self._task.args["part"])
        files: tuple[ManagedFile, ...] = ()
        if part == "layout":
            try:
                render = by_ansible(self._loader, self._templar, task_vars or {})
                files = baseline_plan.managed_files(render)
            except (AnsibleError, baseline_plan.ReleaseToolMissingError) as error:
                return {**result, "failed": True, "msg": str(error)}
            todo = steps.layout(plan, files)
        else:
            todo = steps.account(plan) if part == "account" else steps.notice(plan)
        result |= {"changed": bool(todo), "done": [step.what for step in todo]}
        if self._task.diff:
            result["diff"] = [self._compared(file) for file in files if file.path in plan.files]
        if self._task.check_mode:
            return {**result, "msg": f"would bring: {', '.join(result['done'])}"}
        for step in todo:
            told = tell(self._low_level_execute_command, ["sh", "-c", step.script], step.stdin)
            if told.status != 0:
                why = told.unheard or (told.errors or told.output).strip() or "it gave no reason"
                return {**result, "failed": True, "rc": told.status, "msg": f"{step.what}: {why}"}
        return result

    def _compared(self, file: ManagedFile) -> dict[str, str]:
        now = tell(self._low_level_execute_command, ["cat", "--", file.path])
        before = now.output if now.status == 0 else ""
        try:
            after = file.content.decode()
        except UnicodeDecodeError:
            return {"before_header": file.path, "after_header": file.path, "dst_binary": "1"}
        return {"before_header": file.path, "after_header": file.path, "before": before, "after": after}
