"""An answer of the release tool means the same for the record, whoever asked and on whatever system."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.fleet.inventory import Fleet
from deploy.operations import release, windows
from deploy.remote import ssh, windows_play
from deploy.reporting.report_page import services
from deploy.rollout.answer import ToolAnswer
from deploy.rollout.record import Rollout, ServiceResult

PLUGIN = Path(__file__).resolve().parents[3] / "plugins" / "callback" / "mt5crs_report.py"
HOST, TOOL = "gtw-01", "/usr/local/sbin/mt5crs-release"
BEFORE, AFTER = "0001-a", "0002-b"
ERROR = {"error": {"message": "unhealthy", "remedy": "look"}, "generation": BEFORE}
MOVED = {"changed": True, "version": "2", "changes": ["GATEWAY_PORT"], "previous": BEFORE}

Route = Callable[[pytest.MonkeyPatch, Rollout, list[str], str, int], None]


def by_pyinfra(
    monkeypatch: pytest.MonkeyPatch, rollout: Rollout, words: list[str], said: str, status: int
) -> None:
    output = SimpleNamespace(stdout_lines=said.splitlines(), stderr_lines=["it was killed"])
    answered = (status == 0, output)
    here = SimpleNamespace(name=HOST, data={}, run_shell_command=lambda *_words, **_options: answered)
    monkeypatch.setattr(release, "host", here)
    monkeypatch.setattr(release, "variables", lambda _host: {"fleet_instance": ""})
    if words[0] == "revert":
        release._put_back(rollout)
    else:
        release._call(rollout, words, timeout_s=1)


def by_ansible(
    _monkeypatch: pytest.MonkeyPatch, rollout: Rollout, words: list[str], said: str, status: int
) -> None:
    told_to_callback(rollout, words, said, status)


def plugin() -> Any:
    """Our callback plugin, as Ansible loads it."""
    spec = importlib.util.spec_from_file_location("mt5crs_report", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told_to_callback(rollout: Rollout, words: list[str], said: str, status: int) -> list[tuple[Any, ...]]:
    """Have our callback plugin see this call; what it gives time until it is confirmed."""
    callback, waiting = plugin().CallbackModule(), []
    callback.rollout = rollout
    callback.deadlines = SimpleNamespace(waits=lambda *words: waiting.append(words))
    cmd = [TOOL, *words, "--confirm-timeout", "60"]
    callback._seen(
        SimpleNamespace(
            _host=SimpleNamespace(get_name=lambda: HOST),
            _task=SimpleNamespace(get_name=lambda: "call", _uuid="1"),
            _result={"cmd": cmd, "rc": status, "stdout": said, "stderr": "it was killed"},
        )
    )
    return waiting


def by_the_play_for_windows(
    monkeypatch: pytest.MonkeyPatch, rollout: Rollout, words: list[str], said: str, status: int
) -> None:
    cmd = f'"C:/python.exe" C:/bin/mt5crs-release.pyz {" ".join(words)} --json'
    result = {"cmd": cmd, "rc": status, "stdout": said, "stderr": "it was killed"}
    task = {"task": {"name": "call"}, "hosts": {HOST: result}}
    played = windows_play.read({"plays": [{"tasks": [task]}]})
    if "--dry-run" in words:
        monkeypatch.setattr(windows, "fleet", lambda: Fleet(Path("x.yml"), "x", {}, {}))
        monkeypatch.setattr(windows_play, "run", lambda *_words, **_options: played)
        windows._ask_rollback(rollout, [HOST], None, words[0])
    else:
        windows._note(rollout, played, words[0])


ROUTES: list[Route] = [by_pyinfra, by_ansible, by_the_play_for_windows]


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> Route:
    """Who made the call."""
    found: Route = request.param
    return found


def taken(
    monkeypatch: pytest.MonkeyPatch,
    route: Route,
    words: list[str],
    said: dict[str, Any] | str,
    status: int = 0,
    **known: Any,
) -> tuple[Rollout, ServiceResult]:
    """What the record says after this answer; `known`: what it said of the service before."""
    rollout = Rollout("x", "x")
    result = rollout.result(HOST, "gateway")
    result.version = result.previous_version = "1"
    for name, value in known.items():
        setattr(result, name, value)
    route(monkeypatch, rollout, words, said if isinstance(said, str) else json.dumps(said), status)
    return rollout, result


@pytest.mark.parametrize(
    ("words", "said", "expected"),
    [
        (["activate", "gateway"], {**MOVED, "generation": AFTER, "state": "provisional"}, "provisional"),
        (["activate", "gateway"], {**MOVED, "generation": AFTER}, "provisional"),
        (["confirm", "gateway"], {**MOVED, "generation": AFTER}, "confirmed"),
        (["rollback", "gateway"], {**MOVED, "generation": AFTER, "previous": "0009-x"}, "confirmed"),
    ],
)
def test_what_has_moved(
    monkeypatch: pytest.MonkeyPatch, route: Route, words: list[str], said: dict[str, Any], expected: str
) -> None:
    rollout, result = taken(monkeypatch, route, words, said, generation=BEFORE)
    assert (result.state, result.generation, result.previous) == (expected, AFTER, BEFORE)
    assert (result.changed, result.version, result.changes) == (True, "2", ["GATEWAY_PORT"])
    assert [span.outcome for span in rollout.spans] == ["changed"]
    assert not rollout.failed


def test_changes_are_in_the_report(monkeypatch: pytest.MonkeyPatch, route: Route) -> None:
    said = {**MOVED, "generation": AFTER, "state": "confirmed"}
    rollout, _ = taken(monkeypatch, route, ["confirm", "gateway"], said)
    (row,) = services(rollout.record())
    assert "GATEWAY_PORT" in str(row)


@pytest.mark.parametrize("gone_back_to", [BEFORE, None])
def test_what_was_put_back(monkeypatch: pytest.MonkeyPatch, route: Route, gone_back_to: str | None) -> None:
    known = {"generation": AFTER, "version": "2", "state": "provisional"}
    said = {"changed": True, "generation": gone_back_to, "state": "reverted", "version": "2"}
    rollout, result = taken(monkeypatch, route, ["revert", "gateway"], said, **known)
    assert (result.state, result.generation, result.version) == ("reverted", gone_back_to or "", "1")
    assert rollout.put_back == [f"gateway on {HOST}"]
    assert [span.step for span in rollout.spans] == ["put back"]


def test_what_could_not_be_put_back_may_run_on(monkeypatch: pytest.MonkeyPatch, route: Route) -> None:
    known = {"generation": AFTER, "version": "2", "state": "provisional"}
    rollout, result = taken(monkeypatch, route, ["revert", "gateway"], ERROR, 1, **known)
    assert (result.state, result.generation, result.version) == ("provisional", AFTER, "2")
    assert [(one.step, one.message) for one in rollout.failures] == [("put back gateway", "unhealthy")]


def test_what_did_not_become_healthy_has_gone_back(monkeypatch: pytest.MonkeyPatch, route: Route) -> None:
    rollout, result = taken(monkeypatch, route, ["activate", "gateway"], ERROR, 1, generation=AFTER)
    assert (result.state, result.generation, result.version) == ("failed", BEFORE, "1")
    assert [(one.step, one.message) for one in rollout.failures] == [("activate gateway", "unhealthy")]


@pytest.mark.parametrize("verb", ["activate", "confirm"])
def test_a_call_without_an_answer_may_have_gone_ahead(
    monkeypatch: pytest.MonkeyPatch, route: Route, verb: str
) -> None:
    rollout, result = taken(monkeypatch, route, [verb, "gateway"], "Traceback", 1, generation=AFTER)
    assert (result.state, result.generation) == ("provisional", AFTER)
    assert [one.service for one in rollout.touched(HOST)] == ["gateway"]
    assert rollout.failures[0].message == "it was killed"


def test_what_was_only_asked_is_as_it_was(monkeypatch: pytest.MonkeyPatch, route: Route) -> None:
    said = {"changed": False, "generation": AFTER, "attempted": BEFORE, "version": "1", "state": "confirmed"}
    words = ["rollback", "gateway", "--dry-run"]
    rollout, result = taken(monkeypatch, route, words, said, version="2")
    assert rollout.way_back == {(HOST, "gateway"): BEFORE}
    assert (result.state, result.generation, result.version) == ("unchanged", AFTER, "2")


def test_an_access_list_that_was_asked_about_is_told_and_is_no_way_back(
    monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    said = {"changed": True, "generation": AFTER, "attempted": BEFORE, "reason": "gets access: guest"}
    rollout, result = taken(monkeypatch, route, ["access", "gateway", "--dry-run"], said, version="2")
    assert (rollout.way_back, result.state) == ({}, "unchanged"), "else a dead run's successor rolls back"
    asked = ToolAnswer(HOST, "access", "gateway", True, said, asked=True)
    assert asked.told_at_once == f"  {HOST}: gets access: guest"


def test_how_a_new_version_did_in_the_shadow_is_told_and_in_record_and_report(
    monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    shadow = {"promoted": True, "reason": "9 of 9 decisions agree (100.0 %)"}
    said = {"changed": True, "generation": AFTER, "state": "provisional", "shadow": shadow}
    rollout, _ = taken(monkeypatch, route, ["activate", "gateway"], said)
    (span,) = [one for one in rollout.spans if one.shadow]
    assert span.shadow == shadow
    assert "in the shadow: 9 of 9" in services(rollout.record())[0]["health"]
    told = ToolAnswer(HOST, "activate", "strategy", True, said).told_at_once
    assert told == f"  {HOST}: strategy in the shadow: 9 of 9 decisions agree (100.0 %)"
    assert ToolAnswer(HOST, "activate", "strategy", False, said).told_at_once == "", "the failure says it"


def test_a_baseline_gets_time_from_the_moment_it_has_let_us_in() -> None:
    rollout = Rollout("ansible", "x")
    said = json.dumps({"changed": True, "generation": AFTER, "state": "provisional"})
    waiting = told_to_callback(rollout, ["extend", "baseline"], said, 0)
    assert waiting == [(HOST, "baseline", AFTER, 60.0)]


def test_an_interrupted_run_tells_what_runs_again_as_the_host_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, rollout = plugin(), Rollout("ansible", "x")
    result = rollout.result(HOST, "gateway")
    result.generation, result.state, result.version, result.previous_version = AFTER, "provisional", "2", "1"
    status = {"services": {"gateway": {"current": AFTER, "pending": AFTER}}}
    said = {"changed": True, "generation": "0009-x", "state": "reverted"}

    def run(_host: Any, words: Any, **_options: Any) -> ssh.Reply:
        return ssh.Reply(0, json.dumps(said if "revert" in words else status), "")

    monkeypatch.setattr(ssh, "run", run)
    monkeypatch.setattr(module, "resolve", lambda _inventory: Fleet(Path("x.yml"), "x", {HOST: {}}, {}))
    callback = module.CallbackModule()
    callback._settle(rollout)
    assert (result.state, result.generation, result.version) == ("reverted", "0009-x", "1")
    assert rollout.put_back == [f"gateway on {HOST}"]
    assert rollout.interrupted
