"""Action `host_command`: runs a command line on a Linux host (`argv`, `stdin`), without Python there.

Otherwise as `ansible.builtin.command`, whose module brings dozens of sources that the host's Python
compiles at every call. Returns `cmd`, `rc`, `stdout`, `stderr`; a status other than 0 is a failure; skipped
in check mode.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.remote.command import tell
from deploy.remote.ssh import of_instance


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the words as they are: no shell expands them."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the command answered."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        instance = self._templar.template((task_vars or {}).get("fleet_instance", ""))
        argv = of_instance([str(word) for word in self._task.args["argv"]], instance)
        stdin = self._task.args.get("stdin")
        if self._task.check_mode:
            said = "Command would have run if not in check mode"
            return {**result, "changed": False, "skipped": True, "cmd": argv, "msg": said}
        told = tell(self._low_level_execute_command, argv, None if stdin is None else str(stdin))
        if told.unheard:
            return {**result, "failed": True, "cmd": argv, "rc": told.status, "msg": told.unheard}
        failed = {"failed": True, "msg": "non-zero return code"} if told.status != 0 else {"msg": ""}
        return {
            **result,
            **failed,
            "changed": True,
            "cmd": argv,
            "rc": told.status,
            "stdout": told.output.rstrip("\n"),
            "stdout_lines": told.output.splitlines(),
            "stderr": told.errors.rstrip("\r\n"),
            "stderr_lines": told.errors.splitlines(),
        }
