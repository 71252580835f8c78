"""What the tool makes of a service or logon task, against the modelled sc.exe and schtasks.exe."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

from mt5crs_release.errors import FailedError
from mt5crs_release.systems.windows.manager import WindowsServices, service_of

UNIT = "mt5crs-gateway.service"


def services(model: SimpleNamespace, **record: object) -> WindowsServices:
    """The services of a host whose launcher says ``record``."""
    directory = model.root / "state/gateway"
    directory.mkdir(parents=True, exist_ok=True)
    if record:
        (directory / "launch.json").write_text(json.dumps(record))
    return WindowsServices(model.kernel, model.root)


@pytest.mark.parametrize(
    ("record", "active", "restarts"),
    [
        ({}, "inactive", 0),
        ({"state": "running", "pid": os.getpid(), "restarts": 2}, "active", 2),
        ({"state": "starting", "pid": os.getpid(), "restarts": 0}, "activating", 0),
        ({"state": "running", "pid": 2**22 + 1, "restarts": 0}, "failed", 0),
        ({"state": "failed", "pid": 1, "restarts": 3, "exit_status": 78}, "failed", 3),
        ({"state": "stopped", "pid": 1, "restarts": 0}, "inactive", 0),
        ({"state": ["?"], "pid": "x", "restarts": None}, "inactive", 0),
    ],
)
def test_look(model: SimpleNamespace, record: dict[str, object], active: str, restarts: int) -> None:
    sample = services(model, **record).look([UNIT])[UNIT]
    assert (sample.active, sample.restarts) == (active, restarts)


def test_an_unknown_service_is_not_enabled_and_does_not_start(model: SimpleNamespace) -> None:
    here = services(model)
    assert here.not_enabled([UNIT]) == [UNIT]
    assert "cannot find" in str(here.start(UNIT, 1))
    with pytest.raises(FailedError, match="schtasks"):
        here.enable([UNIT])


def test_a_service_is_enabled_and_disabled(model: SimpleNamespace) -> None:
    with model.state.changing() as now:
        now["services"]["mt5crs-gateway"] = {"start_mode": "manual", "state": "stopped", "path": "x"}
    here = services(model)
    assert here.not_enabled([UNIT]) == []
    here.enable([UNIT])
    assert model.state.look()["services"]["mt5crs-gateway"]["start_mode"] == "delayed"
    here.disable([UNIT])
    assert model.state.look()["services"]["mt5crs-gateway"]["start_mode"] == "manual"


def test_the_watchdog_is_a_task_of_every_minute(model: SimpleNamespace) -> None:
    here = services(model)
    here.repeat("watch", ["C:/a b/python.exe", "recover"], 5)
    task = model.state.look()["tasks"]["\\mt5crs\\watch"]
    assert task == {"command": '"C:/a b/python.exe" recover', "every_min": 1, "enabled": True}
    here.end_repeat("watch")
    assert model.state.look()["tasks"] == {}
    here.end_repeat("watch")


def test_failures_are_forgotten_only_when_it_does_not_run(model: SimpleNamespace) -> None:
    here = services(model, state="running", pid=os.getpid(), restarts=2)
    here.forget_failures([UNIT])
    assert here.look([UNIT])[UNIT].restarts == 2
    here = services(model, state="failed", pid=2**22 + 1, restarts=2)
    here.forget_failures([UNIT])
    assert here.look([UNIT])[UNIT].restarts == 0


def test_last_lines(model: SimpleNamespace) -> None:
    here = services(model)
    assert "cannot be read" in here.last_lines([UNIT])[0]
    (model.root / "state/gateway/service.log").write_text("one\ntwo\nthree\n")
    assert here.last_lines([UNIT], 2) == ["two", "three"]


def test_names() -> None:
    assert service_of(UNIT) == "mt5crs-gateway"
    assert service_of("x") == "x"
