"""Action `check_step`: what a roll-out checks between its steps, as pyinfra does it.

See deploy/coordination/step_check.py. Runs once for a step's hosts, on the controller; changes nothing. A
failed check is returned as `rollout_failure`, not raised: what was activated has to be put back first. `kept`
is what the next check has to know. Argument `kind`: kind of the step (empty: before the first one).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.coordination.holding import Given
from deploy.coordination.step_check import StepCheck, watch_s
from deploy.fleet.connection import only_connection
from deploy.fleet.inventory import Fleet, file_of
from deploy.rollout.batches import Step, waiting


class ActionModule(ActionBase):  # type: ignore[misc]
    """Looks before the first step, and after the step of the hosts in this batch."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return how the check ended; in check mode, after a failure and without steps there is none."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        plan = known["fleet_plan"]
        every = {name: known["hostvars"][name] for name in known["groups"]["all"]}
        failed = any("release_failure" in of for of in every.values())
        if self._task.check_mode or failed or not plan["steps"]:
            return {**result, "changed": False, "skipped": True}
        steps = [
            Step(one["name"], one["kind"], tuple(one["hosts"]), bool(one["stage_ends"]))
            for one in plan["steps"]
        ]
        # Threads ask the hosts, so they get plain values: Ansible's resolve themselves when read.
        reached = {name: only_connection(of) for name, of in every.items()}
        for hub in known["groups"].get("hub", ()):
            reached[hub] |= {
                name: every[hub][name]
                for name in ("fleet_address", "monitoring_prometheus_port", "monitoring_scrape_interval_s")
            }
        fleet = Fleet(file_of(context.CLIARGS["inventory"]), "", reached, known["groups"])
        variables = known["hostvars"][known["inventory_hostname"]]
        kept = max(
            (of["release_check"] for of in every.values() if "release_check" in of), key=_newer, default=None
        )
        failure = None
        if kept is None:
            unplanned = _unplanned(every, steps)
            if unplanned:
                return {**result, "failed": True, "msg": unplanned}
            check = StepCheck(fleet, variables)
            check.begin(bool(plan["monitored"]), _put_back(every))
        else:
            check = StepCheck.restored(fleet, variables, kept)
            kind, batch = self._task.args["kind"], set(known["ansible_play_batch"])
            done = next(i for i, one in enumerate(steps, 1) if one.kind == kind and batch & set(one.hosts))
            touched = dict.fromkeys(host for one in steps[:done] for host in one.hosts)
            seconds = watch_s(variables, steps[done - 1], last=done == len(steps))
            given = [
                Given(host, str(service), str(generation))
                for host, of in every.items()
                for service, generation in of.get("release_provisional", {}).items()
            ]
            name, ahead = f"step {steps[done - 1].name.strip()}", waiting(steps, done, every)
            failure = check.after(name, tuple(touched), given, seconds, ahead)
        said, check.said = check.said, []
        return {
            **result,
            "changed": False,
            "kept": check.kept(),
            "rollout_said": said,
            "rollout_failure": asdict(failure) if failure is not None else None,
        }


def _put_back(every: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Hosts on which dead runs were settled, which the action `fleet_lock` tells the hosts of its play."""
    told = (of.get("ansible_facts", {}).get("fleet_put_back") for of in every.values())
    return next((tuple(one) for one in told if one), ())


def _newer(kept: Mapping[str, Any]) -> int:
    return int(kept["checks"])


def _unplanned(every: Mapping[str, Mapping[str, Any]], steps: Sequence[Step]) -> str:
    """What is wrong when staging found services in need that no step activates; empty when there are none."""
    placed = {(host, service) for step in steps for host in step.hosts for service in step.services}
    needed = {
        (host, service)
        for host, of in every.items()
        for service, yes in of.get("release_needed", {}).items()
        if yes
    }
    missed = ", ".join(f"{service} of {host}" for host, service in sorted(needed - placed))
    if not missed:
        return ""
    return (
        f"staging changed {missed}, which the plan has no step for: the host was changed since it was asked. "
        "Run again; nothing was activated"
    )
