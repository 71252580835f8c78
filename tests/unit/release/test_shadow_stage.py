"""The shadow stage as on a host: promoted by the figures or a word, else taken back; it outlives no run."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.release_host.host import (
    SHADOW_UNIT,
    STANDBY_UNIT,
    UNIT,
    FakeHost,
    beside,
    in_the_shadow,
    specification,
)
from tests.unit.release.test_spec import problems

ACTIVATE = (
    "activate",
    "gateway",
    "--confirm-timeout",
    "0",
    "--standby",
    "--shadow",
    "30",
    "--agreement",
    "95",
)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    made = FakeHost.create(tmp_path / "root")
    made.deploy("one")
    return made


def stage(host: FakeHost, remark: str = "", observing: str = "") -> str:
    spec = specification("two", standby=beside(observing), shadow=in_the_shadow(remark))
    status, staged = host.run("stage", "gateway", spec=spec)
    assert status == 0, host.last_output
    return str(staged["generation"])


def begun(host: FakeHost) -> subprocess.Popen[str]:
    run = subprocess.Popen(
        host.command(*ACTIVATE),
        env=host.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    end = time.monotonic() + 20
    while not (host.systemd / "shadowed").exists():
        assert time.monotonic() < end, "it never compared"
        time.sleep(0.02)
    return run


def assert_nothing_is_left(host: FakeHost) -> None:
    assert not (host.service / "standby").is_symlink()
    assert not list((host.root / "run/systemd/system").glob("*"))
    assert (host.running(STANDBY_UNIT), host.running(SHADOW_UNIT), host.timers()) == (None, None, [])
    assert not (host.service / "shadow.word").exists()


def test_promoted_by_its_figures_after_the_standby(host: FakeHost) -> None:
    new = stage(host, "#agrees")
    (host.systemd / "log").write_text("")
    status, answer = host.run(*ACTIVATE)
    assert status == 0, host.last_output
    assert (host.pointer(), host.running()) == (new, "two")
    assert (host.systemd / "shadowed").read_text() == "30 95 1 rule active\n"
    assert answer["standby"]["equal"] is True
    assert answer["shadow"] == {
        "units": [SHADOW_UNIT],
        "terms": {"window_s": 30.0, "agreement_percent": 95.0, "least_decisions": 1, "promotion": "rule"},
        "decisions": 9,
        "agreement": 1.0,
        "promoted": True,
        "seconds": answer["shadow"]["seconds"],
        "reason": "9 of 9 decisions agree",
    }
    order = [line.partition(" ")[2] for line in (host.systemd / "log").read_text().splitlines()]
    steps = [f"{verb} {unit}" for unit in (STANDBY_UNIT, SHADOW_UNIT) for verb in ("start", "stop")]
    assert [step for step in order if step in {*steps, f"restart {UNIT}"}] == [*steps, f"restart {UNIT}"]
    assert_nothing_is_left(host)


@pytest.mark.parametrize(
    ("remark", "state", "said"),
    [
        ("#disagrees", "reverted", "5 of 9 decisions agree"),
        ("#nothing", "reverted", "no decisions in the window"),
        ("#limit", "failed", "the new version was stopped: callback"),
        ("#dies", "failed", "died in shadow"),
        ("#fail", "failed", f"systemctl start {SHADOW_UNIT} failed"),
    ],
)
def test_what_is_not_promoted_harms_nothing(host: FakeHost, remark: str, state: str, said: str) -> None:
    old, new = host.pointer(), stage(host, remark)
    (host.systemd / "log").write_text("")
    began = time.monotonic()
    status, answer = host.run(*ACTIVATE)
    assert time.monotonic() - began < 15, "it waited for its window all the same"
    assert (status, host.pointer(), host.running()) == (1, old, "one")
    assert said in answer["error"]["message"]
    assert "turned away in the shadow" in answer["error"]["message"]
    assert answer["error"]["remedy"]
    assert answer["shadow"]["promoted"] is False
    assert host.state()["generations"][new]["state"] == state
    touched = [line for line in (host.systemd / "log").read_text().splitlines() if f" {UNIT}" in line]
    assert [line for line in touched if "show" not in line] == [], "the running service was touched"
    assert_nothing_is_left(host)


def test_another_decision_is_no_failure_and_may_be_deployed(host: FakeHost) -> None:
    new = stage(host, "#disagrees")
    assert host.run(*ACTIVATE)[0] == 1
    assert host.run("activate", "gateway", "--confirm-timeout", "0", "--generation", new)[0] == 0
    assert host.running() == "two"


def test_another_state_ends_it_before_the_shadow(host: FakeHost) -> None:
    stage(host, "#agrees", "#differs")
    status, answer = host.run(*ACTIVATE)
    assert (status, answer["shadow"]) == (1, None)
    assert not (host.systemd / "shadowed").exists()


@pytest.mark.parametrize(("word", "status", "runs"), [("promote", 0, "two"), ("drop", 1, "one")])
def test_a_word_decides(host: FakeHost, word: str, status: int, runs: str) -> None:
    new = stage(host)
    run = begun(host)
    said, answer = host.run("shadow", "gateway", word, "--by", "ann: seen it")
    assert (said, answer["generation"]) == (0, new), host.last_output
    output, _ = run.communicate(timeout=20)
    assert (run.returncode, host.running()) == (status, runs), output
    assert json.loads(output)["shadow"]["reason"].endswith("by ann")
    assert_nothing_is_left(host)


def test_a_word_to_nobody_is_refused(host: FakeHost) -> None:
    assert host.run("shadow", "gateway", "show") == (
        0,
        {"changed": False, "service": "gateway", "generation": None, "shadow": None},
    )
    status, answer = host.run("shadow", "gateway", "promote")
    assert (status, answer["error"]["kind"]) == (2, "refused")
    stage(host, "#disagrees")
    host.run(*ACTIVATE)
    shown = host.run("shadow", "gateway", "show")[1]["shadow"]
    assert (shown["state"], shown["reason"]) == ("ended", "it was ended before it was decided")
    assert host.run("shadow", "gateway", "drop")[0] == 2


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_the_run(host: FakeHost, sent: signal.Signals) -> None:
    old, new = host.pointer(), stage(host)
    run = begun(host)
    assert host.running(SHADOW_UNIT) == "shadow"
    run.send_signal(sent)
    run.communicate(timeout=20)
    if sent == signal.SIGKILL:
        assert host.timers()
        assert host.run("recover", "gateway", "--watch")[0] == 0, host.last_output
    assert (host.pointer(), host.running()) == (old, "one")
    assert host.state()["generations"][new]["state"] == "reverted"
    assert_nothing_is_left(host)


def test_nothing_runs_so_nothing_is_compared(tmp_path: Path) -> None:
    host = FakeHost.create(tmp_path / "empty")
    stage(host, "#disagrees")
    status, answer = host.run(*ACTIVATE)
    assert (status, answer["shadow"]["reason"]) == (0, "not compared: nothing ran before"), host.last_output
    assert answer["shadow"]["agreement"] is None


def test_what_cannot_or_asks_too_much_is_refused(host: FakeHost) -> None:
    assert host.run("stage", "gateway", spec=specification("two", standby=beside()))[0] == 0
    status, answer = host.run(*ACTIVATE)
    assert (status, host.running()) == (2, "one")
    assert "brings no shadow units" in answer["error"]["message"]
    assert host.run("activate", "gateway", "--shadow", "30", "--agreement", "101")[0] == 2


def test_specification_of_the_shadow_is_checked() -> None:
    taken = {**beside(), "units": {SHADOW_UNIT: "x"}, "start": [SHADOW_UNIT]}
    assert any("also a unit" in found for found in problems(standby=taken, shadow=in_the_shadow()))
    assert any("shadow.check must be" in found for found in problems(shadow={**in_the_shadow(), "check": []}))
