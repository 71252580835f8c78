"""A deployment that can be hit at an exact moment, and the moments: read from the hosts' own records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.state import PROJECT
from tests.lab.engines import Fleet, Ran

ENGINES = ("pyinfra", "ansible")
# Looks every 10 ms on the host itself: a way over podman or SSH would be slower than some phases.
WATCH = """
import json, sys, time
path, known, states = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
end = time.monotonic() + float(sys.argv[4])
while time.monotonic() < end:
    try:
        generations = json.load(open(path))["generations"].values()
    except (OSError, ValueError):
        generations = ()
    for one in generations:
        if one["name"] not in known and one["state"] in states:
            sys.exit(0)
    time.sleep(0.01)
sys.exit("not seen in time")
"""


@dataclass(frozen=True)
class Moment:
    """When a service's new generation on a host has one of these states."""

    name: str
    host: str
    service: str
    states: tuple[str, ...]


STAGE = Moment("stage", "gtw-01", "gateway", ("staged",))
ACTIVATE_GATEWAY = Moment("activate gateway", "gtw-01", "gateway", ("activating",))
ACTIVATE_FIRST = Moment("activate Inf step 1", "inf-01", "reconciler", ("activating",))
ACTIVATE_SECOND = Moment("activate Inf step 2", "inf-02", "strategy", ("activating",))
FIRST_WAITS = Moment("Inf step 1 waits", "inf-01", "strategy", ("provisional",))
BEFORE_CONFIRM = Moment("before confirm", "inf-02", "strategy", ("provisional",))
MIDDLE_OF_CONFIRM = Moment("middle of confirm", "gtw-01", "gateway", ("confirmed",))
PUT_BACK = Moment("put back", "inf-02", "reconciler", ("reverting", "reverted"))
MOMENTS = (STAGE, ACTIVATE_GATEWAY, ACTIVATE_FIRST, ACTIVATE_SECOND, BEFORE_CONFIRM, MIDDLE_OF_CONFIRM)


class Controller:
    """A deployment in the background."""

    def __init__(self, fleet: Fleet, *arguments: str, engine: str = "pyinfra") -> None:
        self.fleet = fleet
        self.known = {
            (host.name, service): sorted(known)
            for host in fleet.lab.plan.hosts
            for service, known in _generations(fleet, host.name).items()
        }
        self._output = Path(tempfile.mkstemp(prefix="rollout-", suffix=".log")[1])
        bin_directory = Path(sys.executable).parent
        command = (
            [bin_directory / "pyinfra", "-y", *arguments, fleet.inventory.with_suffix(".py"), "deploy.py"]
            if engine == "pyinfra"
            else [bin_directory / "ansible-playbook", "-i", fleet.inventory, "site.yml", *arguments]
        )
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                cwd=PROJECT,
                env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "PYINFRA_PROGRESS": "off"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, moment: Moment, timeout_s: float = 120.0) -> None:
        """Until the moment has come; AssertionError if the deployment was over by then."""
        command = [
            "/usr/bin/python3",
            "-c",
            WATCH,
            f"/opt/mt5crs/{moment.service}/state.json",
            json.dumps(self.known[moment.host, moment.service]),
            json.dumps(moment.states),
            str(timeout_s),
        ]
        done = self.fleet.lab.exec(moment.host, command, timeout_s=timeout_s + 10, check=False)
        assert done.returncode == 0, f"{moment.name}: {done.stderr}\n{self.output[-3000:]}"
        assert self._process.poll() is None, f"over before {moment.name}:\n{self.output[-3000:]}"

    def wait_for_output(self, text: str, timeout_s: float = 120.0) -> None:
        """Until it has printed this; AssertionError if the deployment was over by then."""
        end = time.monotonic() + timeout_s
        while text not in self.output:
            over = self._process.poll() is not None or time.monotonic() > end
            assert not over, f"never printed {text!r}:\n{self.output[-3000:]}"
            time.sleep(0.05)

    def hit(self, number: signal.Signals) -> None:
        """Send a signal: SIGKILL to the whole process group, others to the program."""
        if number == signal.SIGKILL:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def end(self, timeout_s: float = 300.0) -> Ran:
        """Wait for the end; killed if it takes longer, and then the test fails."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(f"not over after {timeout_s} s:\n{self.output[-3000:]}") from error
        ran = Ran(status, self.output)
        self._output.unlink()
        return ran

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")


def _generations(fleet: Fleet, host: str) -> dict[str, Sequence[str]]:
    script = "import glob,json;print(json.dumps({json.load(open(p))['service']:"
    script += "list(json.load(open(p))['generations']) for p in glob.glob('/opt/mt5crs/*/state.json')}))"
    found: dict[str, Sequence[str]] = json.loads(
        fleet.lab.exec(host, ["/usr/bin/python3", "-c", script]).stdout
    )
    return found


def since(began: float) -> float:
    """Seconds since a reading of the monotonic clock."""
    return time.monotonic() - began
