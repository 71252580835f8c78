"""In which steps a roll-out activates: hosts and a strategy in, an ordered list of steps out; pure.

The baseline comes first, on all hosts at once: it touches nothing that trades, and what follows needs the
ports that it opens. Gateways and Inf hosts are separate kinds of step, an Inf host's reconciler and strategy
go together, then the Hub's service, the reviews, and monitoring comes last. Which of the two is first
follows from the protocol versions that run and are wanted, and from the gateways' keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from deploy.fleet.services import SERVICES

ROLLING, CANARY, BLUE_GREEN, ALL_AT_ONCE = "rolling", "canary", "blue_green", "all_at_once"
SHADOW = "shadow"
STRATEGIES = (ROLLING, CANARY, BLUE_GREEN, SHADOW, ALL_AT_ONCE)
BESIDE = frozenset({BLUE_GREEN, SHADOW})
"""In which a new generation first stands by beside what runs."""

BASELINE, GATEWAY, INF, HUB, MONITORING = "baseline", "gateway", "inf", "hub", "monitoring"
KINDS: Mapping[str, tuple[str, ...]] = {
    kind: tuple(service.name for service in SERVICES if service.kind == kind)
    for kind in dict.fromkeys(service.kind for service in SERVICES)
}
"""Kind of step → the services it activates on a host, in this order."""

AFTERWARDS = tuple(kind for kind in KINDS if kind not in (BASELINE, GATEWAY, INF))
"""Kinds that trading does not notice, in their order; after all others, each on all its hosts at once."""

GROUP_OF: Mapping[str, str] = {service.kind: service.group for service in SERVICES}
"""Kind of step → inventory group whose hosts have its services."""


@dataclass(frozen=True)
class Policy:
    """How a fleet is rolled out; the settings `fleet_…` of the same names."""

    strategy: str = ROLLING
    canary_steps: tuple[int, ...] = (5, 20, 50, 100)
    max_unavailable_percent: int = 25


@dataclass(frozen=True)
class Step:
    """Hosts that are activated together. `stage_ends`: a canary stage is complete, so its pause begins."""

    name: str
    kind: str
    hosts: tuple[str, ...]
    stage_ends: bool = False

    @property
    def services(self) -> tuple[str, ...]:
        """What is activated on each host, in order."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Spoken:
    """Protocol versions of a release: it understands `least` to `most` and speaks `most` itself."""

    least: int
    most: int


@dataclass(frozen=True)
class Link:
    """An Inf host and its gateway: what each speaks now and will speak (None: not known, nothing runs).

    new_key: the gateway gets a key that what runs there does not take.
    """

    inf: str
    gateway: str
    inf_now: Spoken | None
    inf_then: Spoken | None
    gateway_now: Spoken | None
    gateway_then: Spoken | None
    new_key: bool = False


class OrderError(ValueError):
    """No order keeps gateway and Inf able to talk; the text names the hosts, the versions and the remedy."""


def steps(
    policy: Policy,
    members: Mapping[str, Sequence[str]],
    busy: Mapping[str, Iterable[str]],
    order: Sequence[str] = (GATEWAY, INF),
) -> tuple[Step, ...]:
    """The steps of a roll-out, in order; none when no host has anything to do.

    members: kind → every host of it in this run, in the inventory's order. busy: kind → those with something
    to activate. order: which of gateway and inf comes first (`order_of`).
    """

    def at_once_everywhere(kind: str) -> Iterator[tuple[str, tuple[str, ...], bool]]:
        wanted = set(busy.get(kind, ()))
        if wanted:
            yield kind, tuple(host for host in members.get(kind, ()) if host in wanted), False

    made = list(at_once_everywhere(BASELINE))
    for kind in order:
        wanted = set(busy.get(kind, ()))
        hosts = [host for host in members.get(kind, ()) if host in wanted]
        made += [(kind, batch, ends) for batch, ends in _batches(policy, hosts, len(members.get(kind, ())))]
    for kind in AFTERWARDS:
        made += at_once_everywhere(kind)
    width = len(str(len(made)))
    return tuple(
        Step(f"{number:>{width}}/{len(made)} {_shown(hosts)}", kind, hosts, ends)
        for number, (kind, hosts, ends) in enumerate(made, 1)
    )


def waiting(steps: Sequence[Step], done: int, hosts: Iterable[str]) -> frozenset[str]:
    """Of which hosts trading is not as it will be after the first `done` steps.

    Those whose gateway, reconciler or strategy has its step yet, and while any has, those without a step.
    """
    later = [step for step in steps[done:] if step.kind not in AFTERWARDS]
    been = {host for step in steps[:done] for host in step.hosts}
    ahead = {host for step in later for host in step.hosts}
    return frozenset(ahead | (set(hosts) - been if later else set()))


def _shown(hosts: Sequence[str]) -> str:
    """`inf-01, inf-02`, or `inf-01 … inf-10 (10)`: a step's hosts on one line of the narration."""
    if len(hosts) <= 2:
        return ", ".join(hosts)
    return f"{hosts[0]} … {hosts[-1]} ({len(hosts)})"


def _batches(policy: Policy, hosts: Sequence[str], of: int) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Hosts in batches, each with whether a stage of the strategy ends with it. `of`: hosts in all."""
    if policy.strategy == ALL_AT_ONCE:
        if hosts:
            yield tuple(hosts), False
        return
    most = at_once(of, policy.max_unavailable_percent)
    percentages = policy.canary_steps if policy.strategy == CANARY else (100,)
    done = 0
    for percentage in percentages:
        until = ceil(len(hosts) * percentage / 100)
        for first in range(done, until, most):
            last = min(first + most, until)
            yield tuple(hosts[first:last]), policy.strategy == CANARY and last == until
        done = max(done, until)


def at_once(hosts: int, max_unavailable_percent: int) -> int:
    """How many of `hosts` may be down together: the percentage, at least one, and never all of several."""
    allowed = max(1, hosts * max_unavailable_percent // 100)
    return min(allowed, hosts - 1) if hosts > 1 else 1


def serial(of: Iterable[Step]) -> list[int]:
    """The sizes of the steps, for Ansible's `serial`."""
    return [len(step.hosts) for step in of]


def understood(client: Spoken | None, server: Spoken | None) -> bool:
    """Whether a gateway understands what a client speaks; what is not known is not judged."""
    return client is None or server is None or server.least <= client.most <= server.most


def fit(links: Iterable[Link]) -> None:
    """OrderError unless every Inf host and its gateway understand each other once all is done."""
    for link in links:
        if not understood(link.inf_then, link.gateway_then):
            raise OrderError(
                f"{link.inf} will speak protocol {_version(link.inf_then)}, which the gateway "
                f"{link.gateway} will not understand (it accepts {_range(link.gateway_then)}); deploy both "
                "from one bundle. Nothing was changed"
            )


def order_of(links: Iterable[Link]) -> tuple[str, str]:
    """Which kind goes first, so that every Inf host can talk to its gateway at each moment.

    The gateway, unless its new version does not understand what still runs on the Inf hosts, or has a key
    that they do not take; then the Inf hosts, which take both keys, if the old gateway understands them. If
    it does not, a new key cuts them off until their own step.
    Raises OrderError when neither order works, or the versions do not fit once all is done.
    """
    links = list(links)
    fit(links)
    # Between the two, the first kind is new and the second still old.
    between = {
        GATEWAY: [link for link in links if not understood(link.inf_now, link.gateway_then)],
        INF: [link for link in links if not understood(link.inf_then, link.gateway_now)],
    }
    if not between[GATEWAY] and not any(link.new_key for link in links):
        return GATEWAY, INF
    if not between[INF]:
        return INF, GATEWAY
    if not between[GATEWAY]:
        return GATEWAY, INF
    new, old = between[GATEWAY][0], between[INF][0]
    raise OrderError(
        f"neither order works: the new gateway on {new.gateway} accepts protocol "
        f"{_range(new.gateway_then)} and {new.inf} speaks {_version(new.inf_now)} until it is deployed; the "
        f"gateway that runs on {old.gateway} accepts {_range(old.gateway_now)} and {old.inf} would speak "
        f"{_version(old.inf_then)}. First deploy a release in between, whose gateway accepts both versions. "
        "Nothing was changed"
    )


def _version(spoken: Spoken | None) -> str:
    return "an unknown version" if spoken is None else str(spoken.most)


def _range(spoken: Spoken | None) -> str:
    if spoken is None:
        return "unknown versions"
    return str(spoken.least) if spoken.least == spoken.most else f"{spoken.least} to {spoken.most}"
