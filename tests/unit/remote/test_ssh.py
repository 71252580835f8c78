"""What a host answers is told apart from what its shell prints; no answer is not an empty one.

A stand-in for ssh runs the command line with a login shell here, as sshd would there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from deploy.coordination.fleet_lock import FleetLock, LockError
from deploy.fleet.inventory import Fleet
from deploy.remote import ssh
from deploy.rollout.record import Rollout

HOST: dict[str, Any] = {"inventory_hostname": "hub-01", "ansible_host": "10.9.9.1", "ansible_become": False}


class Machine:
    """What ssh finds: a login shell, what it prints first, and how it lets one in."""

    def __init__(self, directory: Path) -> None:
        self.program = directory / "ssh"
        self.is_reached_by()

    def is_reached_by(self, shell: str = "/bin/sh -c", first: str = "", instead: str = "") -> None:
        """Each time: print `first`, then run the last word with `shell`, or do something `instead`."""
        run = instead or f'for line in "$@"; do :; done; {first}\nexec {shell} "$line"'
        self.program.write_text(f"#!/bin/bash\n{run}\n")
        self.program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(ssh, "require", lambda _name: str(tmp_path / "ssh"))
    return Machine(tmp_path)


def ask(*command: str, stdin: str = "", **variables: Any) -> ssh.Reply:
    return ssh.run({**HOST, **variables}, command, stdin=stdin, timeout_s=30)


NOISE = "echo 'Welcome to hub-01'; echo '{\"welcome\": 1}'; printf 'no end of line'; echo"


@pytest.mark.parametrize("first", ["", NOISE])
@pytest.mark.parametrize("shell", ["/bin/sh -c", "/bin/bash -c", "tcsh -c", "zsh -c", "fish -c"])
def test_any_shell_may_print_what_it_likes_before(machine: Machine, shell: str, first: str) -> None:
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"{shell.split()[0]} is not installed here")
    machine.is_reached_by(shell, first)
    reply = ask("sh", "-c", 'cat; echo "it\'s $1!"; echo >&2 oh; exit 3', "sh", "two  words", stdin="given\n")
    assert (reply.status, reply.output, reply.error) == (3, "given\nit's two  words!\n", "oh\n")


def test_the_answer_is_its_own_document(machine: Machine) -> None:
    machine.is_reached_by(first=NOISE)
    assert ask("echo", '{"a": 1}').document == {"a": 1}
    assert ask("echo", "no document").document is None
    assert ask("true").document is None


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        (
            "echo 'This account is currently not available.'; exit 1",
            "This account is currently not available",
        ),
        ("echo '{}'; exit 0", "did not run the command"),
        ("echo 'sudo: a password is required' >&2; exit 1", "sudo: a password is required"),
        ("echo 'kex_exchange: reset' >&2; exit 255", "kex_exchange: reset"),
        ("exec sleep 60", "no answer within 0.3 s"),
    ],
)
def test_a_command_that_was_not_run_has_no_status(machine: Machine, instead: str, why: str) -> None:
    machine.is_reached_by(instead=instead)
    reply = ssh.run(HOST, ["true"], timeout_s=0.3 if "sleep" in instead else 30)
    assert reply.status is None
    assert why in reply.why


def take(fleet: Fleet | None = None) -> FleetLock:
    lock = FleetLock(HOST, "0123")
    lock.take(
        Rollout("pyinfra", "lab", action="deploy"), fleet or Fleet(Path("x.yml"), "lab", {}, {}), last=True
    )
    return lock


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        ("echo 'sudo: a password is required' >&2; exit 1", "does not answer.*a password is required"),
        (f"echo '{ssh.BEGINS}'; echo Welcome", "cannot be read.*Welcome"),
        (f"echo '{ssh.BEGINS}'; echo '[]'", "cannot be read"),
        (f"echo '{ssh.BEGINS}'; echo Traceback >&2; exit 1", "cannot be read.*Traceback"),
        ("exit 255", "does not answer"),
    ],
)
def test_a_hub_that_does_not_answer_is_no_hub_without_lock(machine: Machine, instead: str, why: str) -> None:
    machine.is_reached_by(instead=instead)
    with pytest.raises(LockError, match=f"{why}.*Nothing was changed"):
        take()


def test_a_hub_says_itself_that_it_has_no_tool_yet(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    del machine
    assert not Path(ssh.TOOL).exists(), "this machine is no host"
    lock = take()
    assert not lock.held
    assert lock.said == ["the Hub has no release tool yet: no fleet lock, no record there"]
