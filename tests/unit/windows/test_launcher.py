"""The launcher runs what the pointer names, stops it when told, restarts it when it dies, and gives up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mt5crs_release import launcher
from mt5crs_release.errors import FailedError
from mt5crs_release.paths import Host

DESCRIPTION = {
    "format": 1,
    "command": ["/bin/sh", "-c", "exec sleep 60"],
    "environment_file": ".env",
    "stop_timeout_s": 5,
    "restart_s": 0.05,
    "start_limit": 3,
    "start_limit_s": 60,
    "keep_down_status": 78,
}


def host_with(model: SimpleNamespace, script: str, env: str = "") -> Host:
    """A host whose current generation runs ``script``."""
    base = model.root / "gateway"
    units = base / "generations/0001-a/units"
    units.mkdir(parents=True)
    text = {**DESCRIPTION, "command": ["/bin/sh", "-c", script]}
    (units / "mt5crs-gateway.service").write_text(json.dumps(text))
    (units.parent / ".env").write_text(env)
    (base / "current").write_text("generations/0001-a")
    (model.root / "state/gateway").mkdir(parents=True)
    return Host(model.root)


def record(host: Host) -> dict[str, Any]:
    """What the launcher says."""
    try:
        found: dict[str, Any] = json.loads((host.base / "state/gateway/launch.json").read_text())
        return found
    except (FileNotFoundError, ValueError):
        return {}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


@pytest.mark.parametrize("by_file", [True, False])
def test_runs_until_told_to_stop(model: SimpleNamespace, by_file: bool) -> None:
    host = host_with(model, 'echo "$NAME $WHERE"; exec sleep 60', "NAME='a b'\nWHERE='{current}/x'\n")
    asked = threading.Event()
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(launcher.launch(host, "gateway", asked.is_set)))
    thread.start()
    log = host.base / "state/gateway/service.log"
    until(lambda: record(host).get("state") == "running" and log.exists() and bool(log.read_text()))
    assert log.read_text() == f"a b {host.base}/gateway/generations/0001-a/x\n"
    assert record(host)["generation"] == "0001-a"
    if by_file:
        (host.base / "state/gateway/stop").touch()
    else:
        asked.set()
    thread.join(20)
    assert ended == [0]
    assert record(host)["state"] == "stopped"
    assert not model.kernel.is_alive(record(host)["pid"]) or record(host)["pid"] > 0


def test_dies_too_often(model: SimpleNamespace) -> None:
    host = host_with(model, "exit 3")
    assert launcher.launch(host, "gateway", lambda: False) == 1
    assert record(host)["state"] == "failed"
    assert (record(host)["restarts"], record(host)["exit_status"]) == (3, 3)


def test_wrong_configuration_is_not_tried_again(model: SimpleNamespace) -> None:
    host = host_with(model, "exit 78")
    assert launcher.launch(host, "gateway", lambda: False) == 0
    assert (record(host)["state"], record(host)["exit_status"], record(host)["restarts"]) == ("failed", 78, 0)


def test_a_launcher_that_died_counts_as_a_restart(model: SimpleNamespace) -> None:
    host = host_with(model, "exit 78")
    (host.base / "state/gateway/launch.json").write_text(
        json.dumps({"state": "running", "restarts": 1, "pid": 1})
    )
    launcher.launch(host, "gateway", lambda: False)
    assert record(host)["restarts"] == 2


def test_nothing_to_run(model: SimpleNamespace) -> None:
    host = host_with(model, "exit 0")
    (host.base / "gateway/current").unlink()
    with pytest.raises(FailedError, match="no current generation"):
        launcher.launch(host, "gateway", lambda: False)
    assert record(host)["state"] == "failed"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"command": []},
        {"command": "x"},
        {"restart_s": "2"},
        {"more": 1},
        {"start_limit": None},
    ],
)
def test_bad_descriptions(change: dict[str, Any]) -> None:
    text = json.dumps(DESCRIPTION | change)
    with pytest.raises(FailedError, match="does not describe"):
        launcher.parse_description(text)


def test_environment() -> None:
    text = "# comment\n\nA='x y'\nB=1\nC=''\nD='{current}/x'\n"
    assert launcher.parse_environment(text) == {"A": "x y", "B": "1", "C": "", "D": "{current}/x"}
    with pytest.raises(FailedError, match="line 2") as caught:
        launcher.parse_environment("A=1\nB='secret")
    assert "secret" not in str(caught.value)


def test_template_is_a_description() -> None:
    template = Path(__file__).resolve().parents[3] / "templates/windows/mt5crs-gateway.service.j2"
    found = launcher.parse_description(template.read_text())
    assert found.command[-1] == "mt5crs.gateway"
    assert found.keep_down_status == 78
