"""podman: the argument lists (pure) and the one place that runs them."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import namespace
from lab.errors import LabError
from lab.machine import program
from lab.plan import Host, Plan

LABEL_LAB = "mt5crs.lab"
LABEL_HOST = "mt5crs.lab.host"
LABEL_PROJECT = "mt5crs.lab.project"
INIT = "/usr/local/sbin/lab-init"
# podman asks for more if not told otherwise, and fails where hard limits are lower and may not be raised. It
# lowers its own limit of processes to 32768 first, so more than that cannot be had either.
WANTED_LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 1048576), "nproc": (resource.RLIMIT_NPROC, 30000)}


def network_name(lab: str) -> str:
    """Name of the podman network of a lab."""
    return f"mt5crs-{lab}"


def container_name(lab: str, host: str) -> str:
    """Name of the container of one host."""
    return f"mt5crs-{lab}-{host}"


def mac_address(host: Host) -> str:
    """Return the host's hardware address: locally administered, made of its IPv4 address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in host.address.split("."))


def allowed_limits() -> dict[str, int]:
    """Return the resource limits a container can get here without raising a hard limit."""
    limits = {}
    for name, (number, wanted) in WANTED_LIMITS.items():
        hard = resource.getrlimit(number)[1]
        limits[name] = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    return limits


def network_argv(plan: Plan, project: Path) -> list[str]:
    """Arguments that create the lab's network. No name server: hosts know each other by address."""
    return [
        "network", "create", "--disable-dns", "--subnet", plan.network, "--gateway", plan.controller_address,
        "--label", f"{LABEL_LAB}={plan.name}", "--label", f"{LABEL_PROJECT}={project}",
        network_name(plan.name),
    ]  # fmt: skip


def run_argv(
    plan: Plan, host: Host, image: str, seed: Path, project: Path, limits: dict[str, int]
) -> list[str]:
    """Arguments that create and start the container of one host."""
    argv = [
        "run", "--detach", "--name", container_name(plan.name, host.name), "--hostname", host.name,
        "--label", f"{LABEL_LAB}={plan.name}", "--label", f"{LABEL_HOST}={host.name}",
        "--label", f"{LABEL_PROJECT}={project}",
        "--network", network_name(plan.name), "--ip", host.address,
        # The same after each reboot, as a real machine's: neighbours remember it for up to a minute.
        "--mac-address", mac_address(host),
        "--systemd=always", "--privileged", "--pids-limit=0", "--pull=never", "--log-driver=k8s-file",
        # `systemctl reboot` in the host ends the container; podman then starts it again.
        "--restart=always", "--stop-timeout=30",
        "--volume", f"{seed}:/etc/lab-seed:ro",
        # podman would put a tmpfs here; on a real host the journal outlives a reboot.
        "--volume", "/var/log/journal",
    ]  # fmt: skip
    for name, value in sorted(limits.items()):
        argv += ["--ulimit", f"{name}={value}:{value}"]
    return [*argv, image, INIT]


def last_line(text: str) -> str:
    """Return the last line that says something: podman puts the cause there."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


@dataclass(frozen=True)
class Podman:
    """podman on this machine, `prefix` being what enters the lab's namespace (empty where none is needed)."""

    prefix: tuple[str, ...] = ()

    @classmethod
    def connect(cls, *, start_keeper: bool = False) -> Podman:
        """Find podman and the namespace to run it in.

        With `start_keeper` (under `machine_lock`) a namespace that is needed and not there is made; without,
        a missing one is a LabError.
        """
        podman = program("podman")
        if not namespace.needs_keeper():
            return cls((podman,))
        pid = namespace.ensure_keeper() if start_keeper else namespace.running_keeper()
        if pid is None:
            raise LabError(
                "the labs' private namespace is gone, as after a restart of this machine: "
                "start them again with `.venv/bin/python -m lab up`"
            )
        return cls((program("nsenter"), f"--mount=/proc/{pid}/ns/mnt", "--", podman))

    def argv(self, *arguments: str) -> list[str]:
        """Return the full argument list."""
        return [*self.prefix, *arguments]

    def run(
        self, *arguments: str, timeout_s: float = 60.0, input_text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run podman. LabError if it took too long, or failed while `check` is on."""
        standard_input: dict[str, Any] = (
            {"stdin": subprocess.DEVNULL} if input_text is None else {"input": input_text}
        )
        try:
            done = subprocess.run(
                self.argv(*arguments),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                cwd="/",
                check=False,
                **standard_input,
            )
        except subprocess.TimeoutExpired:
            raise LabError(
                f"`podman {arguments[0]}` gave no answer within {timeout_s:.0f} s: "
                "look whether the machine is short of memory or disk, then try again"
            ) from None
        if check and done.returncode != 0:
            raise LabError(f"`podman {arguments[0]}` failed: {last_line(done.stderr)}")
        return done

    def containers(self, lab: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the containers of one lab (or of all) as podman lists them, by container name."""
        label = LABEL_LAB if lab is None else f"{LABEL_LAB}={lab}"
        listed = json.loads(
            self.run("ps", "--all", "--filter", f"label={label}", "--format", "json").stdout or "[]"
        )
        return {container["Names"][0]: container for container in listed}

    def process(self, container: str) -> int:
        """Return the process id of a container's first process; 0 while it does not run."""
        told = self.run("container", "inspect", "--format", "{{.State.Pid}}", container, check=False)
        return int(told.stdout) if told.returncode == 0 else 0

    def networks(self) -> list[dict[str, Any]]:
        """Return all podman networks, as `podman network inspect` describes them."""
        names = self.run("network", "ls", "--format", "{{.Name}}").stdout.split()
        described: list[dict[str, Any]] = (
            json.loads(self.run("network", "inspect", *names).stdout) if names else []
        )
        return described

    def exec_argv(self, container: str, argv: Sequence[str], *, tty: bool) -> list[str]:
        """Return the argument list that runs `argv` as root in a container, with the caller's input."""
        return self.argv("exec", "--interactive", *(["--tty"] if tty else []), container, *argv)
