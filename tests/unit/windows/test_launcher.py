"""The launcher runs what the pointer names, stops it when told, restarts it when it dies, and gives up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.bundle.zipapp_build import build_zipapp
from mt5crs_release.errors import FailedError
from mt5crs_release.lifecycle import launcher
from mt5crs_release.storage.paths import Host
from mt5crs_release.systems.windows import job as windows_job
from mt5crs_release.systems.windows.kernel import Kernel

PROJECT = Path(__file__).resolve().parents[3]

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
    thread = threading.Thread(
        target=lambda: ended.append(launcher.launch(model.kernel, host, "gateway", asked.is_set))
    )
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
    assert launcher.launch(model.kernel, host, "gateway", lambda: False) == 1
    assert record(host)["state"] == "failed"
    assert (record(host)["restarts"], record(host)["exit_status"]) == (3, 3)


def test_wrong_configuration_is_not_tried_again(model: SimpleNamespace) -> None:
    host = host_with(model, "exit 78")
    assert launcher.launch(model.kernel, host, "gateway", lambda: False) == 0
    assert (record(host)["state"], record(host)["exit_status"], record(host)["restarts"]) == ("failed", 78, 0)


def test_a_launcher_that_died_counts_as_a_restart(model: SimpleNamespace) -> None:
    host = host_with(model, "exit 78")
    (host.base / "state/gateway/launch.json").write_text(
        json.dumps({"state": "running", "restarts": 1, "pid": 1})
    )
    launcher.launch(model.kernel, host, "gateway", lambda: False)
    assert record(host)["restarts"] == 2


def test_nothing_to_run(model: SimpleNamespace) -> None:
    host = host_with(model, "exit 0")
    (host.base / "gateway/current").unlink()
    with pytest.raises(FailedError, match="no current generation"):
        launcher.launch(model.kernel, host, "gateway", lambda: False)
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


def test_nobody_is_orphaned_when_the_launcher_is_killed(model: SimpleNamespace, tmp_path: Path) -> None:
    host = host_with(model, "exec sleep 60")
    tool = tmp_path / "mt5crs-release.pyz"
    tool.write_bytes(build_zipapp(PROJECT / "src/mt5crs_release"))
    (host.base / "gateway/state.json").write_text("{}")
    launching = subprocess.Popen(
        [sys.executable, "-m", "winmodel.python", str(tool), "run", "gateway", "--as-task"],
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT / "tests/windows_model"),
            "WINMODEL_ROOT": str(tmp_path),
        },
    )
    try:
        until(lambda: record(host).get("state") == "running")
        child = record(host)["child"]
        assert model.kernel.is_alive(child)
    finally:
        launching.kill()
        launching.wait(20)
    until(lambda: not model.kernel.is_alive(child))


def test_the_launcher_of_a_real_windows_ties_the_program_before_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, object]] = []

    class Child:
        def __init__(self, _command: list[str], **options: object) -> None:
            calls.append(("start", options["creationflags"]))

        def kill(self) -> None:
            calls.append(("kill", None))

        def wait(self) -> None:
            calls.append(("wait", None))

    def refuse(_child: object) -> None:
        calls.append(("tie", None))
        raise OSError("refused")

    monkeypatch.setattr(subprocess, "Popen", Child)
    monkeypatch.setattr(windows_job, "tie", refuse, raising=False)
    with pytest.raises(OSError, match="refused"):
        Kernel().spawn(["x"], {}, tmp_path, tmp_path / "log")
    # A program that cannot be tied never runs: it was created suspended, and is ended.
    flags = windows_job.CREATE_SUSPENDED | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    assert calls == [("start", flags), ("tie", None), ("kill", None), ("wait", None)]
