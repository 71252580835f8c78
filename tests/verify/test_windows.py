"""A Windows gateway runs what was confirmed, is as the inventory says, and keeps its secrets to itself.

That Inf hosts reach it with their keys is in test_links.py, that the Hub scrapes it in test_monitoring.py,
and who may reach its ports in test_firewall.py.
"""

import json

import pytest

from deploy.preflight.gathering import OF_THE_RELEASE
from deploy.remote import windows_play
from mt5crs_release.systems.windows.rights import rights_problems
from tests.verify.test_secrets import secrets_of
from tests.verify.windows_gateway import ACCOUNT, WindowsGateway


def test_the_confirmed_generation_runs_unchanged(windows: WindowsGateway) -> None:
    status = windows.status
    seen = {name: status[name] for name in ("state", "intact", "pending")}
    assert seen == {"state": "confirmed", "intact": True, "pending": None}
    assert status["units"] == {"mt5crs-gateway.service": "active"}


def test_its_program_is_the_version_that_the_release_names(windows: WindowsGateway) -> None:
    told = windows.run(f"{windows.generation}/venv/Scripts/python.exe", "-m", "mt5crs", "--version")
    assert told.split()[-1] == windows.status["version"]


def test_it_says_it_is_healthy(windows: WindowsGateway) -> None:
    variables = windows.node.variables
    address = (
        "--address",
        str(variables["gateway_metrics_address"]),
        "--port",
        str(variables["gateway_metrics_port"]),
    )
    # Its exit status is what counts: the module fails unless that is 0.
    windows.run(
        f"{windows.generation}/venv/Scripts/python.exe", "-m", "mt5crs", "health", "gateway", *address
    )


def test_it_is_started_by_windows_as_its_own_account(windows: WindowsGateway) -> None:
    if windows.node.variables["gateway_run_mode"] == "logon_task":
        windows.run("schtasks.exe", "/Query", "/TN", "\\mt5crs\\mt5crs-gateway")
        return
    service = windows.service("mt5crs-gateway")
    assert (service["state"], service["start_mode"]) == ("started", "delayed")
    assert service["username"].rpartition("\\")[2] == ACCOUNT
    known = json.dumps(service)
    assert [number for number, secret in enumerate(secrets_of(windows.node)) if secret in known] == []


@pytest.mark.parametrize("name", ["", "/.env"], ids=["generation", ".env"])
def test_secrets_are_readable_by_their_owners_alone(windows: WindowsGateway, name: str) -> None:
    sddl = windows.rights(windows.generation + name)
    assert list(rights_problems(name, sddl, windows.readers)) == []
    service = next(iter(windows.readers - {"S-1-5-18", "S-1-5-32-544"}))
    assert service in sddl, "the service itself could not read it"


def test_time_is_kept_by_windows_time(windows: WindowsGateway) -> None:
    service = windows.service("w32time")
    assert (service["state"], service["start_mode"]) == ("started", "auto")


def test_nothing_differs_from_the_inventory(windows: WindowsGateway) -> None:
    """Account, rights, directories, registry, firewall rules, power plan, Python, service."""
    node = windows.node
    played = windows_play.run(node.inventory, [node.name], "prepare", {}, check=True)
    assert played.troubles == []
    # Of those a newer bundle on the controller is the cause, which is no fault of the host.
    assert set(played.changed.get(node.name, ())) - OF_THE_RELEASE == set()
