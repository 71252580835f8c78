"""What sshd is told: nothing weak, and never a list of users without the one that deploys."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import Fleet
from deploy.fleet.rendering import render

WEAK = ("nistp", "sha1", "ecdsa", "-96", "umac-64", "cbc", "arcfour", "group14", "group1-", "ssh-rsa")


def told(fleet: Fleet, **changes: Any) -> list[tuple[str, str]]:
    text = render("baseline/sshd.conf.j2", {**fleet.hosts["gtw-01"], **changes})
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_no_weak_algorithm_is_offered(fleet: Fleet) -> None:
    algorithms = {name: value for name, value in told(fleet) if "," in value}
    assert set(algorithms) == {"KexAlgorithms", "Ciphers", "MACs", "HostKeyAlgorithms"}
    offered = [one for value in algorithms.values() for one in value.split(",")]
    assert not [one for one in offered if any(weak in one for weak in WEAK)]
    assert all("etm" in one for one in algorithms["MACs"].split(","))


def test_everyone_with_a_key_gets_in_or_those_listed_and_the_one_that_deploys(fleet: Fleet) -> None:
    assert not [value for name, value in told(fleet) if name == "AllowUsers"]
    listed = told(fleet, baseline_ssh_users=["alice", "ops"], ansible_user="ops")
    assert [value for name, value in listed if name == "AllowUsers"] == ["ops", "alice"]
    other = told(fleet, baseline_ssh_users=["alice"], ansible_user="ops", ansible_ssh_user="root")
    assert [value for name, value in other if name == "AllowUsers"] == ["root", "alice"]


def test_connections_are_forwarded_only_where_it_is_said(fleet: Fleet) -> None:
    assert dict(told(fleet))["AllowTcpForwarding"] == "no"
    assert dict(told(fleet, baseline_ssh_tcp_forwarding=True))["AllowTcpForwarding"] == "yes"


def test_openssh_knows_every_algorithm(fleet: Fleet, tmp_path: Path) -> None:
    """The client here stands for the servers: both come from one source."""
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("ssh is not installed here")
    config = tmp_path / "config"
    config.write_text("".join(f"{name} {value}\n" for name, value in told(fleet) if "," in value))
    done = subprocess.run(
        [ssh, "-G", "-F", str(config), "host"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
