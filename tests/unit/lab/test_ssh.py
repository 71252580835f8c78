import subprocess
from pathlib import Path

from lab.plan import make_plan
from lab.ssh import known_hosts_line, ssh_argv, write_keys
from lab.state import LabDirectory

PLAN = make_plan("x", "10.203.7.0/24", 3)


def test_host_keys_are_always_checked_against_the_labs_own_list() -> None:
    directory = LabDirectory("x", Path("/project"))

    argv = ssh_argv(directory, PLAN.host("inf-01"), ["uptime"])

    assert argv[-2:] == ["ops@10.203.7.21", "uptime"]
    for option in (
        "StrictHostKeyChecking=yes",
        'UserKnownHostsFile="/project/.lab/x/known_hosts"',
        "GlobalKnownHostsFile=none",
        "BatchMode=yes",
    ):
        assert argv[argv.index(option) - 1] == "-o"


def test_known_hosts_has_address_and_name_but_no_comment() -> None:
    assert known_hosts_line(PLAN.host("hub-01"), "ssh-ed25519 AAAA root@laptop\n") == (
        "10.203.7.11,hub-01 ssh-ed25519 AAAA\n"
    )


def test_keys_are_private_distinct_and_kept(tmp_path: Path) -> None:
    directory = LabDirectory("x", tmp_path)
    write_keys(directory, PLAN)
    private = [
        directory.key_file,
        *(directory.seed(host.name) / "ssh_host_ed25519_key" for host in PLAN.hosts),
    ]
    before = [key.read_text() for key in private]

    write_keys(directory, PLAN)

    assert [key.read_text() for key in private] == before
    assert len(set(before)) == 4
    assert {key.stat().st_mode & 0o077 for key in private} == {0}
    for host in PLAN.hosts:
        public = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(directory.seed(host.name) / "ssh_host_ed25519_key")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[1]
        assert f"{host.address},{host.name} ssh-ed25519 {public}\n" in directory.known_hosts.read_text()
