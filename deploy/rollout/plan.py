"""What a roll-out is going to do: wanted generations, what runs now, the steps between.

Both engines make it from the same values, so they take the same steps. A run that only looks keeps its plan;
a run that names the plan's id is refused when the fleet, or what is wanted, has moved since. Only `save` and
`load` touch the disk; nothing here talks to a host.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.fleet.services import NAMES
from deploy.fleet.settings import OF_THE_WHOLE_FLEET, variables_of
from deploy.fleet.vault_password import PROJECT
from deploy.rollout.batches import (
    BASELINE,
    BESIDE,
    GROUP_OF,
    INF,
    KINDS,
    MONITORING,
    SHADOW,
    Link,
    Policy,
    Spoken,
    Step,
    order_of,
    steps,
)
from deploy.rollout.generation import Desired, Shadow, Todo, decide, desired, drop_ins, not_as_staged
from deploy.rollout.review import require

PLANS = PROJECT / "reports" / "plans"
FORMAT = 1
NOTHING = "nothing"
_SHORT = 12


class PlanError(ValueError):
    """A plan that cannot be made or applied; the text names cause and remedy, and nothing was changed."""


@dataclass(frozen=True, repr=False)
class Work:
    """What one service of one host is to run and what has to be done for it. Holds secrets."""

    want: Desired
    todo: Todo

    @property
    def busy(self) -> bool:
        """Whether the service is activated or started."""
        return self.todo.activate or bool(self.todo.start)


@dataclass(frozen=True)
class Plan:
    """A roll-out before it begins.

    wanted: host → service → digest of the generation that is to run. observed: host → service → what runs
    now. settings: host → digest of the settings that no generation holds. Its id follows from all of it.
    """

    environment: str
    strategy: str
    steps: tuple[Step, ...]
    wanted: Mapping[str, Mapping[str, str]]
    observed: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, str]
    work: Mapping[tuple[str, str], Work] = field(default_factory=dict, repr=False, compare=False)

    @property
    def in_service(self) -> tuple[str, ...]:
        """Hosts of the steps on which something runs already, so that there is something to lose."""
        hosts = dict.fromkeys(host for step in self.steps for host in step.hosts)
        return tuple(
            host for host in hosts if any(now != NOTHING for now in self.observed.get(host, {}).values())
        )

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits; the same for the same plan."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()[:_SHORT]

    def document(self) -> dict[str, Any]:
        """Plain values; no secret is among them."""
        return {
            "format": FORMAT,
            "environment": self.environment,
            "strategy": self.strategy,
            "steps": [
                {
                    "name": step.name,
                    "kind": step.kind,
                    "hosts": list(step.hosts),
                    "stage_ends": step.stage_ends,
                }
                for step in self.steps
            ],
            "wanted": {host: dict(of) for host, of in self.wanted.items()},
            "observed": {host: dict(of) for host, of in self.observed.items()},
            "settings": dict(self.settings),
        }

    @property
    def standing_by(self) -> tuple[str, ...]:
        """Services whose new generation stands by first and is compared with what runs."""
        if self.strategy not in BESIDE:
            return ()
        return tuple(dict.fromkeys(name for (_, name), work in self.work.items() if work.want.stands_by))

    @property
    def shadows(self) -> Mapping[str, Shadow]:
        """Hosts on which a new strategy first runs in the shadow of the old one, and on what terms."""
        if self.strategy != SHADOW:
            return {}
        return {
            host: work.want.shadow
            for (host, _), work in self.work.items()
            if work.want.shadow is not None and work.todo.activate
        }

    @property
    def both_keys(self) -> tuple[str, ...]:
        """Hosts whose services take their gateway's former key, too, until they are confirmed."""
        return tuple(dict.fromkeys(host for (host, _), work in self.work.items() if work.want.both_keys))

    def monitored(self, hubs: Collection[str]) -> bool:
        """Whether a Prometheus is there to be asked; also assumed of a Hub that this run does not look at."""
        return any(self.observed.get(hub, {}).get("monitoring") != NOTHING for hub in hubs)

    def touched(self, until: Step) -> tuple[str, ...]:
        """Hosts that are activated once the step `until` is done."""
        reached = self.steps[: self.steps.index(until) + 1]
        return tuple(dict.fromkeys(host for step in reached for host in step.hosts))


def policy_of(variables: Mapping[str, Any]) -> Policy:
    """How to roll out, from the settings `fleet_…`."""
    return Policy(
        str(variables["fleet_strategy"]),
        tuple(variables["fleet_canary_steps"]),
        int(variables["fleet_max_unavailable_percent"]),
    )


def wanted(
    fleet: Fleet, hosts: Iterable[str], services: Collection[str] = NAMES
) -> dict[tuple[str, str], Desired]:
    """(host, service) → what it is to run, of these hosts as ordered. BundleError without a bundle."""
    return {
        (host, service): desired(service, fleet.hosts[host])
        for host in hosts
        for service in services
        if has_service(fleet, host, service)
    }


def make(
    fleet: Fleet,
    statuses: Mapping[str, Mapping[str, Any]],
    services: Collection[str] = NAMES,
    policy: Policy | None = None,
    wants: Mapping[tuple[str, str], Desired] | None = None,
) -> Plan:
    """The plan for the hosts whose release tool's status is given (`{}`: no tool there yet).

    services: the parts this run is for. policy: instead of the settings'. wants: what `wanted` says of all
    these services, by who has asked it already. Raises OrderError when gateway and Inf could not talk on the
    way, BundleError when there is no bundle, or hosts would refuse it.
    """
    hosts = [host for host in fleet.hosts if host in statuses]
    chosen = policy or policy_of(fleet.hosts[hosts[0]])
    work: dict[tuple[str, str], Work] = {}
    for (host, service), want in (wants or wanted(fleet, hosts, services)).items():
        if host in statuses:
            todo = decide(want, statuses[host])
            if todo.stage:
                require(host, want, fleet.hosts[host])
            work[host, service] = Work(want, todo)
    members = {
        kind: [host for host in hosts if host in fleet.in_group(group)] for kind, group in GROUP_OF.items()
    }
    busy = {
        kind: [
            host
            for host in members[kind]
            if any(work[host, name].busy for name in names if (host, name) in work)
        ]
        for kind, names in KINDS.items()
    }
    links = tuple(_links(fleet, statuses, work))
    order = order_of(link for _, link in links)
    for of, link in links:
        if link.new_key and order[0] == INF:
            work[of] = replace(work[of], want=replace(work[of].want, both_keys=True))
    return Plan(
        fleet.environment,
        chosen.strategy,
        steps(chosen, members, busy, order),
        {host: {name: made.want.digest for (of, name), made in work.items() if of == host} for host in hosts},
        {
            host: {name: _running(statuses[host], name) for name in NAMES if has_service(fleet, host, name)}
            for host in hosts
        },
        {host: settings_digest(fleet.hosts[host]) for host in hosts},
        work,
    )


def foretold(made: Plan) -> dict[str, dict[str, str]]:
    """Host → service → what a run that only looks says that the plan does with it."""
    told: dict[str, dict[str, str]] = {}
    for (host, service), work in made.work.items():
        told.setdefault(host, {})[service] = work.todo.foretold
    return told


def beside(seen: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What hosts have of others that changes how services run, in lines: no deployment takes it away."""
    return [
        f"  {host}: {service}: {told}; `systemctl revert` removes them"
        for host, status in seen.items()
        for service, now in sorted(status.get("services", {}).items())
        if (told := drop_ins(now))
    ]


def has_service(fleet: Fleet, host: str, service: str) -> bool:
    """Whether a service belongs on a host, by its groups."""
    kind = next(kind for kind, names in KINDS.items() if service in names)
    if kind in (BASELINE, MONITORING) and host in fleet.in_group(WINDOWS):
        return False
    return host in fleet.in_group(GROUP_OF[kind])


def _running(status: Mapping[str, Any], service: str) -> str:
    """`0003-0123456789ab confirmed`, or NOTHING."""
    now = status.get("services", {}).get(service, {})
    if not now.get("current"):
        return NOTHING
    damage = f", {not_as_staged(now)}" if now.get("intact") is False else ""
    return f"{now['current']} {now.get('state')}{damage}"


def _links(
    fleet: Fleet, statuses: Mapping[str, Mapping[str, Any]], work: Mapping[tuple[str, str], Work]
) -> Iterator[tuple[tuple[str, str], Link]]:
    """(host, service) of every Inf host of the run with its link to the gateway, if both are looked at."""
    for host in statuses:
        gateway = fleet.hosts[host].get("fleet_gateway")
        if host not in fleet.in_group(INF) or gateway not in statuses:
            continue
        its = work.get((str(gateway), "gateway"))
        key = fleet.hosts[host].get("fleet_gateway_public_keys", {}).get(gateway)
        for service in KINDS[INF]:
            own = work.get((host, service))
            known = statuses[host].get("services", {}).get(service, {}).get("server_key")
            yield (
                (host, service),
                Link(
                    f"{service} of {host}",
                    str(gateway),
                    _speaks_now(statuses[host], service),
                    _will_speak(statuses[host], service, own),
                    _speaks_now(statuses[str(gateway)], "gateway"),
                    _will_speak(statuses[str(gateway)], "gateway", its),
                    known not in (None, key) and all(each and each.todo.activate for each in (its, own)),
                ),
            )


def _speaks_now(status: Mapping[str, Any], service: str) -> Spoken | None:
    told = status.get("services", {}).get(service, {}).get("protocol")
    return Spoken(int(told["min"]), int(told["max"])) if told else None


def _will_speak(status: Mapping[str, Any], service: str, work: Work | None) -> Spoken | None:
    if work is None or not work.todo.activate or work.want.bundle is None:
        return _speaks_now(status, service)
    return work.want.bundle.protocol


def settings_digest(variables: Mapping[str, Any]) -> str:
    """Digest of a host's settings that end in no generation: baseline and fleet, but no secret."""
    told: dict[str, Any] = {"groups": variables.get("group_names")}
    for part in ("fleet", "baseline"):
        for name, declared in variables_of(part).items():
            if name in variables and not declared.secret and name not in OF_THE_WHOLE_FLEET:
                told[name] = variables[name]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:_SHORT]


# --- plan → apply -------------------------------------------------------------------------------------------


def save(plan: Plan, under: Path = PLANS) -> Path:
    """Keep a plan; returns its file."""
    under.mkdir(parents=True, exist_ok=True)
    path = under / f"{plan.id}.json"
    path.write_text(json.dumps(plan.document(), indent=2) + "\n", encoding="utf-8")
    return path


def load(name: str, under: Path = PLANS) -> dict[str, Any]:
    """The kept plan with this id (or the beginning of it). PlanError when there is none, or several."""
    found = sorted(under.glob("*.json")) if under.is_dir() else []
    fitting = [path for path in found if path.stem.startswith(name)] if name else []
    if len(fitting) != 1:
        newest = sorted(found, key=lambda path: -path.stat().st_mtime)[:5]
        there = ", ".join(path.stem for path in newest) or "none"
        why = "there is no plan" if not fitting else "several plans begin with"
        raise PlanError(
            f"{why} {name!r}; kept are {there}. Make one with `pyinfra inventory/<environment>.py deploy.py "
            "--dry` or `ansible-playbook -i inventory/<environment>.yml site.yml --check`. "
            "Nothing was changed"
        )
    kept = json.loads(fitting[0].read_text(encoding="utf-8"))
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise PlanError(f"{fitting[0]} is no plan of format {FORMAT}; make a new one. Nothing was changed")
    return kept


def differences(kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What moved between a kept plan and one made now, a sentence each; none: it may be applied."""
    found = []
    for name in ("environment", "strategy"):
        if kept[name] != now[name]:
            found.append(f"{name}: planned {kept[name]}, now {now[name]}")
    for host in dict.fromkeys([*kept["observed"], *now["observed"]]):
        if host not in now["observed"]:
            found.append(f"{host}: planned, but not part of this run")
            continue
        if host not in kept["observed"]:
            found.append(f"{host}: part of this run, but not planned")
            continue
        for service in dict.fromkeys([*kept["observed"][host], *now["observed"][host]]):
            then, seen = (of["observed"][host].get(service, "not in it") for of in (kept, now))
            if then != seen:
                found.append(f"{host} {service}: ran {then} when it was planned, runs {seen} now")
            then, seen = (of["wanted"][host].get(service, "nothing") for of in (kept, now))
            if then != seen:
                found.append(
                    f"{host} {service}: wanted is {seen[:_SHORT]}, planned was {then[:_SHORT]} (settings, "
                    "templates or bundle have changed)"
                )
        if kept["settings"][host] != now["settings"][host]:
            found.append(f"{host}: its settings of baseline or fleet have changed")
    if not found and kept["steps"] != now["steps"]:
        found.append("the steps: the settings of the strategy have changed")
    return found


def require_unmoved(name: str, plan: Plan, under: Path = PLANS) -> None:
    """PlanError that names every difference unless the kept plan `name` is still the one to carry out."""
    found = differences(load(name, under), plan.document())
    if found:
        listed = "".join(f"\n  - {text}" for text in found)
        raise PlanError(
            f"plan {name} does not fit any more:{listed}\n"
            "Look again (--dry, or --check) and apply the new plan. Nothing was changed"
        )


def shown(plan: Plan) -> list[str]:
    """The plan in lines for people."""
    if not plan.steps:
        return [f"plan {plan.id}: no service has anything to do"]
    width = max(len(step.kind) for step in plan.steps)
    lines = [f"plan {plan.id}: {plan.strategy}, {len(plan.steps)} step{'s' if len(plan.steps) > 1 else ''}"]
    for number, step in enumerate(plan.steps, 1):
        pause = "  then watched" if step.stage_ends else ""
        lines.append(f"  {number:>2}  {step.kind:<{width}}  {', '.join(step.hosts)}{pause}")
    return lines
