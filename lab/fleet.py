"""Boot, remove and describe whole labs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lab import image, inventory, machine, namespace, ssh, wine
from lab.errors import LabError
from lab.faults import heal
from lab.handle import Lab
from lab.plan import DEFAULT_HOSTS, DEFAULT_NAME, Host, Plan, choose_network, make_plan
from lab.podman import (
    LABEL_LAB,
    LABEL_PROJECT,
    Podman,
    allowed_limits,
    container_name,
    network_argv,
    network_name,
    run_argv,
)
from lab.state import LabDirectory, open_lab

# Each start is mostly podman's own work, so more at once than this only makes each slower.
STARTS_AT_ONCE = 4
WAITS_AT_ONCE = 8
REMOVAL_ATTEMPTS = 5
REMOVAL_TIMEOUT_S = 120.0
KEYS_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Phase:
    """One step of `up` or `down` that is done: what, how it ended, seconds."""

    name: str
    outcome: str
    seconds: float


Report = Callable[[Phase], None]
Gateway = Literal["linux", "wine"]


@dataclass(frozen=True)
class HostStatus:
    """What `status` tells about a host.

    `state` is what systemd says (`running`, `degraded`, `starting`, …), or `stopped` or `absent`.
    """

    name: str
    group: str
    address: str
    debian: str
    state: str
    failed_units: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@contextmanager
def _phase(report: Report, name: str) -> Iterator[list[str]]:
    """Time a step; its body puts the outcome into the list it is given."""
    begin = time.monotonic()
    outcome: list[str] = []
    yield outcome
    report(Phase(name, " ".join(outcome), time.monotonic() - begin))


def up(
    name: str,
    report: Report,
    host_count: int | None = None,
    debian: str | None = None,
    mirror: str | None = None,
    *,
    gateway: Gateway | None = None,
) -> Plan:
    """Boot a lab, or what is missing of it, and wait until every host can be deployed to.
    `gateway`: whether the gateway's host has Wine.

    A lab that runs is left alone; hosts that are down are started; a failed `up` is completed by the next
    one. LabError if the machine cannot run it, or if the lab exists in another shape than asked for.
    """
    machine.check()
    directory = open_lab(name)
    with directory.lock():
        with _phase(report, "machine") as outcome:
            outcome.append(machine.raise_inotify_limit())
        with _phase(report, "network") as outcome, namespace.machine_lock():
            podman = _connect(directory)
            plan, made = _prepare(directory, podman, host_count, debian, gateway)
            outcome.append(f"{plan.network} {'created' if made else 'unchanged'}")
        references = {}
        for release, has_wine in sorted({(host.debian, host.wine) for host in plan.hosts}):
            with _phase(report, f"image {'with Wine' if has_wine else f'Debian {release}'}") as outcome:
                extra = wine.of_a_host(wine.open_windows(mirror)) if has_wine else None
                there = image.exists(podman, release, extra)
                references[release, has_wine] = image.build(podman, release, mirror, extra)
                outcome.append("unchanged" if there else "built")
        with _phase(report, "inventory") as outcome:
            ssh.write_keys(directory, plan)
            _write_inventory(directory, plan)
            outcome.append(_generate_secrets(directory))
        lab = Lab(directory, plan, podman)
        with _phase(report, "hosts") as outcome:
            outcome.append(_start(lab, references))
        with _phase(report, "ready") as outcome:
            with ThreadPoolExecutor(WAITS_AT_ONCE) as pool:
                states = list(pool.map(lab.wait_ready, [host.name for host in plan.hosts]))
            degraded = [
                host.name for host, state in zip(plan.hosts, states, strict=True) if state == "degraded"
            ]
            outcome.append(f"{len(states)} of {len(states)} let ops log in")
            if degraded:
                outcome.append(f"(failed units on {', '.join(degraded)}: see `status`)")
    return plan


def _connect(directory: LabDirectory) -> Podman:
    """Find podman and the namespace to run it in, one that sees this checkout. Under `machine_lock`.

    LabError if the namespace does not see it and labs of other checkouts still live in there.
    """
    podman = Podman.connect(start_keeper=True)
    if namespace.sees(directory.project):
        return podman
    others = sorted(
        f"{labels[LABEL_LAB]} of {labels.get(LABEL_PROJECT, 'an unknown checkout')}"
        for network in podman.networks()
        if LABEL_LAB in (labels := network.get("labels") or {})
    )
    if others:
        raise LabError(
            f"{directory.project} was mounted after the labs of this machine were started, and podman cannot "
            f"see it where they run: remove them first (`.venv/bin/python -m lab down` there; "
            f"{', '.join(others)}), or work in a checkout on a file system that was mounted before"
        )
    namespace.stop_keeper()
    return Podman.connect(start_keeper=True)


def _prepare(
    directory: LabDirectory,
    podman: Podman,
    host_count: int | None,
    debian: str | None,
    gateway: Gateway | None = None,
) -> tuple[Plan, bool]:
    """Decide on the plan and make its network; tell whether the network is new. Under `machine_lock`."""
    others = {network["name"]: network for network in podman.networks()}
    existing = others.pop(network_name(directory.name), None)
    if existing is not None:
        _refuse_foreign(directory, existing.get("labels") or {})
    plan = directory.load()
    if plan is None:
        _forget_secrets(directory)
        if existing is not None:
            # Its keys went with the directory it was booted from: nobody can log in to these hosts.
            _remove_containers(podman, directory.name)
            podman.run("network", "rm", "--force", network_name(directory.name))
            existing = None
        network = choose_network(directory.name, networks_in_use(others.values()))
        has_wine = gateway == "wine"
        plan = make_plan(directory.name, network, host_count or DEFAULT_HOSTS, debian or "13", wine=has_wine)
        directory.save(plan)
    else:
        _refuse_other_shape(plan, host_count, debian, gateway)
    if existing is None:
        podman.run(*network_argv(plan, directory.project))
    return plan, existing is None


def _refuse_foreign(directory: LabDirectory, labels: dict[str, str]) -> None:
    owner = labels.get(LABEL_PROJECT)
    if owner != str(directory.project) and owner is not None and Path(owner).exists():
        raise LabError(
            f"lab {directory.name} exists on this machine and belongs to {owner}: "
            f"remove it there (`.venv/bin/python -m lab down --name {directory.name}`), or use another "
            "--name here"
        )


def _refuse_other_shape(
    plan: Plan, host_count: int | None, debian: str | None, gateway: Gateway | None
) -> None:
    has_wine = any(host.wine for host in plan.hosts)
    wanted = make_plan(
        plan.name,
        plan.network,
        host_count or len(plan.hosts),
        debian or _debian_of(plan),
        wine=has_wine if gateway is None else gateway == "wine",
    )
    if wanted != plan:
        raise LabError(
            f"lab {plan.name} exists with {len(plan.hosts)} hosts and Debian {_debian_of(plan)}"
            f"{', its gateway with Wine' if has_wine else ''}: "
            f"remove it with `.venv/bin/python -m lab down --name {plan.name}` first, or choose another "
            "--name"
        )


def _debian_of(plan: Plan) -> str:
    releases = {host.debian for host in plan.hosts}
    return releases.pop() if len(releases) == 1 else "mixed"


def networks_in_use(podman_networks: Any) -> list[str]:
    """Every IPv4 network of this machine: podman's, and those there is a route to."""
    used = [
        subnet["subnet"]
        for network in podman_networks
        for subnet in network.get("subnets") or []
        if ":" not in subnet["subnet"]
    ]
    done = subprocess.run(
        [machine.program("ip"), "-json", "-4", "route"],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return used + [route["dst"] for route in json.loads(done.stdout or "[]") if route["dst"] != "default"]


def _write_inventory(directory: LabDirectory, plan: Plan) -> None:
    if plan.name == DEFAULT_NAME:
        return
    directory.inventory.write_text(inventory.render(plan))
    directory.inventory.with_suffix(".py").write_text(inventory.PYINFRA)


def _generate_secrets(directory: LabDirectory) -> str:
    """Let the deployment make this lab's vault password, vault and public keys; what exists is kept."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.keys", "--inventory", str(directory.inventory)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=KEYS_TIMEOUT_S,
        cwd=directory.project,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            f"keys of lab {directory.name} could not be made: {(done.stderr or done.stdout).strip()}"
        )
    made = sum(line.startswith("made ") for line in done.stdout.splitlines())
    return f"{made} key pairs made" if made else "keys unchanged"


def _start(lab: Lab, references: dict[tuple[str, bool], str]) -> str:
    """Create missing containers and start dead ones; say how many of which."""
    present = lab.podman.containers(lab.plan.name)
    limits = allowed_limits()

    def start(host: Host) -> str:
        container = present.get(container_name(lab.plan.name, host.name))
        if container is not None and container["State"] == "running":
            return "running"
        if container is not None and container["State"] not in ("created", "configured"):
            lab.podman.run("start", container["Names"][0])
            return "started"
        if container is not None:
            # Its first start failed half-way (no address, no disk): nothing in it is worth keeping.
            lab.podman.run("rm", "--force", container["Names"][0])
        seed = lab.directory.seed(host.name)
        lab.podman.run(
            *run_argv(lab.plan, host, references[host.debian, host.wine], seed, lab.directory.project, limits)
        )
        return "booted"

    with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
        outcomes = list(pool.map(start, lab.plan.hosts))
    counts = [
        f"{outcomes.count(kind)} {kind}" for kind in ("booted", "started", "running") if kind in outcomes
    ]
    return ", ".join(counts)


def down(name: str, report: Report) -> bool:
    """Remove a lab with everything that belongs to it; tell whether there was one.

    Works by podman's labels, so that a lab whose record is damaged goes too. With the last lab of the machine
    the private namespace goes as well; images stay, for the next `up`.
    """
    machine.check()
    directory = open_lab(name)
    with directory.lock():
        with namespace.machine_lock():
            podman = Podman.connect(start_keeper=True)
            network = next((n for n in podman.networks() if n["name"] == network_name(name)), None)
            if network is not None:
                _refuse_foreign(directory, network.get("labels") or {})
            containers = podman.containers(name)
            existed = bool(containers) or network is not None or directory.root.exists()
            if not existed:
                # Without a network of this lab, nothing keeps another `down` from ending the namespace.
                stop_keeper_if_unused(podman)
                return False
        if containers:
            with _phase(report, "hosts") as outcome:
                _remove_containers(podman, name)
                outcome.append(f"{len(containers)} removed")
        if existed:
            with _phase(report, "network") as outcome, namespace.machine_lock():
                heal(name)
                if network is not None:
                    podman.run("network", "rm", "--force", network_name(name))
                _remove_files(directory)
                outcome.append("removed")
        with namespace.machine_lock():
            stop_keeper_if_unused(podman)
    return existed


def _remove_containers(podman: Podman, name: str) -> None:
    """Remove all containers of a lab; podman refuses one that dies meanwhile, and is asked again."""
    for attempt in range(1, REMOVAL_ATTEMPTS + 1):
        containers = podman.containers(name)
        if not containers:
            return
        podman.run(
            *("rm", "--force", "--time", "0", "--volumes", *containers),
            timeout_s=REMOVAL_TIMEOUT_S,
            check=attempt == REMOVAL_ATTEMPTS,
        )


def stop_keeper_if_unused(podman: Podman) -> None:
    """End the private namespace unless some lab of this machine still needs it. Under `machine_lock`."""
    if not any(LABEL_LAB in (network.get("labels") or {}) for network in podman.networks()):
        namespace.stop_keeper()


def _forget_secrets(directory: LabDirectory) -> None:
    """Remove the default lab's vault beside its inventory: without the password in `.lab` nobody opens it."""
    if directory.name == DEFAULT_NAME:
        secrets = directory.inventory.parent / "group_vars" / "lab"
        for file in ("vault.yml", "keys.yml"):
            (secrets / file).unlink(missing_ok=True)


def _remove_files(directory: LabDirectory) -> None:
    _forget_secrets(directory)
    directory.remove()


def status(name: str) -> list[HostStatus]:
    """Describe every host of a lab as it is now. LabError if there is no such lab."""
    machine.check()
    lab = Lab.open(name)
    present = lab.podman.containers(name)

    def describe(host: Host) -> HostStatus:
        found = HostStatus(host.name, host.group, host.address, host.debian, "absent")
        container = present.get(container_name(name, host.name))
        if container is None:
            return found
        if container["State"] != "running":
            return replace(found, state="stopped")
        state = lab.system_state(host.name)
        failed: tuple[str, ...] = ()
        if state == "degraded":
            listed = lab.exec(
                host.name, ["systemctl", "--failed", "--no-legend", "--plain"], check=False
            ).stdout
            failed = tuple(line.split()[0] for line in listed.splitlines() if line.strip())
        return replace(found, state=state, failed_units=failed)

    with ThreadPoolExecutor(WAITS_AT_ONCE) as pool:
        return list(pool.map(describe, lab.plan.hosts))
