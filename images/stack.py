"""Starts and stops a stack of compose.yml with podman-compose, service by service, and waits for health."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bundle.archive import ROOT
from deploy.controller.programs import require
from images import build
from images.errors import ImageError
from images.services import SERVICES, TRADING, named, reference
from images.stack_files import Stack, prepare
from lab import machine, namespace
from lab.errors import LabError
from lab.fleet import networks_in_use
from lab.plan import choose_network
from lab.podman import Podman, last_line
from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.probes.health import HealthCheckBrokenError, ask_health
from mt5crs_release.bundles.provenance import verify

COMPOSE = ROOT / "compose.yml"
HEALTHY_S = 30.0
"""Asked for; measured: about a second for each."""
_STEP_S = 120.0
_ANSWER_S = 5.0
_GRACE_S = "15"
"""As in compose.yml, and as units have it."""
_CONTROLLERS = {"cpu", "memory", "pids"}
_WITHOUT_CGROUPS = '[containers]\ncgroups = "disabled"\n'


@dataclass(frozen=True)
class Running:
    """A stack and the podman that runs it. `limited`: whether limits of CPU and memory can be enforced."""

    stack: Stack
    podman: Podman
    limited: bool

    def compose(self, *arguments: str) -> None:
        """Run podman-compose. ImageError with what it said last."""
        program = require("podman-compose")
        podman = self.podman.argv()
        command = [*podman[:-1], program, "--podman-path", podman[-1], "--project-name", self.stack.name]
        command += ["--file", str(COMPOSE), "--env-file", str(self.stack.settings), *arguments]
        try:
            done = subprocess.run(
                command,
                env=self.environment(),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=_STEP_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ImageError(
                f"`podman-compose {' '.join(arguments)}` took over {_STEP_S:.0f} s: look whether the machine "
                "is short of memory or disk, then try again"
            ) from None
        if done.returncode != 0:
            raise ImageError(
                f"`podman-compose {' '.join(arguments)}` failed: {last_line(done.stderr or done.stdout)}; "
                f"if a port is taken, stop what has it or change it in {self.stack.settings}, then try again"
            )

    def environment(self) -> dict[str, str]:
        """Return the environment of podman: without cgroups where they cannot be used."""
        own = dict(os.environ)
        if not self.limited:
            file = self.stack.directory / "containers.conf"
            file.write_text(_WITHOUT_CGROUPS)
            own["CONTAINERS_CONF"] = str(file)
        return own

    def execute(
        self, service: str, *command: str, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a container. ImageError if it takes too long."""
        try:
            return self.podman.run(
                "exec", self.stack.container(service), *command, timeout_s=timeout_s, check=False
            )
        except LabError as error:
            raise ImageError(str(error)) from None

    def process(self, service: str) -> int:
        """Return the process of a container on this machine; 0 while it does not run."""
        return self.podman.process(self.stack.container(service))

    def healthy(self, service: str) -> bool:
        """Ask a service how it is, by the port that is published on loopback."""
        asked = named(service)
        port = int(self.stack.values()[asked.health_port])
        try:
            if asked.package:
                return ask("127.0.0.1", port, "/-/ready")[0] == 200
            return ask_health("127.0.0.1", port)[0] == 200
        except (OSError, HealthCheckBrokenError):
            return False

    def told(self, service: str, path: str) -> bytes:
        """Return what a service's page at `path` says, asked on loopback. ImageError if it does not."""
        port = int(self.stack.values()[named(service).health_port])
        try:
            status, body = ask("127.0.0.1", port, path)
        except OSError as error:
            raise ImageError(f"127.0.0.1:{port}{path} does not answer: {error}") from None
        if status != 200:
            raise ImageError(f"127.0.0.1:{port}{path} answers {status}")
        return body

    def wait_healthy(self, service: str, limit_s: float = HEALTHY_S) -> float:
        """Wait until a service is healthy; return after how many seconds. ImageError with its last words."""
        began = time.monotonic()
        while not self.healthy(service):
            if time.monotonic() - began > limit_s:
                container = self.stack.container(service)
                logs = self.podman.run("logs", "--tail", "3", container, check=False)
                said = last_line(logs.stdout + logs.stderr)
                raise ImageError(
                    f"{service} is not healthy after {limit_s:.0f} s: {said}; see `podman logs {container}`"
                )
            time.sleep(0.05)
        return time.monotonic() - began


def ask(address: str, port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of what an HTTP server answers. OSError when it does not."""
    connection = http.client.HTTPConnection(address, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP server answers on port {port} ({error!r})") from None
    finally:
        connection.close()


def up(name: str, out: Path, say: Callable[[str], None]) -> Running:
    """Verify and load the images, start the stack in the order of its dependencies. Repeatable.

    ImageError, RefusedError (images that are not as they were signed).
    """
    archive, tag = build.latest(out)
    with tempfile.TemporaryDirectory() as directory:
        answer = verify(archive, build.allowed_signers(Path(directory), ROOT))
    say(f"images     {archive.name} as {answer['provenance']} says")
    stack = Stack.of(ROOT, name)
    running = _connected(stack)
    with namespace.machine_lock():
        prepare(stack, tag, lambda taken: _free_network(running.podman, name, taken), free_ports)
    if not _loaded(running.podman, archive):
        running.podman.run("load", "--input", f"/proc/{os.getpid()}/root{archive}", timeout_s=300)
    if not running.limited:
        say("limits     NOT in force: this machine has no cgroup v2 controllers for cpu, memory and pids")
    watching = [service.name for service in SERVICES if service.name not in TRADING]
    # One by one: podman before 4.6 knows no waiting for health, and nothing asks without systemd.
    # Those who watch do not mind who is there first.
    for names in (*([name] for name in TRADING), watching):
        running.compose("up", "--detach", "--no-deps", *names)
        for name in names:
            say(f"{name:<12} healthy after {running.wait_healthy(name):.1f} s")
    return running


def prepare_alone(name: str, out: Path) -> Path:
    """Write what compose.yml asks for, for who starts it otherwise; return the file to name to it."""
    own = Stack.of(ROOT, name)
    _, tag = build.latest(out)
    _check_root()
    prepare(own, tag, lambda taken: choose_network(name, [*networks_in_use([]), *taken]), free_ports)
    return own.settings


def attached(name: str) -> Running:
    """Return a stack that was started before. ImageError if there is none."""
    stack = Stack.of(ROOT, name)
    stack.values()
    return _connected(stack)


def down(name: str, *, forget: bool = False) -> Running:
    """Stop a stack and remove its containers; its volumes and images stay, unless `forget`.

    Who trades goes first: a strategy whose gateway is gone waits for what became of its order.
    """
    running = attached(name)
    watching = [service.name for service in SERVICES if service.name not in TRADING]
    for names in (*([name] for name in reversed(TRADING)), watching):
        containers = map(running.stack.container, names)
        running.podman.run("stop", "--time", _GRACE_S, *containers, check=False, timeout_s=_STEP_S)
    running.compose("down", *(["--volumes"] if forget else []))
    if forget:
        tag = running.stack.values()["MT5CRS_TAG"]
        for service in SERVICES:  # podman keeps those that another stack runs
            running.podman.run("rmi", reference(service.name, tag), check=False)
    return running


def _check_root() -> None:
    if os.geteuid() != 0:
        raise ImageError("secrets are given to the user of the containers: run the command again as root")


def _connected(stack: Stack) -> Running:
    _check_root()
    try:
        machine.program("podman")
        with namespace.machine_lock():
            podman = Podman.connect(start_keeper=True)
    except LabError as error:
        raise ImageError(str(error)) from None
    told = podman.run("info", "--format", "{{range .Host.CgroupControllers}}{{.}} {{end}}").stdout.split()
    return Running(stack, podman, set(told) >= _CONTROLLERS)


def _free_network(podman: Podman, name: str, taken: Sequence[str]) -> str:
    try:
        return choose_network(name, [*networks_in_use(podman.networks()), *taken])
    except LabError as error:
        raise ImageError(str(error)) from None


def _loaded(podman: Podman, archive: Path) -> bool:
    """Tell whether podman has these very images: a name can be given to others."""
    with tarfile.open(archive) as tar:
        listed = tar.extractfile("manifest.json")
        wanted = json.load(listed) if listed else []
    for image in wanted:
        (name,) = image["RepoTags"]
        told = podman.run("image", "inspect", "--format", "{{.Id}}", name, check=False)
        if told.stdout.strip() != Path(image["Config"]).name:
            return False
    return True
