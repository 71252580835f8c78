"""A booted lab, for programs and tests: run things in its hosts, as root by podman or as `ops` by SSH."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab import ssh
from lab.errors import LabError
from lab.namespace import enter_argv, start_time
from lab.plan import DEFAULT_NAME, Host, Plan
from lab.podman import Podman, container_name, last_line
from lab.state import LabDirectory, open_lab

BOOT_TIMEOUT_S = 60.0
POLL_S = 0.1
LONGEST_POLL_S = 0.5
# What `systemctl is-system-running` says once booting is over.
BOOTED = ("running", "degraded")
DOWN = 125
"""The status of a command on a host that is down, as podman has it."""
_WAKE_S = 1.0
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "container": "podman",
}


@dataclass(frozen=True)
class Lab:
    """One lab that was booted with `up`."""

    directory: LabDirectory
    plan: Plan
    podman: Podman
    _inits: dict[str, tuple[int, int | None]] = field(default_factory=dict, repr=False, compare=False)
    """First process of each host that was entered, and when it was started."""

    @classmethod
    def open(cls, name: str = DEFAULT_NAME) -> Lab:
        """Return the lab called `name`. LabError if it was never booted from this project directory."""
        directory = open_lab(name)
        return cls(directory, directory.require(), Podman.connect())

    def container(self, host: str) -> str:
        """Return the name of a host's container. LabError if there is no such host."""
        return container_name(self.plan.name, self.plan.host(host).name)

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        input_text: str | None = None,
        timeout_s: float = 30.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` as root in a host, not over the network. LabError if it fails and `check` is on."""
        init = self._init(host)
        if init is None:
            done = subprocess.CompletedProcess(list(argv), DOWN, "", "it is down")
        else:
            # `podman exec` does the same for ten times the processor time.
            try:
                done = _run([*enter_argv(init), *argv], input_text or "", timeout_s)
            except subprocess.TimeoutExpired:
                raise _too_long(host, argv[0], timeout_s) from None
            if done.stderr.startswith("nsenter: cannot open /proc/"):
                done.returncode = DOWN  # at this very moment
        if check and done.returncode == DOWN:
            raise LabError(
                f"{host} cannot be entered ({last_line(done.stderr)}): start what is down with "
                f"`.venv/bin/python -m lab up --name {self.plan.name}`"
            )
        if check and done.returncode != 0:
            raise LabError(f"`{argv[0]}` on {host} ended with {done.returncode}: {last_line(done.stderr)}")
        return done

    def _init(self, host: str) -> int | None:
        """Return the process id of a host's systemd on this machine; None while the host is down."""
        container = self.container(host)
        pid, started = self._inits.get(container, (0, None))
        if not pid or start_time(pid) != started:
            pid = self.podman.process(container)
            started = start_time(pid) if pid else None
            if started is None:
                return None
            self._inits[container] = pid, started
        return pid

    def ssh_argv(self, host: str, command: Sequence[str] = ()) -> list[str]:
        """Return the argument list that logs in as `ops` and runs `command` (or a shell)."""
        return ssh.ssh_argv(self.directory, self.plan.host(host), command)

    def ssh(
        self,
        host: str,
        command: str,
        *,
        input_text: str | None = None,
        timeout_s: float = 30.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as `ops` over SSH. LabError if it fails and `check` is on."""
        try:
            done = subprocess.run(
                self.ssh_argv(host, [command]),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                input=input_text or "",
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _too_long(host, command, timeout_s) from None
        if check and done.returncode != 0:
            raise LabError(f"`{command}` on {host} ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def system_state(self, host: str) -> str:
        """Return what `systemctl is-system-running` says in a host; `down` if its container does not run."""
        done = self.exec(host, ["systemctl", "is-system-running"], check=False)
        return done.stdout.strip() or "down"

    def boot_id(self, host: str) -> str | None:
        """Return the host's boot id, which changes with each reboot; None while it is down."""
        done = self.exec(host, ["cat", "/proc/sys/kernel/random/boot_id"], check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def _last_words(self, host: str) -> str | None:
        """Return the last line on the console of a host that is down; None while it is up."""
        if self.system_state(host) != "down":
            return None
        done = self.podman.run("logs", "--tail", "5", self.container(host), check=False)
        return f"it is down, its console says: {last_line(done.stdout + done.stderr)}"

    def wait_ready(self, host: str, timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Wait until a host lets `ops` log in by SSH and has booted; return `running` or `degraded`.

        LabError with the last thing seen if that takes longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        address = self.plan.host(host)
        while True:
            done = _login(
                self.directory, address, "systemctl is-system-running --wait", deadline - time.monotonic()
            )
            state = done.stdout.strip()
            if state in BOOTED:
                return state
            if time.monotonic() >= deadline:
                seen = self._last_words(host) or state or last_line(done.stderr)
                raise LabError(
                    f"{host} ({address.address}) was not ready within {timeout_s:.0f} s ({seen}): "
                    f"see `.venv/bin/python -m lab logs {host} --name {self.plan.name}`, then `up` again"
                )
            time.sleep(POLL_S)


def _run(command: list[str], input_text: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command that enters a host. TimeoutExpired after `timeout_s`.

    A host that goes down stops all its processes for a moment (systemd-shutdown), and nsenter stops with its
    own; nobody in the host can wake it then.
    """
    end = time.monotonic() + timeout_s
    pipe: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    given: str | None = input_text
    with subprocess.Popen(command, **pipe, text=True, env=_ENVIRONMENT, cwd="/") as process:
        while True:
            try:
                out, err = process.communicate(given, timeout=max(0.0, min(_WAKE_S, end - time.monotonic())))
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except subprocess.TimeoutExpired:
                if time.monotonic() >= end:
                    process.kill()
                    raise
                process.send_signal(signal.SIGCONT)
                given = None


def _too_long(host: str, command: str, timeout_s: float) -> LabError:
    return LabError(
        f"{host} did not finish `{command}` within {timeout_s:.0f} s: look at it with `lab status`"
    )


def _login(
    directory: LabDirectory, host: Host, command: str, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    argv = ssh.ssh_argv(directory, host, [command])
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=max(timeout_s, 0.5),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 255, "", "no answer to SSH")


def wait_until(
    condition: Callable[[], bool], timeout_s: float, what: str, seen: Callable[[], object] | None = None
) -> None:
    """Wait until `condition()` holds; else LabError that names `what`, and what was `seen` last."""
    deadline = time.monotonic() + timeout_s
    pause = POLL_S
    while not condition():
        if time.monotonic() >= deadline:
            advice = "look at the host with `lab status`" if seen is None else f"last seen: {seen()}"
            raise LabError(f"{what} did not happen within {timeout_s:.0f} s: {advice}")
        time.sleep(pause)
        # Entering a host costs more than a tenth of a second of a core: what takes long is asked less often.
        pause = min(pause * 1.3, LONGEST_POLL_S)
