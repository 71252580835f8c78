"""Firewall, sshd and kernel settings change as a generation does: tried, confirmed or gone back, whole."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import zipapp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import resolve
from deploy.fleet.rendering import render
from lab import faults
from lab.handle import wait_until
from lab.state import PROJECT
from tests.lab.engines import Fleet
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

HOST = "inf-02"
TOOL = "/usr/local/sbin/mt5crs-release"
TABLE = ["nft", "-s", "list", "table", "inet", "mt5crs"]
STALE = (PROJECT / "templates" / "baseline" / "stale.sh").read_text()
IN_FORCE = f"{' '.join(TABLE)}; sshd -T | sort; cat /etc/nftables.conf /proc/sys/net/ipv4/tcp_keepalive_time"
OLD, NEW = 9102, 9342
"""Ports of the reconciler's metrics that are admitted before and after the changes below."""


class Host:
    """One host of the deployed fleet, and another baseline for it."""

    def __init__(self, fleet: Fleet) -> None:
        self.lab = fleet.lab
        self.settings = resolve(fleet.inventory).hosts[HOST]
        self.before = self.status()["current"]

    def tool(self, *arguments: str, spec: str | None = None) -> tuple[int, dict[str, Any]]:
        done = self.lab.exec(HOST, [TOOL, *arguments, "--json"], input_text=spec, check=False)
        return done.returncode, json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        return dict(self.tool("status", "baseline")[1]["services"]["baseline"])

    def activate(self, seconds: int, without: str = "", **settings: Any) -> tuple[int, dict[str, Any]]:
        """Stage and activate the baseline with other settings, its rules without the lines that say so."""
        document = json.loads(render("release/baseline.json.j2", {**self.settings, **settings}))
        rules = document["files"]["nftables.conf"]
        lines = str(rules["content"]).splitlines()
        rules["content"] = "\n".join(line for line in lines if not without or without not in line)
        status, staged = self.tool("stage", "baseline", spec=json.dumps(document))
        assert status == 0, staged
        return self.tool("activate", "baseline", "--confirm-timeout", str(seconds))

    def in_force(self) -> str:
        return self.lab.exec(HOST, ["sh", "-c", IN_FORCE]).stdout

    def admits(self) -> set[int]:
        """Which of the two ports the firewall lets the Hub use."""
        table = self.lab.exec(HOST, TABLE).stdout
        return {port for port in (OLD, NEW) if f"{port}" in table}

    def stale(self) -> list[str]:
        """Words of stale.sh: what runs otherwise than it is configured."""
        return self.lab.exec(HOST, ["sh", "-s"], input_text=STALE).stdout.split()

    def gets_in(self) -> bool:
        """Whether a new SSH connection from the controller succeeds."""
        argv = self.lab.ssh_argv(HOST, ["true"])
        quick = [*argv[:1], "-o", "ConnectTimeout=2", "-o", "ControlPath=none", *argv[1:]]
        return subprocess.run(quick, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture
def host(deployed: Fleet) -> Iterator[Host]:
    """HOST; what a test left there is taken back."""
    made = Host(deployed)
    yield made
    now = made.status()
    if now["state"] != "confirmed":
        made.tool("revert", "baseline")
    if made.status()["current"] != made.before:
        made.tool("rollback", "baseline", "--to", made.before)
    assert made.status()["current"] == made.before
    assert made.stale() == []


def test_nothing_is_stale_after_a_deployment(host: Host) -> None:
    assert host.stale() == []


ACCEPTED_WARNINGS = {"does not provide protection against post-quantum attacks"}
"""The oldest OpenSSH that is supported has one such method; the others remain for clients without it."""


def test_ssh_audit_finds_no_failure(host: Host, tmp_path: Path) -> None:
    """It runs on the host: sshd bars an address for a while that connects as it does, and that is ours."""
    import ssh_audit

    program = tmp_path / "ssh-audit"
    shutil.copytree(Path(ssh_audit.__file__).parent, program / "ssh_audit")
    zipapp.create_archive(program, tmp_path / "ssh-audit.pyz", main="ssh_audit.ssh_audit:main")
    text = base64.b64encode((tmp_path / "ssh-audit.pyz").read_bytes()).decode()
    run = (
        "base64 -d >/run/ssh-audit.pyz && python3 /run/ssh-audit.pyz --json 127.0.0.1; rm /run/ssh-audit.pyz"
    )
    said = json.loads(host.lab.exec(HOST, ["sh", "-c", run], input_text=text, timeout_s=60).stdout)
    offered = [each for kind in ("kex", "key", "enc", "mac") for each in said[kind]]
    assert len(offered) > 10
    assert [each["algorithm"] for each in offered if each.get("notes", {}).get("fail")] == []
    warnings = {text for each in offered for text in each.get("notes", {}).get("warn", [])}
    assert warnings <= ACCEPTED_WARNINGS


LEAST_INDEX = 74
"""Of lynis, in a container: the kernel's own settings are the machine's (baseline_sysctl_strict)."""
LYNIS = (
    "(dpkg -s lynis || { apt-get update -q && apt-get install -y -q --no-install-recommends lynis; }) >&2 && "
    "lynis audit system --quick --no-colors --quiet >&2; cat /var/log/lynis.log; "
    "apt-get purge -y -q lynis >&2"
)


def costs(log: str) -> dict[str, int]:
    """Test of lynis → points that it did not give."""
    lost: dict[str, int] = {}
    test = ""
    for line in log.splitlines():
        began = re.search(r"Performing test ID (\S+)", line)
        test = began[1] if began else test
        points = re.search(r"assigned partial number of hardening points \((\d+) of (\d+)\)", line)
        if points and points[1] != points[2]:
            lost[test] = lost.get(test, 0) + int(points[2]) - int(points[1])
    return lost


@pytest.mark.slow(reason="lynis comes from Debian's mirror and takes most of a minute")
def test_what_costs_points_of_lynis_is_a_deviation_with_a_reason(host: Host) -> None:
    log = host.lab.exec(HOST, ["sh", "-c", LYNIS], timeout_s=300).stdout
    index = re.search(r"Hardening index : \[(\d+)\]", log)
    assert index, log[-2000:]
    document = (PROJECT / "docs" / "security.md").read_text()
    cells = re.findall(r"^\| (`[A-Z].*?) \|", document, re.MULTILINE)
    stated = {test for cell in cells for test in re.findall(r"`([A-Z]{3,4}-\d{4})`", cell)}
    lost = costs(log)
    assert {test: points for test, points in lost.items() if test not in stated} == {}
    assert int(index[1]) >= LEAST_INDEX, lost


def test_both_are_admitted_until_the_new_one_is_confirmed(host: Host) -> None:
    in_force = host.in_force()
    status, activated = host.activate(60, fleet_scraped_ports=[NEW], baseline_sysctl=KEEPALIVE)
    assert (status, activated["state"]) == (0, "provisional"), activated
    assert host.admits() == {OLD, NEW}
    assert host.stale() == []
    status, confirmed = host.tool("confirm", "baseline")
    assert (status, confirmed["state"]) == (0, "confirmed"), confirmed
    assert host.admits() == {NEW}
    assert host.stale() == []
    status, back = host.tool("rollback", "baseline")
    assert status == 0, back
    assert host.in_force() == in_force


KEEPALIVE = {"net.ipv4.tcp_keepalive_time": "50"}


def test_a_revert_puts_the_old_one_in_force_alone(host: Host) -> None:
    in_force = host.in_force()
    host.activate(60, fleet_scraped_ports=[NEW], baseline_sysctl=KEEPALIVE)
    assert host.in_force() != in_force
    assert host.tool("revert", "baseline")[0] == 0
    assert host.in_force() == in_force


def test_rules_that_lock_out_are_put_back_by_the_host_itself(host: Host) -> None:
    in_force = host.in_force()
    host.activate(8, without="SSH from the controllers")
    assert not host.gets_in()
    wait_until(host.gets_in, 40, "the host to let us in again")
    wait_until(lambda: host.status()["state"] == "confirmed", 20, "the revert to end")
    assert host.in_force() == in_force
    status, late = host.tool("confirm", "baseline")
    assert status == 1
    assert "nobody confirmed it within 8 s" in late["error"]["message"]


def test_a_reboot_before_it_is_confirmed_reverts_it(host: Host) -> None:
    in_force = host.in_force()
    host.activate(300, fleet_scraped_ports=[NEW], baseline_sysctl=KEEPALIVE)
    faults.reboot(host.lab, HOST)
    wait_until(lambda: host.status()["units"] == {"mt5crs-baseline.service": "active"}, 60, "the boot")
    assert host.status()["current"] == host.before
    assert host.in_force() == in_force
    wait_until(lambda: not host.stale(), 30, "everything to run as configured")


@pytest.mark.parametrize(
    ("settings", "without", "why"),
    [
        ({}, "chain inbound", "nft refuses the firewall"),
        (
            {"baseline_sysctl": {"net.ipv4.no_such": "1"}, "baseline_sysctl_strict": True},
            *("", 'net.ipv4.no_such is "", wanted "1"'),
        ),
    ],
)
def test_what_cannot_be_put_in_force_changes_nothing(
    host: Host, settings: dict[str, Any], without: str, why: str
) -> None:
    in_force = host.in_force()
    status, refused = host.activate(60, without, **settings)
    assert status == 1
    assert why in "\n".join([refused["error"]["message"], *refused["journal"]]), refused
    assert host.in_force() == in_force


SSHD = "/etc/ssh/sshd_config.d"
SOMEBODY_ELSES = f"echo X11Forwarding yes >{SSHD}/00-other.conf"
BY_HAND = {
    # What somebody changes, and the way back that leaves only the next one to be found.
    "nft add rule inet mt5crs inbound tcp dport 4444 accept": "systemctl reload mt5crs-baseline",
    f"mv {SSHD}/10-mt5crs.conf /run/": f"mv /run/10-mt5crs.conf {SSHD}/",
    SOMEBODY_ELSES: f"rm {SSHD}/00-other.conf",
    "echo 120 >/proc/sys/net/ipv4/tcp_keepalive_time": "systemctl reload mt5crs-baseline",
}


def test_what_was_changed_by_hand_is_found_and_put_right(deployed: Fleet, host: Host) -> None:
    def by_hand(what: str) -> None:
        host.lab.exec(HOST, ["sh", "-c", what])

    for change, way_back in BY_HAND.items():
        by_hand(change)
        assert host.stale() == ["baseline"], change
        by_hand(way_back)
        assert host.stale() == [], way_back
    by_hand("systemctl stop chrony.service")
    assert host.stale() == ["chrony"]
    by_hand("touch /etc/systemd/journald.conf.d/50-mt5crs.conf")
    assert sorted(host.stale()) == ["chrony", "journald"]

    # All at once, but for the file of somebody else: a deployment does not remove what it has not brought.
    for change in BY_HAND.keys() - {SOMEBODY_ELSES}:
        by_hand(change)
    assert sorted(host.stale()) == ["baseline", "chrony", "journald"]
    looked = deployed.pyinfra("--dry")
    assert re.search(rf"^would change  Baseline .*: {HOST}$", looked.output, re.M), looked.output[-4000:]
    ran = deployed.pyinfra()
    assert ran.status == 0, ran.output[-4000:]
    assert host.stale() == []


@pytest.mark.parametrize(
    "engine", ["pyinfra", pytest.param("ansible", marks=pytest.mark.slow(reason=OTHER_ENGINE))]
)
def test_a_deployment_that_fails_takes_who_gets_in_back_with_it(fleet: Fleet, engine: str) -> None:
    def in_force(name: str) -> str:
        return fleet.lab.exec(name, ["sh", "-c", IN_FORCE]).stdout

    before = {name: in_force(name) for name in ("gtw-01", HOST)}
    generations = fleet.generations()
    fleet.override(gateway_port=5565, baseline_sysctl=KEEPALIVE, strategy_strategy="nowhere:Nothing")
    ran = fleet.pyinfra() if engine == "pyinfra" else fleet.playbook("site.yml")
    assert ran.status != 0
    assert "baseline on gtw-01" in ran.record["put_back"]
    assert {name: in_force(name) for name in before} == before
    assert fleet.generations() == generations
    assert fleet.running()
