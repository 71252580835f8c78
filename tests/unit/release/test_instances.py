"""Several instances of the same services on one machine: each is worked on as if it were alone there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt5crs_release.desired.name import instance_of, is_service_name, of_instance, plain
from tests.release_host.host import FakeHost, specification

TREND = ("--instance", "trend")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A machine with a reconciler and a strategy, and the same of the instance `trend`."""
    made = FakeHost.create(tmp_path)
    for instance in ((), TREND):
        for service in ("reconciler", "strategy"):
            deploy(made, "d1", service, "one", *instance)
    return made


def deploy(host: FakeHost, deployment: str, service: str, text: str, *instance: str) -> None:
    unit = f"{service}{'@trend' if instance else ''}.service"
    wanted = specification(text, service=service, units={unit: text}, start=[unit])
    wanted["health"]["command"] = ["sh", "-c", "true"]
    status, _ = host.run("stage", service, *instance, spec=wanted)
    assert status == 0, host.last_output
    status, _ = host.run("activate", service, *instance, "--confirm-timeout", "0", "--deployment", deployment)
    assert status == 0, host.last_output


def running(host: FakeHost) -> dict[str, str | None]:
    names = ("reconciler", "strategy", "reconciler@trend", "strategy@trend")
    return {name: host.running(f"{name}.service") for name in names}


def generations(host: FakeHost, *instance: str) -> dict[str, Any]:
    status, told = host.run("status", *instance)
    assert (status, told["instances"]) == (0, ["trend"])
    return {name: said["current"][:4] for name, said in told["services"].items()}


def test_each_is_changed_and_rolled_back_alone(host: FakeHost) -> None:
    deploy(host, "d2", "strategy", "two", *TREND)
    alone = {"reconciler": "one", "strategy": "one", "reconciler@trend": "one"}
    assert running(host) == {**alone, "strategy@trend": "two"}
    assert generations(host) == {"reconciler": "0001", "strategy": "0001"}
    # Who asks for an instance hears its services by the names that they have everywhere.
    assert generations(host, *TREND) == {"reconciler": "0001", "strategy": "0002"}
    status, told = host.run("rollback", "strategy", *TREND)
    assert (status, told["service"]) == (0, "strategy")
    assert running(host) == {**alone, "strategy@trend": "one"}


def test_a_deployment_is_taken_back_for_the_instance_that_is_named(host: FakeHost) -> None:
    for instance in ((), TREND):
        deploy(host, "d2", "strategy", "two", *instance)
    status, undone = host.run("undo", *TREND)
    assert (status, list(undone["services"])) == (0, ["strategy"])
    assert (running(host)["strategy"], running(host)["strategy@trend"]) == ("two", "one")


def test_one_that_its_deployer_left_goes_back_alone(host: FakeHost) -> None:
    unit = "strategy@trend.service"
    wanted = specification("two", service="strategy", units={unit: "two"}, start=[unit])
    wanted["health"]["command"] = ["sh", "-c", "true"]
    assert host.run("stage", "strategy", *TREND, spec=wanted)[0] == 0
    assert host.run("activate", "strategy", *TREND, "--confirm-timeout", "0.01")[0] == 0
    # The timer and the start of the machine know the name on disk alone.
    status, _ = host.run("recover", "strategy@trend", "--watch")
    assert status == 0, host.last_output
    assert set(running(host).values()) == {"one"}


def test_the_start_of_the_machine_looks_after_all(host: FakeHost) -> None:
    for instance in ((), TREND):
        unit = f"strategy{'@trend' if instance else ''}.service"
        wanted = specification("two", service="strategy", units={unit: "two"}, start=[unit])
        wanted["health"]["command"] = ["sh", "-c", "true"]
        assert host.run("stage", "strategy", *instance, spec=wanted)[0] == 0
        assert host.run("activate", "strategy", *instance, "--confirm-timeout", "600")[0] == 0
    status, _ = host.run("recover", "--boot")
    assert status == 0, host.last_output
    assert generations(host)["strategy"] == generations(host, *TREND)["strategy"] == "0001"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "--instance", "Trend"), "must be lower-case letters"),
        (("status", "strategy@other", *TREND), "strategy@other is not of the instance trend"),
        (("status", "strategy", "--instance", "tren"), "services there are: none"),
        (("status", "strategy@"), "'strategy@' is not a service name"),
    ],
)
def test_a_wrong_name_is_one_error(host: FakeHost, words: tuple[str, ...], said: str) -> None:
    status, _ = host.run(*words)
    assert status == 2
    assert said in host.last_output
    assert set(running(host).values()) == {"one"}


def test_names_of_services() -> None:
    assert of_instance("strategy", "trend") == "strategy@trend"
    assert of_instance("strategy", "") == "strategy"
    assert (plain("strategy@trend"), instance_of("strategy@trend"), instance_of("hub")) == (
        "strategy",
        "trend",
        "",
    )
    bad = ("", "@", "strategy@", "@trend", "strategy@a@b", "strategy@../x", "strategy@A", f"s@{'a' * 21}")
    assert [name for name in bad if is_service_name(name)] == []
