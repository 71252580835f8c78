"""Filter `fleet_step`: which hosts a play is for, in which order and how many at a time.

    hosts: "{{ (hostvars | default({}) | fleet_step('inf')).hosts }}"

`plan_rollout` or `plan_undo` has noted it on every host of the run; before that, and for a kind that has
nothing to do, the play has no host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NOBODY = {"hosts": "all:!all", "serial": [1]}
"""A play needs a pattern and a size also when it has no host."""


def fleet_step(hostvars: Mapping[str, Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    """`hosts` and `serial` of a kind of step: `gateway`, `inf`, `inf_first`, `monitoring`, `undo`."""
    for variables in hostvars.values():
        if "fleet_plan" in variables:
            batches: Mapping[str, Mapping[str, Any]] = variables["fleet_plan"]["batches"]
            return batches[kind] if batches[kind]["hosts"] else NOBODY
    return NOBODY


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name → function."""
        return {"fleet_step": fleet_step}
