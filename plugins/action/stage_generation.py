"""Action `stage_generation`: puts the wanted generation of `service` beside what runs on a Linux host.

One task for what a host is asked, sent and told: what its release tool has, the bundle if it lacks that
code, the specification. The specification, which carries secrets, is rendered here and goes to standard
input: it is in no argument and in no result. `noted` are facts that the tasks after it need, among them
`release_needed`, `release_staged` and `release_down`. In check mode the release tool only says what it would
do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.fleet.rendering import by_ansible
from deploy.remote import ssh
from deploy.remote.command import tell
from deploy.remote.release_call import document_of
from deploy.remote.upload import script
from deploy.rollout.generation import (
    READ,
    Bundle,
    BundleError,
    Desired,
    code_arguments,
    desired_by,
    missing,
    settled,
)
from deploy.rollout.transfers import CONTROLLER, Transfer


class ActionModule(ActionBase):  # type: ignore[misc]
    """What `deploy/operations/release.py` does for pyinfra: upload, stage."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the release tool's answer in `stdout`, as `host_command` does."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known, service = task_vars or {}, str(self._task.args["service"])
        try:
            want = desired_by(
                by_ansible(self._loader, self._templar, known)(f"release/{service}.json.j2"),
                {name: self._templar.template(known[name]) for name in READ},
            )
        except (AnsibleError, BundleError, ValueError) as error:
            return {**result, "failed": True, "msg": str(error)}
        status: dict[str, Any] = dict(known.get("release_status") or {})
        if not status:
            # The baseline may have brought the release tool.
            told = tell(self._low_level_execute_command, self._addressed(ssh.STATUS, known))
            answer = document_of(told.output)
            if told.status != 0 or answer is None:
                return {**result, "failed": True, "msg": told.said}
            status = answer
        if not status and self._task.check_mode:
            said = f"{service} would be staged and activated: the release tool is not on the host yet"
            return {**result, "changed": True, "msg": said}
        if not status:
            said = "the release tool is not on the host; a deployment without --tags brings it"
            return {**result, "failed": True, "msg": said}
        return {**result, **self._staged(want, status, known)}

    def _staged(self, want: Desired, status: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        service = want.service
        command = [ssh.TOOL, "stage", service, "--json"]
        command += ["--dry-run"] if self._task.check_mode else []
        command += code_arguments(want, status)
        fetched = (known.get("ansible_facts") or {}).get("release_fetched") or {}
        there = fetched.get(known["inventory_hostname"]) or {}
        status["bundles"] = [*status.get("bundles", ()), *there.get("there", ())]
        came: list[dict[str, Any]] = []
        for bundle in () if self._task.check_mode else tuple(missing(want, status)):
            began = time.monotonic()
            problem = self._uploaded(bundle)
            if problem:
                return {"failed": True, "msg": problem}
            status["bundles"] = [*status.get("bundles", ()), bundle.path.name]
            seconds, size = round(time.monotonic() - began, 3), bundle.path.stat().st_size
            host, why = str(known["inventory_hostname"]), str(there.get("why", ""))
            came.append(asdict(Transfer(host, bundle.path.name, CONTROLLER, size, seconds, why=why)))
        called = self._addressed(command, known)
        told = tell(self._low_level_execute_command, called, want.specification)
        # Named, the call is taken into the record, where a run that only looks has none.
        call: dict[str, Any] = {"rollout_transfers": came} if came else {}
        if not self._task.check_mode:
            call |= {"cmd": command, "rc": told.status, "stdout": told.output}
        document = document_of(told.output)
        if told.status != 0 or document is None:
            return {**call, "failed": True, "stderr": told.errors, "msg": told.said}
        now = status.get("services", {}).get(service, {})
        staged = str(document.get("generation") or "")
        down = [unit for unit, state in (now.get("units") or {}).items() if state != "active"]

        def noted(fact: str, value: Any) -> dict[str, Any]:
            return {**(known.get(fact) or {}), service: value}

        return {
            **call,
            "changed": bool(document.get("changed")),
            "noted": {
                "release_status": status,
                "release_needed": noted("release_needed", not settled(now, staged)),
                "release_staged": noted("release_staged", staged),
                "release_down": noted("release_down", down),
            },
        }

    def _addressed(self, command: Sequence[str], known: Mapping[str, Any]) -> list[str]:
        return ssh.of_instance(command, self._templar.template(known.get("fleet_instance", "")))

    def _uploaded(self, bundle: Bundle) -> str:
        """Put the bundle on the host, complete or not at all; return why not."""
        content = bundle.path.read_bytes()
        writing = ["sh", "-c", script(bundle.remote, len(content))]
        told = tell(self._low_level_execute_command, writing, content)
        if told.status == 0:
            return ""
        why = told.unheard or told.errors.strip() or "it failed and gave no reason"
        return f"{bundle.path.name} could not be written to {bundle.remote} on the host: {why}"
