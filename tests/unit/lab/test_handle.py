"""Commands run in the host that is there now, as podman names its process; a host that is down says so."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.handle import DOWN, Lab
from lab.namespace import start_time
from lab.plan import make_plan
from lab.podman import Podman
from lab.state import LabDirectory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces are made as root")


@contextmanager
def machine(name: str) -> Iterator[int]:
    """A process with a host name and process ids of its own; yields its process id."""
    script = f"hostname {name}; echo ready; exec sleep infinity"
    command = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready\n"
        process = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
        try:
            yield process
        finally:
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def pid(tmp_path: Path) -> Path:
    """What the stand-in for podman says is the host's first process."""
    podman = tmp_path / "podman"
    podman.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\nexec cat {tmp_path}/pid\n')
    podman.chmod(0o755)
    (tmp_path / "pid").write_text("0\n")
    return tmp_path / "pid"


@pytest.fixture
def lab(pid: Path) -> Lab:
    return Lab(
        LabDirectory("unit", pid.parent),
        make_plan("unit", "10.9.9.0/24"),
        Podman((str(pid.with_name("podman")),)),
    )


def asked(pid: Path) -> int:
    return len(pid.with_name("asked").read_text().splitlines())


def test_commands_run_in_the_host_that_is_there_now(lab: Lab, pid: Path) -> None:
    with machine("first") as process:
        pid.write_text(f"{process}\n")
        assert lab.exec("hub-01", ["hostname"]).stdout == "first\n"
        assert lab.exec("hub-01", ["sh", "-c", "echo $PPID; cat"], input_text="given").stdout == "0\ngiven"
        assert asked(pid) == 1, "podman is asked once, for it costs more than the command"
        assert lab.exec("hub-01", ["sh", "-c", "exit 3"], check=False).returncode == 3
        with pytest.raises(LabError, match="did not finish `sleep` within 0 s"):
            lab.exec("hub-01", ["sleep", "9"], timeout_s=0.1)
    with machine("rebooted") as process:
        pid.write_text(f"{process}\n")
        assert lab.exec("hub-01", ["hostname"]).stdout == "rebooted\n"


def test_a_command_that_is_stopped_with_its_host_goes_on(lab: Lab, pid: Path) -> None:
    with machine("going-down") as process:
        pid.write_text(f"{process}\n")
        stopped = lab.exec("hub-01", ["sh", "-c", "read line; kill -STOP $$; echo $line"], input_text="on\n")
    assert stopped.stdout == "on\n"


def test_a_recycled_process_id_is_not_entered(lab: Lab, pid: Path) -> None:
    container = lab.container("hub-01")
    lab._inits[container] = (os.getpid(), 1)
    assert lab.exec("hub-01", ["hostname"], check=False).returncode == DOWN
    assert asked(pid) == 1


def test_a_host_that_goes_down_at_that_moment_is_down(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with machine("dying") as process:
        lab._inits[lab.container("hub-01")] = process, start_time(process)
    monkeypatch.setattr("lab.handle.start_time", lambda _pid: lab._inits[lab.container("hub-01")][1])
    assert lab.exec("hub-01", ["hostname"], check=False).returncode == DOWN


def test_a_host_that_is_down_is_named_with_the_remedy(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"hub-01 cannot be entered \(it is down\): start .* up --name unit"):
        lab.exec("hub-01", ["true"])
