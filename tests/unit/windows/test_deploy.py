"""Which hosts the play is run for in a pyinfra run, how, and what becomes of its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.fleet.inventory import Fleet
from deploy.operations import windows
from deploy.remote import windows_play
from deploy.rollout import undo_steps
from deploy.rollout.record import Failure, Rollout

PROJECT = Path(__file__).resolve().parents[3]
FLEET = Fleet(
    Path("inventory/x.yml"),
    "x",
    {},
    {
        "all": ("hub-01", "w1", "w2", "l1", "file"),
        "hub": ("hub-01",),
        "gateway": ("w1", "w2", "l1"),
        "windows": ("w1", "w2", "file"),
    },
)


@pytest.mark.parametrize(
    ("limit", "exclude", "expected"),
    [
        ([], [], ("w1", "w2")),
        (["w1"], [], ("w1",)),
        (["w*"], [], ("w1", "w2")),
        (["gateway"], [], ("w1", "w2")),
        (["all"], ["w2"], ("w1",)),
        (["hub"], [], ()),
        (["hub-01"], [], ()),
        ([], ["windows"], ()),
    ],
)
def test_targets(limit: list[str], exclude: list[str], expected: tuple[str, ...]) -> None:
    assert windows.targets(FLEET, limit, exclude) == expected


def test_command() -> None:
    words = windows_play.command(Path("i.yml"), ["w1", "w2"], "rollback", {"to": "0001-a"}, check=True)
    assert Path(words[0]).name == "ansible-playbook"
    assert words[1:] == [
        *("-i", "i.yml", "windows.yml", "--tags", "rollback", "--limit", "w1,w2"),
        *("-e", '{"to": "0001-a"}', "--check"),
    ]


def test_every_phase_is_in_the_playbook() -> None:
    playbook = yaml.safe_load((PROJECT / windows_play.PLAYBOOK).read_text())
    assert {tag for play in playbook for tag in play["tags"]} == {
        *(
            "observe",
            "ask",
            "prepare",
            "activate",
            "confirm",
            "put_back",
            "rollback",
            "access",
            "undo",
            "settle",
        )
    }


def played(*results: tuple[str, str, dict[str, Any]]) -> windows_play.Played:
    """What is read from Ansible's JSON about these (task, host, result)."""
    tasks = [{"task": {"name": task}, "hosts": {host: result}} for task, host, result in results]
    return windows_play.read({"plays": [{"tasks": tasks}]})


def called(verb: str, answer: dict[str, Any] | str, rc: int = 0) -> dict[str, Any]:
    """The result of a task that calls the release tool on Windows."""
    said = answer if isinstance(answer, str) else json.dumps(answer)
    cmd = f'"C:/python.exe" C:/bin/mt5crs-release.pyz {verb} gateway --json'
    return {"cmd": cmd, "rc": rc, "stdout": said, "changed": rc == 0}


def test_statuses() -> None:
    found = played(("Note what runs", "w1", {"ansible_facts": {"release_status": {"services": {}}}}))
    assert found.statuses == {"w1": {"services": {}}}


def test_an_activation_becomes_part_of_the_run() -> None:
    rollout = Rollout("pyinfra", "x")
    answer = {"changed": True, "generation": "0002-b", "previous": "0001-a", "state": "provisional"}
    windows._note(rollout, played(("Activate gateway", "w1", called("activate", answer))), "activate")
    assert not rollout.failed
    assert windows.provisional(rollout, ["w1", "w2"]) == {"w1": "0002-b"}
    windows._note(
        rollout, played(("x", "w1", called("revert", {"changed": True, "generation": "0001-a"}))), ""
    )
    assert rollout.put_back == ["gateway on w1"]
    assert rollout.result("w1", "gateway").state == "reverted"
    assert [span.step for span in rollout.spans] == ["activate", "put back"]


def test_a_failed_activation_fails_the_run_once_with_the_tools_words() -> None:
    rollout = Rollout("pyinfra", "x")
    error = {"error": {"message": "unhealthy", "remedy": "look"}, "generation": "0001-a"}
    found = played(
        ("Activate gateway", "w1", called("activate", error, rc=1)),
        ("End with an error", "w1", {"failed": True, "msg": "activate gateway failed; its answer is above"}),
    )
    windows._note(rollout, found, "activate")
    assert [(one.host, one.step, one.message) for one in rollout.failures] == [
        ("w1", "activate gateway", "unhealthy")
    ]
    assert windows.provisional(rollout, ["w1"]) == {}


def test_an_undo_is_for_all_services_of_a_host() -> None:
    cmd = '"C:/python.exe" C:/bin/mt5crs-release.pyz undo --deployment 1f2e --json'
    said = {"error": {"message": "cannot be undone", "remedy": "look"}, "services": {}}
    found = played(("Undo", "w1", {"cmd": cmd, "rc": 1, "stdout": json.dumps(said), "failed": True}))
    answer = found.answers[0]
    assert (answer.verb, answer.service, answer.good) == ("undo", "", False)
    assert found.troubles == []
    assert answer.why == "cannot be undone"


def test_a_step_of_an_undo_is_played_for_all_hosts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(windows, "fleet", lambda: FLEET)

    def run(_inventory: Path, *words: Any) -> windows_play.Played:
        asked.append(words)
        return played(("Move back", "w2", {"unreachable": True, "msg": "timed out"}))

    monkeypatch.setattr(windows_play, "run", run)
    answers, failures = windows.undo(["w1", "w2"], "1f2e", undo_steps.HOLD)
    known = {"windows_deployment": "1f2e", "windows_undo_step": "hold"}
    assert asked == [(["w1", "w2"], "undo", known)]
    assert (answers, [(one.host, one.message) for one in failures]) == ([], [("w2", "timed out")])


def test_an_activation_without_an_answer_is_put_back() -> None:
    rollout = Rollout("pyinfra", "x")
    windows._note(rollout, played(("Activate", "w1", called("activate", "", rc=1))), "activate")
    rollout.result("w1", "gateway").generation = "0002-b"
    assert rollout.failed
    assert windows.provisional(rollout, ["w1"]) == {"w1": "0002-b"}


def test_a_host_that_cannot_say_what_runs_is_told_in_the_tools_words(monkeypatch: pytest.MonkeyPatch) -> None:
    cmd = '"C:/python.exe" C:/bin/mt5crs-release.pyz status --json'
    said = {"error": {"message": "state.json is damaged", "remedy": "put a backup back"}}
    asked = {"cmd": cmd, "rc": 1, "stdout": json.dumps(said), "failed": True, "msg": "non-zero return code"}
    found = played(("Ask", "w1", asked), ("Note what runs", "w2", {"ansible_facts": {"release_status": {}}}))
    monkeypatch.setattr(windows_play, "run", lambda *_words: found)
    monkeypatch.setattr(windows, "fleet", lambda: FLEET)

    told = windows.statuses(["w1", "w2", "w3"])

    assert told["w2"] == {}
    assert isinstance(told["w1"], Failure)
    assert isinstance(told["w3"], Failure)
    assert told["w1"].message == "state.json is damaged; put a backup back"
    assert (told["w3"].message, told["w3"].step) == ("no answer", "ask what runs")
    assert "--exclude w3" in told["w3"].remedy


def test_another_failure_and_an_unreachable_host() -> None:
    found = played(
        ("Account", "w1", {"failed": True, "msg": "no right"}),
        ("Account", "w2", {"unreachable": True, "msg": "timed out"}),
        ("Time", "w3", {"changed": True}),
    )
    assert [(one.host, one.task, one.reason) for one in found.troubles] == [
        ("w1", "Account", "no right"),
        ("w2", "Account", "timed out"),
    ]
    assert found.changed == {"w3": ["Time"]}
