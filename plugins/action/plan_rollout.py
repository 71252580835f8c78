"""Action `plan_rollout`: the steps of this run, from what every host has said of itself; nothing is changed.

Runs once, on the controller. Returns `rollout_plan`: `id`, `strategy`, `steps`, `batches` (kind of step → its
hosts in order and the sizes of the steps, for `hosts` and `serial`), `busy` (service → hosts), `lacking`
(host → bundles), `foretold` (host → service → what it does with it), `in_service` (hosts to back up first),
`both_keys` (hosts that take their gateway's former key, too), `shadows` (host → terms of its shadow stage, as
arguments), `watched_s`.
In check mode the plan is kept; with `plan` among the extra variables the run is refused unless the kept plan
still fits.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.coordination.step_check import watched_s
from deploy.fleet.inventory import WINDOWS, Fleet, InventoryError, file_of, resolve
from deploy.fleet.rendering import RenderingError
from deploy.fleet.services import NAMES
from deploy.remote import holdings
from deploy.rollout import distribution
from deploy.rollout import plan as plans
from deploy.rollout.batches import GATEWAY, INF, KINDS, OrderError, serial
from deploy.rollout.generation import BundleError
from deploy.rollout.plan import Plan, PlanError
from deploy.rollout.record import DEPLOYMENT


class ActionModule(ActionBase):  # type: ignore[misc]
    """Makes the same plan that a pyinfra run makes."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan as a fact and in lines, or a failed result that says why there is none."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        settings = dict(load_extra_vars(self._loader))
        named = settings.pop("plan", None)
        try:
            fleet = resolve(file_of(context.CLIARGS["inventory"]), settings)
            asked = {
                name: known["hostvars"][name].get("release_status") for name in known["ansible_play_hosts"]
            }
            seen = {name: asked[name] for name in fleet.hosts if asked.get(name) is not None}
            made = plans.make(fleet, seen, services_of(known))
            if named:
                plans.require_unmoved(str(named), made)
        except (BundleError, InventoryError, OrderError, PlanError, RenderingError) as error:
            return {**result, "failed": True, "msg": str(error)}
        if self._task.check_mode:
            plans.save(made)
        found = {
            "id": made.id,
            "deployment": os.environ.get(DEPLOYMENT, ""),
            "strategy": made.strategy,
            "monitored": made.monitored(fleet.in_group("hub")),
            "batches": batches(made),
            "busy": busy(made, fleet),
            "foretold": plans.foretold(made),
            "in_service": list(made.in_service),
            "standing_by": made.standing_by,
            "both_keys": made.both_keys,
            "shadows": {host: terms.arguments for host, terms in made.shadows.items()},
            "steps": made.document()["steps"],
            "lacking": {
                host: [{"path": str(bundle.path), "content": bundle.content} for bundle in of]
                for host, of in distribution.needs_of(made, fleet).items()
            },
            "watched_s": watched_s(made.steps, fleet.hosts[next(iter(seen))]),
        }
        said = plans.beside(seen)
        if made.steps or self._task.check_mode:
            consequences = holdings.consequences_of(made, seen, fleet.inventory)
            said = [*plans.shown(made), *distribution.told(made, fleet), *consequences, *said]
        return {**result, "changed": False, "rollout_plan": found, "rollout_said": said}


def busy(made: Plan, fleet: Fleet) -> dict[str, list[str]]:
    """Service → hosts on which the plan has something to do for it.

    A Windows gateway is always among them: what is beside its generation there (service, task, firewall) is
    looked at where it is staged.
    """
    found: dict[str, list[str]] = {}
    for (host, service), work in made.work.items():
        if not work.todo.nothing or host in fleet.in_group(WINDOWS):
            found.setdefault(service, []).append(host)
    return found


def services_of(known: dict[str, Any]) -> list[str]:
    """The services that the tags of this run choose."""
    chosen, left_out = set(known.get("ansible_run_tags", ["all"])), set(known.get("ansible_skip_tags", ()))
    everything = bool(chosen & {"all", "tagged"})
    return [name for name in NAMES if (everything or name in chosen) and name not in left_out]


def batches(made: Plan) -> dict[str, dict[str, Any]]:
    """Kind of step → its hosts in order and the sizes of its steps.

    `inf_first` has them instead of `inf` when the versions ask for the Inf hosts before the gateway.
    """
    of = {kind: [step for step in made.steps if step.kind == kind] for kind in KINDS}
    kinds = [step.kind for step in made.steps]
    of["inf_first"] = []
    if GATEWAY in kinds and INF in kinds and kinds.index(INF) < kinds.index(GATEWAY):
        of["inf_first"], of[INF] = of[INF], []
    return {
        kind: {"hosts": [host for step in steps for host in step.hosts], "serial": serial(steps)}
        for kind, steps in of.items()
    }
