"""Both engines and the verification reach a host alike, whatever stands between or is printed before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.state import PROJECT
from tests.lab.engines import Fleet, Ran

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ENGINES = ("pyinfra", "ansible")
NOISE = "echo 'Welcome!'; echo '{\"welcome\": true}'\n"
BASHRC = "/home/ops/.bashrc"


def look(fleet: Fleet, engine: str) -> Ran:
    """A run that asks every host and changes nothing."""
    if engine == "pyinfra":
        return fleet.pyinfra("--dry", yes=False)
    return fleet.playbook("site.yml", "--check")


@pytest.fixture
def noisy(fleet: Fleet) -> Iterator[Fleet]:
    """Every host prints something before each command."""
    hosts = [host.name for host in fleet.lab.plan.hosts]
    for host in hosts:
        fleet.lab.exec(host, ["cp", "-a", BASHRC, f"{BASHRC}.kept"])
        # bash reads it for commands of sshd, too; what Debian puts there first would return.
        fleet.lab.exec(host, ["tee", BASHRC], input_text=NOISE)
    assert "Welcome!" in fleet.lab.ssh(hosts[0], "true").stdout
    yield fleet
    for host in hosts:
        fleet.lab.exec(host, ["mv", f"{BASHRC}.kept", BASHRC])


@pytest.mark.slow(reason="each shell prints first in tests/unit/remote/test_ssh.py")
def test_what_a_shell_prints_first_is_no_answer(noisy: Fleet) -> None:
    before = noisy.generations()
    for engine in ENGINES:
        ran = noisy.pyinfra() if engine == "pyinfra" else noisy.playbook("site.yml")
        assert ran.status == 0, ran.output[-3000:]
        assert ran.record["outcome"] == "unchanged", ran.output[-3000:]
    assert noisy.generations() == before
    some = ["tests/verify/test_services.py", "tests/verify/test_links.py"]
    verified = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--inventory", str(noisy.inventory), *some],
        cwd=PROJECT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout[-3000:]


@pytest.fixture
def behind_a_jump_host(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """inf-01 is reached by way of the Hub only, whose sshd forwards: it takes no SSH from the controller."""
    fleet.override(baseline_ssh_tcp_forwarding=True)
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]
    known = dict(
        option.partition("=")[::2]
        for option in ("IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "User=ops", "ConnectTimeout=10")
    )
    ssh = fleet.lab.directory
    config = tmp_path / "ssh_config"
    hub, inf = fleet.lab.plan.host("hub-01").address, fleet.lab.plan.host("inf-01").address
    lines = [
        f"Host {inf}",
        f"  ProxyJump {hub}",
        "Host *",
        f'  IdentityFile "{ssh.key_file}"',
        f'  UserKnownHostsFile "{ssh.known_hosts}"',
        *(f"  {name} {value}" for name, value in known.items()),
    ]
    config.write_text("\n".join(lines) + "\n")
    table = fleet.lab.exec("inf-01", ["nft", "-s", "list", "table", "inet", "mt5crs"]).stdout
    through_the_hub = re.sub(r'saddr \S+( .* comment "SSH from)', rf"saddr {hub}\1", table)
    assert through_the_hub != table
    replace = f"delete table inet mt5crs\n{through_the_hub}"
    fleet.lab.exec("inf-01", ["nft", "-f", "-"], input_text=replace)
    fleet.override(ansible_ssh_extra_args=f"-F {config}", baseline_ssh_tcp_forwarding=True)
    yield fleet
    fleet.lab.exec("inf-01", ["sh", "/opt/mt5crs/baseline/current/in_force.sh", "use"])


def test_a_jump_host_is_on_the_way_of_both(behind_a_jump_host: Fleet) -> None:
    for engine in ENGINES:
        ran = look(behind_a_jump_host, engine)
        assert ran.status == 0, ran.output[-3000:]
        assert "inf-01" not in {failure["host"] for failure in ran.record["failures"]}
