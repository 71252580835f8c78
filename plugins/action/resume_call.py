"""Action `resume_call`: what became of a call of the release tool whose connection was lost.

The tool goes on without its connection. With `generation` (an activation) the host's list of generations says
how it ended, and the call (`argv`) is made again only if the host never heard of it; without, the call is one
that may be made twice, and is made again. Asks over connections of its own until the host answers, or until
`timeout_s`. Returns what `command` returns, and `lost`: whether nobody answered.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.fleet.connection import only_connection
from deploy.remote import resuming, ssh

TIMEOUT_S = 240.0
_EVERY_S = 1.0
_ASK_TIMEOUT_S = 30.0
_LOST: Mapping[str, Any] = {
    "lost": True,
    "error": {
        "message": "the connection was lost and could not be made anew",
        "remedy": "check the host and the network",
    },
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads the answer that was lost, as a pyinfra run does."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `cmd`, `rc`, `stdout` as the lost call would have."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        host = str(known["inventory_hostname"])
        argv = [str(word) for word in self._task.args["argv"]]
        generation = str(self._task.args.get("generation") or "")
        timeout_s = float(self._task.args.get("timeout_s", TIMEOUT_S))
        answer, how = resume(only_connection(known["hostvars"][host]), argv, generation, timeout_s)
        good = "error" not in answer
        return {
            **result,
            "changed": good and bool(answer.get("changed")),
            "cmd": argv,
            "rc": 0 if good else 1,
            "stdout": json.dumps(answer),
            "stderr": "",
            "lost": answer is _LOST,
            "rollout_said": [f"{host}: connection lost in {argv[1]} {argv[2]}; {how}"],
        }


def resume(
    host: Mapping[str, Any], argv: Sequence[str], generation: str, timeout_s: float
) -> tuple[Mapping[str, Any], str]:
    """The answer of the call, and where it comes from."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if generation:
            listed = _answer(ssh.run(host, [ssh.TOOL, "list", argv[2], "--json"], timeout_s=_ASK_TIMEOUT_S))
            found = resuming.answer_of(listed, generation) if "generations" in listed else None
            if found is None:
                time.sleep(_EVERY_S)
                continue
            if found is not resuming.NOT_BEGUN:
                return found, "read from the host"
        reply = ssh.run(host, argv, timeout_s=max(1.0, end - time.monotonic()))
        if reply.status is not None:
            return _answer(reply), "made again"
        time.sleep(_EVERY_S)
    return _LOST, f"the host did not answer for {timeout_s:.0f} s"


def _answer(reply: ssh.Reply) -> dict[str, Any]:
    silent = {"message": reply.why, "remedy": "look at the host's journal"}
    return reply.document or {"error": silent}
