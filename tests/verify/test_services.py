"""Our services are enabled, run, and answer their own health check."""

from testinfra.host import Host

from tests.verify.node import Node


def journal(node: Node, unit: str) -> str:
    return node.run("journalctl", "-u", unit, "-n", "20", "--no-pager", "-o", "cat").stdout


def test_service_is_enabled_and_running(node: Node, unit: str, host: Host) -> None:
    service = host.service(f"mt5crs-{node.installed(unit)}")
    assert service.is_enabled
    assert service.is_running, journal(node, f"mt5crs-{node.installed(unit)}")


def test_a_gateway_under_wine_has_its_terminal_beside_it_and_no_other_host(node: Node, host: Host) -> None:
    wanted = (
        "gateway" in node.groups
        and node.variables["gateway_platform"] == "wine"
        and bool(node.variables["gateway_wine_display"])
    )
    assert host.service("mt5crs-terminal").is_running == wanted, journal(node, "mt5crs-terminal")


def test_service_says_it_is_healthy(node: Node, unit: str) -> None:
    current = f"/opt/mt5crs/{node.installed(unit)}/current"
    health = node.run(
        f"{current}/venv/bin/python", "-m", "mt5crs", "health", unit, "--env-file", f"{current}/.env"
    )
    assert health.returncode == 0, (
        health.stdout + health.stderr + journal(node, f"mt5crs-{node.installed(unit)}")
    )


def test_service_runs_the_current_generation(node: Node, unit: str) -> None:
    status = node.run("mt5crs-release", "status", unit)
    assert status.returncode == 0, status.stderr
    assert "confirmed" in status.stdout


def test_unit_in_use_is_the_one_of_the_current_generation(node: Node, unit: str) -> None:
    name = f"mt5crs-{node.installed(unit)}.service"
    shown = node.run("systemctl", "show", name, "--property=NeedDaemonReload,FragmentPath").stdout
    fragment = dict(line.split("=", 1) for line in shown.splitlines())
    assert fragment["NeedDaemonReload"] == "no"
    real = node.run("readlink", "-f", fragment["FragmentPath"]).stdout.strip()
    current = node.run("readlink", "-f", f"/opt/mt5crs/{node.installed(unit)}/current").stdout.strip()
    assert real == f"{current}/units/{name}"
