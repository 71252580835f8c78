from pathlib import Path

from lab.plan import make_plan
from lab.podman import (
    Podman,
    allowed_limits,
    container_name,
    last_line,
    mac_address,
    network_argv,
    run_argv,
)

PLAN = make_plan("x", "10.203.7.0/24", 40)
HOST = PLAN.host("inf-01")
PROJECT = Path("/project")


def test_network_is_the_labs_own_without_name_server() -> None:
    assert network_argv(PLAN, PROJECT) == [
        "network", "create", "--disable-dns", "--subnet", "10.203.7.0/24", "--gateway", "10.203.7.1",
        "--label", "mt5crs.lab=x", "--label", "mt5crs.lab.project=/project", "mt5crs-x",
    ]  # fmt: skip


def test_container_is_a_systemd_host_with_its_fixed_address() -> None:
    argv = run_argv(PLAN, HOST, "image:tag", Path("/seed"), PROJECT, {"nproc": 30000, "nofile": 20000})

    assert argv == [
        "run", "--detach", "--name", "mt5crs-x-inf-01", "--hostname", "inf-01",
        "--label", "mt5crs.lab=x", "--label", "mt5crs.lab.host=inf-01",
        "--label", "mt5crs.lab.project=/project",
        "--network", "mt5crs-x", "--ip", "10.203.7.21", "--mac-address", "02:00:0a:cb:07:15",
        "--systemd=always", "--privileged", "--pids-limit=0", "--pull=never", "--log-driver=k8s-file",
        "--restart=always", "--stop-timeout=30",
        "--volume", "/seed:/etc/lab-seed:ro", "--volume", "/var/log/journal",
        "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=30000:30000",
        "image:tag", "/usr/local/sbin/lab-init",
    ]  # fmt: skip


def test_hosts_of_all_labs_differ_in_hardware_address_and_container_name() -> None:
    other = make_plan("y", "10.203.8.0/24", 40)
    pairs = [(plan, host) for plan in (PLAN, other) for host in plan.hosts]

    assert len({mac_address(host) for _, host in pairs}) == 80
    assert len({container_name(plan.name, host.name) for plan, host in pairs}) == 80
    assert all(int(mac_address(host)[:2], 16) & 0b11 == 0b10 for _, host in pairs)  # local, not multicast


def test_no_limit_is_above_the_hard_limit_of_this_process() -> None:
    import resource

    limits = allowed_limits()

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert 0 < limits["nofile"] <= (1048576 if hard == resource.RLIM_INFINITY else hard)
    assert 0 < limits["nproc"] <= 30000


def test_commands_are_run_in_the_labs_namespace() -> None:
    podman = Podman(("nsenter", "--mount=/proc/7/ns/mnt", "--", "podman"))

    assert podman.exec_argv("c", ["id"], tty=False) == [
        "nsenter",
        "--mount=/proc/7/ns/mnt",
        "--",
        "podman",
        "exec",
        "--interactive",
        "c",
        "id",
    ]
    assert podman.exec_argv("c", ["sh"], tty=True)[4:] == ["exec", "--interactive", "--tty", "c", "sh"]


def test_cause_is_the_last_line_that_says_something() -> None:
    assert last_line("Trying…\nError: no space left\n\n") == "Error: no space left"
    assert last_line(" \n") == "no message"
