"""The controller's half of the modelled win_copy: brings a local file to the host, as the real one does."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Copies ``src`` from the controller; ``content`` travels with the module's arguments."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("src") and not arguments.get("remote_src"):
            try:
                source = self._loader.get_real_file(self._find_needle("files", arguments["src"]))
            except AnsibleError as error:
                return {**result, "failed": True, "msg": str(error)}
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "source")
            arguments["src"] = self._transfer_file(source, remote)
        answer: dict[str, Any] = self._execute_module(
            module_name="ansible.windows.win_copy", module_args=arguments, task_vars=task_vars
        )
        return {**result, **answer}
