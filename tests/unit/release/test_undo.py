"""`undo` takes back what a deployment brought to a host, all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.release_host.host import FakeHost, specification

FIRST, SECOND, THIRD = "d1", "d2", "d3"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost.create(tmp_path)


def spec(service: str, text: str, **changes: Any) -> dict[str, Any]:
    unit = f"{service}.service"
    made = specification(text, service=service, units={unit: text}, start=[unit], **changes)
    made["health"]["command"] = ["sh", "-c", "true"]
    return made


def deploy(host: FakeHost, deployment: str, **texts: str) -> None:
    for service, text in texts.items():
        changes = {"state_format": 2} if "format 2" in text else {}
        status, _ = host.run("stage", service, spec=spec(service, text, **changes))
        assert status == 0, host.last_output
        status, _ = host.run("activate", service, "--confirm-timeout", "0", "--deployment", deployment)
        assert status == 0, host.last_output


def running(host: FakeHost) -> dict[str, str | None]:
    services = host.run("status")[1]["services"]
    return {name: host.running(f"{name}.service") for name in services}


def test_only_what_the_deployment_brought_goes_back(host: FakeHost) -> None:
    deploy(host, FIRST, reconciler="one", strategy="one", monitoring="one")
    deploy(host, SECOND, monitoring="two")
    deploy(host, THIRD, reconciler="two", strategy="two")
    status, asked = host.run("undo", "--dry-run")
    assert (status, asked["changed"], asked["deployment"]) == (0, True, THIRD)
    assert set(asked["services"]) == {"reconciler", "strategy"}
    assert running(host) == {"reconciler": "two", "strategy": "two", "monitoring": "two"}

    status, undone = host.run("undo")
    assert (status, undone["changed"], undone["deployment"]) == (0, True, THIRD)
    assert [entry["state"] for entry in undone["services"].values()] == ["confirmed", "confirmed"]
    assert running(host) == {"reconciler": "one", "strategy": "one", "monitoring": "two"}

    # The next one is the deployment before; what only the first brought has no way back.
    status, undone = host.run("undo")
    assert (status, undone["deployment"], running(host)["monitoring"]) == (0, SECOND, "one")
    status, refused = host.run("undo")
    assert status == 2
    assert refused["error"]["message"].startswith(f"deployment {FIRST} cannot be undone on this host")
    assert refused["error"]["message"].count("no earlier confirmed generation") == 3


def test_a_deployment_that_no_longer_runs_changes_nothing(host: FakeHost) -> None:
    deploy(host, FIRST, gateway="one")
    deploy(host, SECOND, gateway="two")
    status, answer = host.run("undo", "--deployment", FIRST)
    assert (status, answer["changed"], answer["services"]) == (0, False, {})
    assert running(host) == {"gateway": "two"}


def test_one_service_that_cannot_go_back_keeps_all(host: FakeHost) -> None:
    deploy(host, FIRST, reconciler="one", strategy="one")
    deploy(host, SECOND, reconciler="two, format 2", strategy="two")
    status, refused = host.run("undo")
    assert status == 2
    assert "has written its state in format 2" in refused["error"]["message"]
    assert "--accept-state-format 1" in refused["error"]["remedy"]
    assert running(host) == {"reconciler": "two, format 2", "strategy": "two"}


def test_a_service_that_fails_ends_its_chain(host: FakeHost, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for service in ("reconciler", "strategy"):
        made = spec(service, "one")
        if service == "strategy":
            made["health"] |= {"command": ["sh", "-c", f"test ! -e {gone}"], "healthy_deadline_s": 3.0}
        assert host.run("stage", service, spec=made)[0] == 0
        assert host.run("activate", service, "--confirm-timeout", "0", "--deployment", FIRST)[0] == 0
    deploy(host, SECOND, reconciler="two", strategy="two", monitoring="two")
    deploy(host, THIRD, reconciler="three", strategy="three")
    assert host.run("undo")[0] == 0
    gone.touch()
    status, failed = host.run("undo", "--deployment", SECOND)
    assert status == 2, "monitoring has nothing to go back to, so nobody goes"
    deploy(host, SECOND, monitoring="three")
    status, failed = host.run("undo", "--deployment", SECOND)
    assert status == 1
    assert "was not undone completely" in failed["error"]["message"]
    assert set(failed["services"]) == {"strategy", "monitoring"}
    assert running(host) == {"reconciler": "two", "strategy": "two", "monitoring": "two"}


def test_without_a_record_it_says_what_to_do(host: FakeHost) -> None:
    host.deploy("one")
    status, refused = host.run("undo")
    assert status == 2
    assert "mt5crs-release rollback SERVICE" in refused["error"]["remedy"]


def test_extend_moves_the_deadline_of_what_is_provisional(host: FakeHost) -> None:
    host.deploy("one")
    _, staged = host.run("stage", "gateway", spec=specification("two"))
    name = staged["generation"]
    host.run("activate", "gateway", "--confirm-timeout", "30")
    status, answer = host.run("extend", "gateway", "--generation", name, "--confirm-timeout", "600")
    assert (status, answer["state"], answer["changed"]) == (0, "provisional", True)
    assert host.run("status")[1]["services"]["gateway"]["deadline_in_s"] > 500
    status, refused = host.run("extend", "gateway", "--generation", "0009-0123456789ab")
    assert status == 2
    assert f"{name} is provisional, not 0009-0123456789ab" in refused["error"]["message"]
    assert host.run("extend", "gateway", "--confirm-timeout", "0")[0] == 2
    assert host.run("revert", "gateway")[0] == 0
    status, failed = host.run("extend", "gateway", "--generation", name)
    assert status == 1
    assert "is not running any more" in failed["error"]["message"]
