"""The standby phase as on a host: compared beside what runs; nothing is left over or switched for less."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mt5crs_release.desired.spec import parse_spec
from mt5crs_release.lifecycle import standby
from tests.release_host.host import STANDBY_UNIT, UNIT, FakeHost, beside, knowing, specification
from tests.unit.release.test_spec import problems

ACTIVATE = ("activate", "gateway", "--confirm-timeout", "0", "--standby")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost.create(tmp_path / "root")


def stage(host: FakeHost, text: str, remark: str = "") -> str:
    status, staged = host.run("stage", "gateway", spec=specification(text, standby=beside(remark)))
    assert status == 0, host.last_output
    return str(staged["generation"])


def calls(host: FakeHost) -> list[str]:
    return [line for line in (host.systemd / "log").read_text().splitlines() if "show" not in line]


def entry_of(host: FakeHost, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = host.state()["generations"][name]
    return entry


def assert_nothing_is_left(host: FakeHost) -> None:
    assert not (host.service / "standby").is_symlink()
    assert not list((host.root / "run/systemd/system").glob("*"))
    assert host.running(STANDBY_UNIT) is None
    assert host.timers() == []
    assert host.run("status", "gateway")[1]["services"]["gateway"]["standby"] is None


def test_equal_is_switched_after_the_standby_has_gone(host: FakeHost) -> None:
    host.deploy("one")
    new = stage(host, "two")
    (host.systemd / "log").write_text("")
    status, answer = host.run(*ACTIVATE)
    assert status == 0, host.last_output
    assert answer["standby"] == {
        "units": [STANDBY_UNIT],
        "digest_running": "aa",
        "digest_standby": "aa",
        "equal": True,
        "seconds": answer["standby"]["seconds"],
        "reason": "equal at event 5",
        "differences": [],
    }
    assert (host.systemd / "comparisons").read_text() == "compared with: one\n"
    assert (host.pointer(), host.running(), entry_of(host, new)["state"]) == (new, "two", "confirmed")
    order = [line.partition(" ")[2] for line in calls(host)]
    steps = [f"start {STANDBY_UNIT}", f"stop {STANDBY_UNIT}", f"restart {UNIT}"]
    assert [step for step in order if step in steps] == steps
    assert_nothing_is_left(host)


def test_people_are_told_how_the_comparison_ended(host: FakeHost) -> None:
    host.deploy("one")
    new = stage(host, "two")
    done = subprocess.run(
        [word for word in host.command(*ACTIVATE) if word != "--json"],
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"gateway {new}: healthy and confirmed; in standby: equal at event 5" in done.stdout


def test_old_service_that_will_not_end_is_noticed(host: FakeHost) -> None:
    old = host.deploy("one #undying")
    stage(host, "two")
    status, answer = host.run(*ACTIVATE)
    assert (status, host.pointer(), host.running()) == (1, old, "one #undying")
    assert f"{UNIT} of the generation before is still active" in answer["error"]["message"]
    assert_nothing_is_left(host)


@pytest.mark.parametrize(
    ("remark", "state", "said"),
    [
        ("#differs", "failed", "position 7 is held by the running one only"),
        ("#inconclusive", "reverted", "the running one says unknown"),
        ("#broken", "failed", "ended with status 3"),
        ("#slow", "failed", "did not end in time"),
        ("#fail", "failed", f"systemctl start {STANDBY_UNIT} failed"),
        ("#dies", "failed", "died in standby"),
    ],
)
def test_what_is_turned_away_leaves_the_old_untouched(
    host: FakeHost, remark: str, state: str, said: str
) -> None:
    old = host.deploy("one")
    new = stage(host, "two", remark)
    (host.systemd / "log").write_text("")
    status, answer = host.run(*ACTIVATE)
    assert status == 1, host.last_output
    assert said in answer["error"]["message"]
    assert "never stopped" in answer["error"]["message"]
    assert answer["error"]["remedy"]
    assert answer["generation"] == old
    assert answer["standby"]["equal"] is (False if remark == "#differs" else None)
    assert (host.pointer(), host.running(), entry_of(host, new)["state"]) == (old, "one", state)
    touched = [line for line in calls(host) if UNIT in line.split()]
    assert touched == [], "the running service was touched"
    assert_nothing_is_left(host)


@pytest.mark.parametrize("remark", ["#differs", "#broken", "#inconclusive"])
def test_what_was_confirmed_once_is_not_lost_by_a_comparison(host: FakeHost, remark: str) -> None:
    once = stage(host, "one", remark)
    assert host.run(*ACTIVATE)[0] == 0, "nothing ran that it could be compared with"
    host.deploy("two")
    assert host.run(*ACTIVATE, "--generation", once)[0] == 1
    assert (entry_of(host, once)["state"], bool(entry_of(host, once)["left_because"])) == ("confirmed", True)
    assert host.run("rollback", "gateway")[1]["generation"] == once


def test_different_for_good_needs_force_and_inconclusive_does_not(host: FakeHost) -> None:
    host.deploy("one")
    stage(host, "two", "#differs")
    assert host.run(*ACTIVATE)[0] == 1
    status, answer = host.run(*ACTIVATE, "--generation", answer_name(host, "failed"))
    assert (status, "has failed before" in answer["error"]["message"]) == (2, True)
    assert host.run(*ACTIVATE, "--force", "--generation", answer_name(host, "failed"))[0] == 1
    stage(host, "two", "#inconclusive")
    assert host.run(*ACTIVATE)[0] == 1
    again = ("activate", "gateway", "--confirm-timeout", "0", "--generation", answer_name(host, "reverted"))
    assert host.run(*again)[0] == 0, host.last_output
    assert host.running() == "two"


def answer_name(host: FakeHost, state: str) -> str:
    return next(str(name) for name, entry in host.state()["generations"].items() if entry["state"] == state)


def test_nothing_runs_so_nothing_is_compared(host: FakeHost) -> None:
    stage(host, "one")
    status, answer = host.run(*ACTIVATE)
    assert status == 0, host.last_output
    assert answer["standby"]["equal"] is None
    assert answer["standby"]["reason"] == "not compared: nothing ran before"
    (host.systemd / "active" / UNIT).write_text("failed 3 one\n")
    stage(host, "two", "#differs")
    status, answer = host.run(*ACTIVATE)
    assert status == 0, host.last_output
    assert answer["standby"]["reason"] == f"not compared: {UNIT} is failed"
    assert host.running() == "two"


def test_generation_without_standby_units_is_refused(host: FakeHost) -> None:
    old = host.deploy("one")
    assert host.run("stage", "gateway", spec=specification("two"))[0] == 0
    status, answer = host.run(*ACTIVATE)
    assert (status, host.pointer()) == (2, old)
    assert "brings no standby units" in answer["error"]["message"]
    (host.root / "etc/systemd/system" / STANDBY_UNIT).write_text("someone's")
    stage(host, "three")
    status, answer = host.run(*ACTIVATE)
    assert (status, host.running()) == (2, "one")
    assert "hides the standby unit" in answer["error"]["message"]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_ends_while_it_compares_leaves_nothing(host: FakeHost, sent: signal.Signals) -> None:
    keys = [f"{number:064x}" for number in (1, 2)]
    host.run("stage", "gateway", spec=knowing(specification("one"), keys[0]))
    old = str(host.run("activate", "gateway", "--confirm-timeout", "0")[1]["generation"])
    spec = knowing(specification("two", standby=beside("#slow")), keys[1])
    new = str(host.run("stage", "gateway", spec=spec)[1]["generation"])
    run = subprocess.Popen(
        host.command(*ACTIVATE, "--former-key"),
        env=host.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 20
    while not (host.systemd / "comparisons").exists():
        assert time.monotonic() < end, "it never compared"
        time.sleep(0.02)
    pointed = host.run("status", "gateway")[1]["services"]["gateway"]
    assert (pointed["standby"], pointed["state"], pointed["pending"]) == (new, "confirmed", new)
    told = [path.read_text() for path in (host.root / "run/systemd/system").glob(f"{STANDBY_UNIT}.d/*")]
    assert told == [f'[Service]\nEnvironment="FORMER_GATEWAY_PUBLIC_KEY={keys[0]}"\n']
    run.send_signal(sent)
    run.wait(timeout=20)
    if sent == signal.SIGKILL:
        assert host.timers()
        assert host.run("recover", "gateway", "--watch")[0] == 0, host.last_output
    assert (host.pointer(), host.running(), entry_of(host, new)["state"]) == (old, "one", "reverted")
    assert_nothing_is_left(host)


def test_state_file_of_an_older_tool_is_read(host: FakeHost) -> None:
    """Nothing was added to state.json, and a manifest without the key means: does not stand by."""
    old = host.deploy("one")
    manifest = host.service / "generations" / old / "manifest.json"
    text = manifest.read_text()
    assert '"standby": null' in text
    manifest.write_text(text.replace(' "standby": null,\n', ""))
    stage(host, "two")
    assert host.run(*ACTIVATE)[0] == 0, host.last_output
    assert host.run("rollback", "gateway")[0] == 0, host.last_output
    assert host.running() == "one"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"units": {UNIT: "x"}, "start": [UNIT]}, "is also a unit of the service itself"),
        ({"start": ["other.service"]}, "not in standby.units"),
        ({"units": {"a/b.service": ""}}, "must be a unit"),
        ({"check": []}, "standby.check must be a list"),
        ({"check_timeout_s": 0}, "standby.check_timeout_s"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_specification_of_the_standby_is_checked(change: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in problems(standby={**beside(), **change}))


def test_units_of_the_standby_are_part_of_the_generation_but_never_started_with_it(host: FakeHost) -> None:
    spec = parse_spec(specification(standby=beside()))
    assert spec.standby is not None
    assert spec.standby.units == (STANDBY_UNIT,)
    host.deploy("one", standby=beside())
    assert not (host.root / "etc/systemd/system" / STANDBY_UNIT).exists()
    (host.service / "current/units" / STANDBY_UNIT).write_text("changed")
    assert host.run("status", "gateway")[1]["services"]["gateway"]["intact"] is False


@pytest.mark.parametrize(
    ("status", "output", "event", "reason"),
    [
        (0, '{"reason": "equal at event 5"}', "equal", "equal at event 5"),
        (1, "warning\n" + '{"reason": "differ"}', "differs", "differ"),
        (1, "no JSON at all", "differs", "no JSON at all"),
        (75, "", "inconclusive", "inconclusive"),
        (75, "[1, 2]", "inconclusive", "[1, 2]"),
        (2, "usage", "unhealthy", "the comparison itself ended with status 2: usage"),
        (None, "late", "unhealthy", "the comparison itself did not end in time: late"),
    ],
)
def test_verdict(status: int | None, output: str, event: str, reason: str) -> None:
    assert standby.verdict(status, output.replace("\n", "\n"))[:2] == (event, reason)
