"""A wrong firewall locks nobody out for long; what was changed by hand is found and put right."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from lab.handle import Lab, wait_until
from lab.state import PROJECT
from tests.lab.engines import Fleet

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

HOST = "inf-02"
RULES = "/etc/mt5crs/nftables.conf"
TABLE = ["nft", "-s", "list", "table", "inet", "mt5crs"]
ACCESS = "/usr/local/sbin/mt5crs-access"
STALE = (PROJECT / "templates" / "baseline" / "stale.sh").read_text()


@pytest.fixture
def lab(deployed: Fleet) -> Iterator[Lab]:
    """Whatever a test does to the rules wanted on HOST is undone."""
    fleet = deployed.lab
    wanted = fleet.exec(HOST, ["cat", RULES]).stdout
    yield fleet
    fleet.exec(HOST, ["tee", RULES], input_text=wanted)
    if fleet.exec(HOST, ["test", "-d", "/run/mt5crs-access"], check=False).returncode == 0:
        fleet.exec(HOST, ["systemctl", "stop", "mt5crs-access-restore.timer"], check=False)
        fleet.exec(HOST, [ACCESS, "restore"])
    assert stale(fleet) == []


def stale(lab: Lab) -> list[str]:
    """Words of stale.sh: what runs otherwise than it is configured."""
    return lab.exec(HOST, ["sh", "-s"], input_text=STALE).stdout.split()


def gets_in(lab: Lab) -> bool:
    """Whether a new SSH connection from the controller succeeds."""
    argv = lab.ssh_argv(HOST, ["true"])
    quick = [*argv[:1], "-o", "ConnectTimeout=2", "-o", "ControlPath=none", *argv[1:]]
    return subprocess.run(quick, capture_output=True, timeout=30, check=False).returncode == 0


def test_nothing_is_stale_after_a_deployment(lab: Lab) -> None:
    assert stale(lab) == []


def test_rules_that_lock_out_are_put_back_by_the_host_itself(lab: Lab) -> None:
    in_force = lab.exec(HOST, TABLE).stdout
    wanted = lab.exec(HOST, ["cat", RULES]).stdout
    locked = "\n".join(line for line in wanted.splitlines() if "SSH from the controllers" not in line) + "\n"
    assert locked != wanted
    lab.exec(HOST, ["tee", RULES], input_text=locked)

    lab.exec(HOST, [ACCESS, "apply", "10"])
    assert not gets_in(lab)

    wait_until(lambda: gets_in(lab), 40, "the host to let us in again")
    assert lab.exec(HOST, TABLE).stdout == in_force
    late = lab.exec(HOST, [ACCESS, "confirm"], check=False)
    assert late.returncode == 1
    assert "too late" in late.stderr


def test_an_unconfirmed_change_is_not_what_a_reboot_would_load(lab: Lab) -> None:
    at_boot = lab.exec(HOST, ["cat", "/etc/nftables.conf"]).stdout
    wanted = lab.exec(HOST, ["cat", RULES]).stdout
    lab.exec(HOST, ["tee", RULES], input_text=wanted + "# changed\n")
    lab.exec(HOST, [ACCESS, "apply", "60"])
    assert lab.exec(HOST, ["cat", "/etc/nftables.conf"]).stdout == at_boot
    lab.exec(HOST, [ACCESS, "restore"])


def test_rules_that_nft_refuses_change_nothing(lab: Lab) -> None:
    in_force = lab.exec(HOST, TABLE).stdout
    lab.exec(HOST, ["tee", RULES], input_text="table inet mt5crs { chain broken {\n")
    refused = lab.exec(HOST, [ACCESS, "apply", "60"], check=False)
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr
    assert lab.exec(HOST, TABLE).stdout == in_force
    assert lab.exec(HOST, ["test", "-d", "/run/mt5crs-access"], check=False).returncode == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (["nft", "add", "rule", "inet", "mt5crs", "inbound", "tcp", "dport", "4444", "accept"], "access"),
        (["rm", "/etc/ssh/sshd_config.d/10-mt5crs.conf"], "access"),
        (["sh", "-c", "echo 120 >/proc/sys/net/ipv4/tcp_keepalive_time"], "sysctl"),
        (["systemctl", "stop", "chrony.service"], "chrony"),
        (["touch", "/etc/systemd/journald.conf.d/50-mt5crs.conf"], "journald"),
    ],
)
def test_what_was_changed_by_hand_is_found_and_put_right(
    deployed: Fleet, lab: Lab, change: list[str], word: str
) -> None:
    lab.exec(HOST, change)
    assert stale(lab) == [word]
    ran = deployed.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    assert stale(lab) == []
