"""Action `bring_bundles`: one upload to the Hub's release store, from which the hosts fetch what they lack.

Runs once, on the controller, for all hosts of the run. A host that does not get its bundles is no failure:
`stage_generation` uploads them there directly. Skipped in check mode.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.fleet.connection import only_connection
from deploy.remote.release_store import deliver
from deploy.rollout.distribution import store_of
from deploy.rollout.generation import Bundle


class ActionModule(ActionBase):  # type: ignore[misc]
    """Does what `deploy/operations/release.py` does for pyinfra."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `rollout_transfers` and, as a fact, what each host has by now or why it has not."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True}
        known = task_vars or {}
        needs = {
            host: [Bundle(Path(one["path"]), str(one["content"])) for one in of]
            for host, of in known["fleet_plan"]["lacking"].items()
        }
        every = known["hostvars"]
        done = deliver(
            store_of(every, known["groups"]), {host: only_connection(every[host]) for host in needs}, needs
        )
        fetched = {
            host: {"there": list(done.there.get(host, ())), "why": done.why.get(host, "")} for host in needs
        }
        return {
            **result,
            "changed": bool(done.there),
            "rollout_said": done.said,
            "rollout_transfers": [asdict(one) for one in done.transfers],
            "ansible_facts": {"release_fetched": fetched},
        }
