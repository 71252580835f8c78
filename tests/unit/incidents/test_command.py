"""`mt5crs incident`: halts before anything else, keeps what was done, and says who was not reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import deploy.fleet.vault_password as vault_password
from deploy.commands import incident as command
from deploy.coordination import alerts
from deploy.incidents import degraded
from mt5crs.operate.gateways import Answer


class Stage:
    """Everything outside of the command; `did` is what happened, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.did: list[str] = []
        self.kept: dict[str, dict[str, Any]] = {}
        self.told: list[dict[str, Any]] = []
        self.answers = [Answer("gtw-01", object(), None)]
        self.untold = self.unkept = ""
        hub = {"fleet_address": "10.0.0.1", "monitoring_alertmanager_port": 9093}
        groups = {"hub": ["hub-01"], "gateway": ["gtw-01"]}
        fleet = SimpleNamespace(
            environment="lab", hosts={"hub-01": hub}, in_group=lambda name: groups.get(name, [])
        )
        patch = monkeypatch.setattr
        patch(command, "chosen_fleet", lambda _: SimpleNamespace(inventory=Path("inventory/lab.yml")))
        patch(command, "fleet_of", lambda _: fleet)
        patch(command, "targets", lambda *_: [])
        patch(command, "ask", lambda *_: self.did.append("halt") or self.answers)
        patch(command, "acted", lambda what, *_, **__: self.did.append(what))
        patch(command, "_sections", lambda *_: {"hub-01": {}})
        patch(command, "_on_hub", self.on_hub)
        patch(vault_password, "PROJECT", directory)
        self.directory = directory

    def on_hub(self, _of: Any, **asked: Any) -> dict[str, Any]:
        if asked.get("keep"):
            if self.unkept:
                raise command.click.ClickException(self.unkept)
            self.did.append("keep")
            self.kept[asked["keep"]["id"]] = asked["keep"]
        if asked.get("told"):
            self.did.append("tell")
            self.told.append(asked["told"])
        return {"incidents": list(self.kept.values()), "told": self.untold}

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(command.incident, list(words))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    return Stage(monkeypatch, tmp_path)


def opened(stage: Stage, *words: str) -> Result:
    return stage.run("open", "--what", "quotes froze", *words)


def test_p0_halts_first_then_keeps_and_tells(stage: Stage) -> None:
    done = opened(stage, "--priority", "P0")
    assert done.exit_code == 0, done.output
    assert stage.did == ["halt", "halt", "keep", "tell", "keep", "incident.opened"]
    (made,) = stage.kept.values()
    assert (made["state"], made["root_cause"]) == ("open", "")
    assert [act["what"] for act in made["acts"]][1:] == [
        "gtw-01: everything is halted",
        "told to Alertmanager",
    ]
    assert stage.told[0]["labels"]["severity"] == "critical"
    assert stage.told[0]["labels"]["concerns"] == "incident", "it ends no roll-out"
    (report,) = (stage.directory / "reports" / "incidents").iterdir()
    assert "quotes froze" in report.read_text()


def test_p1_halts_nothing(stage: Stage) -> None:
    done = opened(stage, "--priority", "P1")
    assert done.exit_code == 0, done.output
    assert "halt" not in stage.did
    assert stage.told[0]["labels"]["severity"] == "warning"
    assert "incident watch" in done.output


def test_a_p1_degrades_first_and_says_until_its_end_how_to_lift_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reduced(_of: object, magic: int | None, why: str) -> list[degraded.Reduced]:
        stage.did.append(f"reduce {magic} {why}")
        return [degraded.Reduced("gtw-01", 1), degraded.Reduced("gtw-01", 2, already=True)]

    monkeypatch.setattr(degraded, "reduce", reduced)
    done = opened(stage, "--priority", "P1", "--reduce")
    assert done.exit_code == 0, done.output
    assert stage.did[:4] == ["reduce None quotes froze", "incident.degraded", "keep", "tell"]
    (made,) = stage.kept.values()
    assert [act["what"] for act in made["acts"]][1:3] == [
        "gtw-01: 1 may only reduce",
        "gtw-01: 2 only reduced already",
    ]
    closed = stage.run("close", made["id"], "--root-cause", "the line was slow")
    for said in (done.output, closed.output):
        assert "until it is lifted, 1 may only reduce" in said
        assert "--magic 2" not in said, "somebody else had reduced it"
    assert opened(stage, "--priority", "P0", "--reduce").exit_code == 2


def test_a_p1_that_does_not_reach_a_gateway_fails(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degraded, "reduce", lambda *_: [degraded.Reduced("gtw-01", 1, "no answer")])
    done = opened(stage, "--priority", "P1", "--reduce")
    assert done.exit_code == 1
    assert "it may trade as before" in done.output
    assert "until it is lifted" not in done.output


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda stage: setattr(stage, "answers", [Answer("gtw-01", None, "no answer")]),
            "it may still trade",
        ),
        (lambda stage: setattr(stage, "untold", "refused"), "nobody was told: refused"),
        (lambda stage: setattr(stage, "unkept", "the Hub: no route"), "not recorded on the Hub"),
    ],
)
def test_what_did_not_work_is_said_and_the_rest_is_done(
    stage: Stage, spoil: Callable[[Stage], None], said: str
) -> None:
    spoil(stage)
    done = opened(stage, "--priority", "P0")
    assert done.exit_code == 1
    assert said in done.output
    assert stage.did[0] == "halt"
    assert stage.did[-1] == "incident.opened"


def test_it_is_closed_with_its_cause_and_told_to_be_over(stage: Stage) -> None:
    opened(stage, "--priority", "P0")
    (name,) = stage.kept
    assert stage.run("close", name).exit_code == 2, "without a cause it stays open"
    done = stage.run("close", name[:8], "--root-cause", "the line was cut")
    assert done.exit_code == 1, "records could not be had, which its report says"
    made = stage.kept[name]
    assert (made["state"], made["root_cause"]) == ("closed", "the line was cut")
    assert stage.told[-1]["endsAt"] <= command.time.strftime("%Y-%m-%dT%H:%M:%SZ", command.time.gmtime())
    assert "the line was cut" in stage.run("list").output
    assert stage.run("watch", name).exit_code == 2
    assert "no incidents begin with 'nothing'" in stage.run("show", "nothing").output


@pytest.mark.parametrize(
    ("seen", "status", "state"),
    [
        ([(), (), ()], 0, "quiet"),
        ([("warning",), ("critical",)], 2, "worse: critical: A (critical)"),
        ([("warning",)] * 100, 1, "not quiet in time: A (warning)"),
        ([None] * 100, 1, "not quiet in time: Prometheus does not answer"),
    ],
)
def test_watching_ends_quiet_worse_or_late(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, seen: list[Any], status: int, state: str
) -> None:
    now = [1_800_000_000.0]
    left = iter(seen)

    def look(_within: int, _ago: int) -> frozenset[alerts.Alert]:
        found = next(left)
        if found is None:
            raise alerts.UnknownError("Prometheus does not answer")
        return frozenset(alerts.Alert("A", "", severity, ()) for severity in found)

    monkeypatch.setattr(command, "_now", lambda: now[0])
    monkeypatch.setattr(command, "_sleep", lambda _: now.__setitem__(0, now[0] + 30))
    monkeypatch.setattr(alerts, "on_hub", lambda _: look)
    opened(stage, "--priority", "P1")
    done = stage.run("watch", "2027", "--quiet", "1", "--within", "5")
    assert done.exit_code == status, done.output
    (made,) = stage.kept.values()
    assert made["acts"][-1]["what"] == state
    assert ("incident open --priority P0" in done.output) == (status == 2)
