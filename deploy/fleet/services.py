"""The services of a fleet: one list, from which the order, the steps and the parts of the settings follow."""

from __future__ import annotations

from typing import NamedTuple

MACHINES = "machines"
"""The group of all hosts but further instances on a machine; `Fleet.in_group` knows it, Ansible does not."""


class Entry(NamedTuple):
    """A service: the kind of step that activates it, and the inventory group whose hosts have it.

    Services of one kind are activated together on a host, so they have the same group. bound_to: it restarts
    whenever that service of its host does (`BindsTo=` in its unit).
    """

    name: str
    kind: str
    group: str
    bound_to: str = ""


SERVICES = (
    Entry("baseline", kind="baseline", group=MACHINES),
    Entry("gateway", kind="gateway", group="gateway"),
    Entry("reconciler", kind="inf", group="inf"),
    Entry("strategy", kind="inf", group="inf", bound_to="reconciler"),
    Entry("hub", kind="hub", group="hub"),
    Entry("review", kind="review", group="review"),
    Entry("monitoring", kind="monitoring", group=MACHINES),
)
"""In the order in which they are activated; they are put back in the opposite one."""
NAMES = tuple(service.name for service in SERVICES)
