"""The changes of a fleet's life: how each is described, what has to restart for it, whether it goes back.

The fleet that they are made for has `inf-01` and `inf-02` in its inventory; the lab has an `inf-03` too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from lab.handle import Lab
from lab.plan import Plan
from tests.lab.lifecycle import other_bundle
from tests.lab.lifecycle.description import Description

Member = tuple[str, str]
"""(host, service)"""

HUB, GATEWAY, FIRST, LAST, SPARE = "hub-01", "gtw-01", "inf-01", "inf-02", "inf-03"
TRADING = ("gateway", "reconciler", "strategy")
SECOND_CONTROLLER = "203.0.113.9"
OTHER_OFFSET = 60
"""Added to the last part of a host's address when it moves."""


class Back(Enum):
    """What a rollback of the fleet (`part=fleet`) takes back of a change; docs/rollout.md says the same."""

    WHOLE = "all of it"
    """Everything runs again as before."""
    KEEPS_ACCESS = "all but access"
    """Code and settings go back; who may do what stays as it was changed, until the next deployment."""
    OTHERS = "the other hosts"
    """Refused while a host is in the inventory that was not there before; like `KEEPS_ACCESS` without it."""
    WITH_ACCESS = "all of it, with `access=back`"
    """Refused without this word, since a key was replaced."""
    NOTHING = "nothing"
    """No generation holds it: the rollback has nothing to take back."""


@dataclass(frozen=True)
class Change:
    """One change.

    describe: writes it into the description. restarts: services of the trading hosts whose process is
    another one afterwards, on hosts that are members before and after. live: those that take another
    generation over without a restart. prepare: what people do on
    the machines before; undo: takes that back. takes: it takes access away, also when it fails.
    """

    name: str
    describe: Callable[[Description], None]
    restarts: frozenset[Member]
    back: Back = Back.WHOLE
    live: frozenset[Member] = frozenset()
    takes: bool = False
    prepare: Callable[[Lab], None] = lambda _lab: None
    undo: Callable[[Lab], None] = lambda _lab: None

    def make(self, description: Description, lab: Lab | None = None) -> None:
        """Describe it and write the description, once the machines of a lab are prepared."""
        if lab is not None:
            self.prepare(lab)
        self.describe(description)
        description.write()


def _of(hosts: Collection[str], *services: str) -> frozenset[Member]:
    return frozenset((host, service) for host in hosts for service in services)


_AT_GATEWAY = _of([GATEWAY], "gateway")
_BOTH = (FIRST, LAST)
_ALL = _AT_GATEWAY | _of(_BOTH, "reconciler", "strategy")


def _add(description: Description) -> None:
    known = {host.name for host in description.plan.hosts}
    spare = description.directory.load()
    hosts = () if spare is None else spare.hosts
    description.add(next(host for host in hosts if host.group == "inf" and host.name not in known))


BESIDE = f"{LAST}-trend"
"""A further Inf on the machine of the last."""


def _add_beside(description: Description) -> None:
    description.set_on(LAST, strategy_memory_percent=40)
    description.set_on(BESIDE, strategy_memory_percent=40, fleet_instance="trend", fleet_port_offset=100)
    description.add(replace(description.plan.host(LAST), name=BESIDE))


def other_address(plan: Plan, name: str) -> str:
    """Where a host moves to."""
    return str(ipaddress.IPv4Address(plan.host(name).address) + OTHER_OFFSET)


_RENUMBER = """
set -eu
ip address flush dev eth0 scope global
for address; do ip address add "$address/24" dev eth0; done
ip route replace default via "$0" dev eth0
"""


def _renumbered(host: str, *, moved: bool) -> Callable[[Lab], None]:
    """A host has both addresses, as while it moves: first, and so for what it sends, the one to have."""

    def act(lab: Lab) -> None:
        own, other = lab.plan.host(host).address, other_address(lab.plan, host)
        addresses = (other, own) if moved else (own, other)
        lab.exec(host, ["sh", "-c", _RENUMBER, lab.plan.controller_address, *addresses])

    return act


def _settings(**values: Any) -> Callable[[Description], None]:
    return lambda description: description.set(**values)


def _second_controller(description: Description) -> None:
    sources = description.value(GATEWAY, "baseline_ssh_sources")
    description.set(baseline_ssh_sources=[*sources, SECOND_CONTROLLER])


def _operator(description: Description) -> None:
    guest = {
        "name": "guest",
        "key": description.value(GATEWAY, "fleet_client_public_keys")["ops"][::-1],
        "permissions": ["observe"],
        "magics": [],
    }
    description.set(fleet_operators=[*description.value(GATEWAY, "fleet_operators"), guest])


def _no_operator(description: Description) -> None:
    description.set(fleet_operators=[])


def _limits(**values: Any) -> Callable[[Description], None]:
    def describe(description: Description) -> None:
        description.set_on(LAST, fleet_limits={**description.value(LAST, "fleet_limits"), **values})

    return describe


def _second_signer(description: Description) -> None:
    other = description.directory.key_file.with_suffix(".pub").read_text().strip()
    description.set(baseline_release_signers=[*description.value(FIRST, "baseline_release_signers"), other])


def _other_signer(description: Description) -> None:
    """As after `secrets rotate signing`: the bundle is signed by the new key, the old one counts no more."""
    description.set(
        baseline_release_signers=[other_bundle.other_signer_public(description.directory)],
        fleet_bundle=other_bundle.signed_by_the_other(description.directory),
    )


def _dependency(description: Description) -> None:
    description.set(fleet_bundle=other_bundle.with_a_dependency(description.directory))


PACKAGE = "tree"
"""A small Debian package that nothing needs."""


def _package(description: Description) -> None:
    description.set(baseline_packages=[*description.value(HUB, "baseline_packages"), PACKAGE])


def _no_package(lab: Lab) -> None:
    for host in lab.plan.hosts:
        lab.exec(host.name, ["dpkg", "--purge", PACKAGE], check=False)


def _plain_door(description: Description) -> None:
    address = description.directory.require().host(SPARE).address
    description.set_on(
        GATEWAY,
        gateway_legacy_port=5655,
        gateway_legacy_pub_port=5656,
        gateway_legacy={"old": {"address": address, "permissions": ["observe"], "magics": []}},
    )


CHANGES = (
    Change("add an Inf", _add, _AT_GATEWAY, Back.OTHERS),
    Change("add an Inf on a machine", _add_beside, _of([LAST], "strategy"), Back.OTHERS, live=_AT_GATEWAY),
    Change("remove an Inf", lambda d: d.remove(LAST), _AT_GATEWAY, Back.KEEPS_ACCESS, takes=True),
    Change(
        "move an Inf",
        lambda d: d.move(LAST, other_address(d.plan, LAST)),
        _AT_GATEWAY | _of([LAST], "reconciler", "strategy"),
        prepare=_renumbered(LAST, moved=True),
        undo=_renumbered(LAST, moved=False),
    ),
    Change("second controller", _second_controller, _AT_GATEWAY),
    Change("gateway ports", _settings(gateway_port=5565, gateway_pub_port=5566), _ALL),
    Change(
        "client key",
        lambda d: d.rotate(f"{LAST}-strategy"),
        _of([LAST], "strategy"),
        Back.WITH_ACCESS,
        live=_AT_GATEWAY,
    ),
    Change("server key", lambda d: d.rotate(GATEWAY), _ALL),
    Change("second release signer", _second_signer, frozenset(), Back.NOTHING),
    Change(
        "other release signer",
        _other_signer,
        frozenset(),
        Back.NOTHING,
        prepare=lambda lab: other_bundle.make_signed_by_the_other(lab.directory),
    ),
    Change(
        "bundle with a new dependency",
        _dependency,
        _ALL,
        prepare=lambda lab: other_bundle.make_with_a_dependency(lab.directory),
    ),
    Change("Debian package", _package, frozenset(), Back.NOTHING, undo=_no_package),
    Change("legacy adapter", _plain_door, _AT_GATEWAY, Back.KEEPS_ACCESS),
    Change("add an operator", _operator, frozenset(), Back.KEEPS_ACCESS, live=_AT_GATEWAY),
    Change(
        "remove the operators", _no_operator, frozenset(), Back.KEEPS_ACCESS, live=_AT_GATEWAY, takes=True
    ),
    Change(
        "tighter limits",
        _limits(max_order_volume=0.05),
        frozenset(),
        Back.KEEPS_ACCESS,
        live=_AT_GATEWAY,
        takes=True,
    ),
    Change(
        "looser limits",
        _limits(max_order_volume=0.2),
        frozenset(),
        Back.KEEPS_ACCESS,
        live=_AT_GATEWAY,
    ),
    Change(
        "magic number",
        lambda d: d.set_on(LAST, fleet_magic_number=880002),
        _of([LAST], "reconciler", "strategy"),
        live=_AT_GATEWAY,
    ),
    Change("log level", _settings(reconciler_log_level="DEBUG"), frozenset(), live=_of(_BOTH, "reconciler")),
    Change("kernel setting", _settings(baseline_sysctl={"net.ipv4.tcp_keepalive_time": "50"}), frozenset()),
    Change("sandbox", _settings(strategy_memory_percent=40), _of(_BOTH, "strategy")),
    Change(
        "metrics port",
        _settings(reconciler_metrics_port=9202),
        _of(_BOTH, "reconciler", "strategy"),
    ),
    Change(
        "move the gateway",
        lambda d: d.move(GATEWAY, other_address(d.plan, GATEWAY)),
        _ALL,
        prepare=_renumbered(GATEWAY, moved=True),
        undo=_renumbered(GATEWAY, moved=False),
    ),
)
BY_NAME = {change.name: change for change in CHANGES}
