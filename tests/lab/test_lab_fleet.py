"""The lab itself: real hosts, real SSH, real faults. Looks at the default lab; hurts only one of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet.inventory import resolve
from lab import faults, fleet, image
from lab.errors import LabError
from lab.handle import Lab, wait_until
from lab.podman import network_name
from lab.state import PROJECT

pytestmark = pytest.mark.lab

OWN = "fleet-test"
HOSTS = ("hub-01", "inf-01", "gtw-01")  # Debian 13, 12, 13
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def ignore(_: fleet.Phase) -> None:
    pass


@pytest.fixture(scope="module")
def default_lab() -> Lab:
    return Lab.open("default")  # booted by `make lab-test`; another process of pytest may be at work on it


@pytest.fixture(scope="module")
def own_lab() -> Iterator[Lab]:
    fleet.up(OWN, ignore, len(HOSTS), "mixed")
    yield Lab.open(OWN)
    fleet.down(OWN, ignore)


@pytest.fixture
def healed(own_lab: Lab) -> Iterator[Lab]:
    yield own_lab
    faults.heal(OWN)


def command(*arguments: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "lab", *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def reaches(lab: Lab, host: str, peer: str) -> bool:
    argv = ["ping", "-c", "1", "-W", "1", lab.plan.host(peer).address]
    return lab.exec(host, argv, check=False).returncode == 0


def containers(lab: Lab) -> set[str]:
    return {container["Id"] for container in lab.podman.containers(lab.plan.name).values()}


def test_default_fleet_runs_and_a_second_up_changes_nothing(default_lab: Lab) -> None:
    before = (containers(default_lab), [default_lab.boot_id(host.name) for host in default_lab.plan.hosts])

    again = command("up")

    assert again.returncode == 0, again.stderr
    assert "up already, nothing changed: 4 hosts" in again.stdout
    assert "booted" not in again.stdout
    after = (containers(default_lab), [default_lab.boot_id(host.name) for host in default_lab.plan.hosts])
    assert after == before
    described = json.loads(command("status", "--json").stdout)["hosts"]
    assert [(host["name"], host["address"]) for host in described] == [
        ("hub-01", "10.203.0.11"),
        ("inf-01", "10.203.0.21"),
        ("inf-02", "10.203.0.22"),
        ("gtw-01", "10.203.0.31"),
    ]


@pytest.mark.parametrize(("host", "codename"), [*zip(HOSTS, ("trixie", "bookworm", "trixie"), strict=True)])
def test_host_is_the_debian_asked_for_with_systemd_as_pid_1(own_lab: Lab, host: str, codename: str) -> None:
    assert f"VERSION_CODENAME={codename}" in own_lab.ssh(host, "cat /etc/os-release").stdout
    assert own_lab.ssh(host, "cat /proc/1/comm; hostname").stdout.split() == ["systemd", host]
    assert own_lab.system_state(host) == "running"


@pytest.mark.parametrize("host", HOSTS)
def test_ops_has_passwordless_sudo_and_nobody_gets_in_by_password(own_lab: Lab, host: str) -> None:
    assert own_lab.ssh(host, "id -un; sudo -n id -un").stdout.split() == ["ops", "root"]
    effective = own_lab.exec(host, ["/usr/sbin/sshd", "-T"]).stdout.splitlines()
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no"} <= set(
        effective
    )
    keyless = own_lab.ssh_argv(host, ["true"])
    keyless[keyless.index("-i") + 1] = "/nonexistent"
    refused = subprocess.run(keyless, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_host_with_another_key_is_not_talked_to(own_lab: Lab, tmp_path: Path) -> None:
    lines = own_lab.directory.known_hosts.read_text().splitlines()
    keys = [line.split()[2] for line in lines]
    assert len(set(keys)) == len(HOSTS)
    swapped = tmp_path / "known_hosts"
    swapped.write_text(own_lab.directory.known_hosts.read_text().replace(keys[0], keys[1]))
    argv = [
        argument.replace(str(own_lab.directory.known_hosts), str(swapped))
        for argument in own_lab.ssh_argv(HOSTS[0], ["true"])
    ]

    refused = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_hosts_are_distinct_machines(own_lab: Lab) -> None:
    for file in ("/etc/machine-id", BOOT_ID, "/sys/class/net/eth0/address"):
        assert len({own_lab.exec(host, ["cat", file]).stdout for host in HOSTS}) == len(HOSTS)


@pytest.mark.parametrize("host", HOSTS)
def test_what_provisioning_needs_is_installed_but_not_started(own_lab: Lab, host: str) -> None:
    services = ["chrony", "nftables", "prometheus", "prometheus-alertmanager", "prometheus-node-exporter"]
    packages = own_lab.exec(
        host, ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *services]
    ).stdout
    assert packages.split("\n")[:-1] == [f"{name} installed" for name in services]
    enabled = own_lab.exec(host, ["systemctl", "is-enabled", *services], check=False).stdout.split()
    active = own_lab.exec(host, ["systemctl", "is-active", *services], check=False).stdout.split()
    assert enabled == ["disabled"] * len(services)
    assert active == ["inactive"] * len(services)


@pytest.mark.parametrize("host", HOSTS)
def test_host_can_touch_neither_the_machines_clock_nor_its_disks(own_lab: Lab, host: str) -> None:
    clock = own_lab.exec(
        host, ["systemd-run", "--wait", "--collect", "--quiet", "--pipe", "date", "--set", "@0"], check=False
    )
    assert clock.returncode != 0
    assert "Operation not permitted" in clock.stderr
    assert own_lab.exec(host, ["find", "/dev", "-type", "b"]).stdout == ""
    own_lab.exec(host, ["systemctl", "start", "chrony"])
    try:
        assert "Leap status" in own_lab.exec(host, ["chronyc", "-n", "tracking"]).stdout
    finally:
        own_lab.exec(host, ["systemctl", "stop", "chrony"])


def test_inventory_of_a_further_lab_leads_both_engines_to_its_hosts(own_lab: Lab) -> None:
    resolved = resolve(own_lab.directory.inventory)

    addresses = {name: variables["ansible_host"] for name, variables in resolved.hosts.items()}
    assert addresses == {host.name: host.address for host in own_lab.plan.hosts}
    key = Path(str(resolved.hosts["inf-01"]["ansible_ssh_private_key_file"]))
    assert key.samefile(own_lab.directory.key_file)
    assert own_lab.plan.network != "10.203.0.0/24"
    assert (own_lab.directory.root / "group_vars/lab/vault.yml").read_text().startswith("$ANSIBLE_VAULT")


@pytest.mark.parametrize("host", HOSTS[:2])
@pytest.mark.parametrize("hard", [False, True], ids=["in-order", "power-cut"])
def test_reboot_is_a_new_boot_of_the_same_host(own_lab: Lab, host: str, hard: bool) -> None:
    before = own_lab.boot_id(host)
    disk, memory = "/var/lib/witness", "/run/witness"
    own_lab.exec(host, ["sh", "-c", f"touch {disk} {memory} && sync && journalctl --sync"])

    faults.reboot(own_lab, host, hard=hard)

    assert own_lab.boot_id(host) not in (None, before)
    assert own_lab.exec(host, ["ls", disk]).returncode == 0
    assert own_lab.exec(host, ["ls", memory], check=False).returncode != 0
    boots = own_lab.exec(host, ["journalctl", "--list-boots", "--no-pager"]).stdout
    assert str(before).replace("-", "") in boots
    assert reaches(own_lab, "gtw-01", host)


def test_host_that_reboots_itself_comes_back(own_lab: Lab) -> None:
    before = own_lab.boot_id("inf-01")

    own_lab.ssh("inf-01", "sudo systemctl reboot", check=False)

    wait_until(lambda: own_lab.boot_id("inf-01") not in (None, before), 60, "the reboot")
    assert own_lab.wait_ready("inf-01") == "running"


def test_dead_host_stays_dead_until_up_starts_it_and_only_it(own_lab: Lab) -> None:
    others = {host: own_lab.boot_id(host) for host in ("hub-01", "gtw-01")}
    ids = containers(own_lab)

    faults.kill(own_lab, "inf-01")

    seen = command("status", "--name", OWN, "--json")
    assert seen.returncode == 1
    assert {host["name"]: host["state"] for host in json.loads(seen.stdout)["hosts"]} == {
        "hub-01": "running",
        "inf-01": "stopped",
        "gtw-01": "running",
    }
    again = command("up", "--name", OWN)
    assert "1 started, 2 running" in again.stdout, again.stdout + again.stderr
    assert own_lab.system_state("inf-01") == "running"
    assert {host: own_lab.boot_id(host) for host in others} == others
    assert containers(own_lab) == ids


def test_cut_parts_two_hosts_and_only_those_whatever_their_own_firewall_does(healed: Lab) -> None:
    faults.cut(healed, "inf-01", "gtw-01")
    healed.exec("inf-01", ["nft", "flush", "ruleset"])

    assert not reaches(healed, "inf-01", "gtw-01")
    assert not reaches(healed, "gtw-01", "inf-01")
    assert reaches(healed, "inf-01", "hub-01")
    assert healed.wait_ready("inf-01") == "running"
    faults.reboot(healed, "inf-01", hard=True)
    assert not reaches(healed, "inf-01", "gtw-01")
    faults.heal(OWN)
    assert reaches(healed, "inf-01", "gtw-01")


def test_cut_from_the_controller_silences_ssh_but_not_the_fleet(healed: Lab) -> None:
    faults.cut(healed, "inf-01", faults.CONTROLLER)

    with pytest.raises(LabError, match=r"inf-01 .* was not ready within 1 s"):
        healed.wait_ready("inf-01", 1)
    assert reaches(healed, "inf-01", "gtw-01")
    faults.heal(OWN)
    assert healed.wait_ready("inf-01") == "running"


def test_another_checkout_cannot_take_or_remove_a_lab_that_is_not_its_own(
    own_lab: Lab, tmp_path: Path
) -> None:
    for package in ("lab", "deploy"):
        shutil.copytree(PROJECT / package, tmp_path / package)

    for arguments in (("up", "--name", OWN), ("down", "--name", OWN)):
        refused = command(*arguments, cwd=tmp_path)
        assert refused.returncode == 1
        assert f"belongs to {PROJECT}" in refused.stderr
    assert [own_lab.system_state(host) for host in HOSTS] == ["running"] * len(HOSTS)


def test_images_of_earlier_definitions_are_forgotten_and_the_one_in_use_stays(own_lab: Lab) -> None:
    current, old = image.reference("13"), f"{image.REPOSITORY}:debian13-000000000000"
    own_lab.podman.run("tag", current, old)

    image.forget_older(own_lab.podman, "13")

    assert own_lab.podman.run("image", "exists", old, check=False).returncode == 1
    assert image.exists(own_lab.podman, "13")


def test_other_shape_is_refused_and_the_lab_left_alone(own_lab: Lab) -> None:
    refused = command("up", "--name", OWN, "--hosts", "5")

    assert refused.returncode == 1
    assert f"lab {OWN} exists with 3 hosts and Debian mixed" in refused.stderr
    assert len(containers(own_lab)) == len(HOSTS)


def test_down_leaves_nothing_of_the_lab_and_all_of_the_others(default_lab: Lab) -> None:
    name = "removal-test"
    fleet.up(name, ignore, 3)
    lab = Lab.open(name)
    faults.cut(lab, "inf-01")
    others = containers(default_lab)

    done = command("down", "--name", name)

    assert f"lab {name} removed" in done.stdout, done.stderr
    assert lab.podman.containers(name) == {}
    assert network_name(name) not in {network["name"] for network in lab.podman.networks()}
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=10, check=True)
    assert faults.table_name(name) not in tables.stdout
    assert not lab.directory.root.exists()
    assert containers(default_lab) == others
    assert "nothing to do" in command("down", "--name", name).stdout


def test_hosts_whose_keys_are_gone_are_replaced() -> None:
    name = "orphan-test"
    fleet.up(name, ignore, 3)
    before = containers(Lab.open(name))
    shutil.rmtree(Lab.open(name).directory.root)
    try:
        again = command("up", "--name", name, "--hosts", "3")

        assert again.returncode == 0, again.stderr
        assert "3 booted" in again.stdout
        assert containers(Lab.open(name)).isdisjoint(before)
    finally:
        fleet.down(name, ignore)
