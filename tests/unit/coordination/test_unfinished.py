"""What a dead deployment left is undone, or finished once it had decided to confirm."""

from pathlib import Path
from typing import Any

import pytest

from deploy.coordination.unfinished import (
    CONFIRM,
    ROLL_BACK,
    Action,
    needed,
    overtakes,
    settle,
    stuck,
    waves,
)
from deploy.fleet.inventory import Fleet
from deploy.remote import ssh, windows_play
from deploy.rollout.answer import ToolAnswer


def status(**services: tuple[str, str | None]) -> dict[str, Any]:
    return {
        "services": {name: {"current": now, "pending": pending} for name, (now, pending) in services.items()}
    }


def calls(record: dict[str, Any], **statuses: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    found = needed(record, {host.replace("_", "-"): said for host, said in statuses.items()})
    return [(action.verb, action.host, action.service, action.generation) for action in found]


def test_before_the_decision_everything_pending_goes_back_last_service_first() -> None:
    seen = status(reconciler=("2-b", "2-b"), strategy=("2-c", "2-c"), monitoring=("1-m", None))
    assert calls({"phase": "activate 1/2"}, inf_01=seen) == [
        ("revert", "inf-01", "strategy", "2-c"),
        ("revert", "inf-01", "reconciler", "2-b"),
    ]


def test_after_the_decision_it_is_finished_everywhere() -> None:
    record = {
        "phase": CONFIRM,
        "provisional": ["gtw-01:gateway:2-g", "inf-01:reconciler:2-r", "inf-02:reconciler:2-r"],
    }
    assert calls(
        record,
        gtw_01=status(gateway=("2-g", None)),
        inf_01=status(reconciler=("2-r", "2-r")),
        inf_02=status(reconciler=("1-r", None)),
    ) == [("confirm", "inf-01", "reconciler", "2-r"), ("activate", "inf-02", "reconciler", "2-r")]


def test_after_the_decision_what_was_not_part_of_it_goes_back() -> None:
    record = {"phase": CONFIRM, "provisional": ["inf-01:reconciler:2-r"]}
    seen = status(reconciler=("3-x", "3-x"), strategy=("2-s", "2-s"))
    assert calls(record, inf_01=seen) == [
        ("activate", "inf-01", "reconciler", "2-r"),
        ("revert", "inf-01", "strategy", "2-s"),
    ]


def test_killed_while_it_put_back_what_it_had_confirmed() -> None:
    record = {
        "phase": "put back the gateway",
        "provisional": ["gtw-01:gateway:2-g", "inf-01:reconciler:2-r", "inf-01:strategy:2-s"],
    }
    assert calls(
        record,
        gtw_01=status(gateway=("2-g", None)),
        inf_01=status(reconciler=("2-r", "2-r"), strategy=("1-s", None), monitoring=("1-m", None)),
    ) == [("leave", "gtw-01", "gateway", "2-g"), ("revert", "inf-01", "reconciler", "2-r")]


def test_what_goes_back_is_left_though_it_was_confirmed() -> None:
    assert "--confirmed" in Action("gtw-01", "gateway", "leave", "2-g").arguments
    assert "--confirmed" not in Action("gtw-01", "gateway", "revert", "2-g").arguments
    assert "--generation" in Action("gtw-01", "gateway", "confirm", "2-g").arguments


@pytest.mark.parametrize(
    ("verb", "overtaken"),
    # What waited was no reason to leave a service alone, so a plan from before still has it to do.
    [("confirm", False), ("revert", False), ("activate", False)]
    + [(verb, True) for verb in ("leave", "back", "rollback")],
)
def test_a_plan_does_not_outlive_what_it_took_for_confirmed(verb: str, overtaken: bool) -> None:
    waiting = Action("inf-01", "reconciler", "revert", "2-r")
    assert overtakes([waiting, Action("gtw-01", "gateway", verb, "2-g")]) is overtaken


def test_nothing_is_left() -> None:
    assert calls({"phase": "stage"}, inf_01=status(strategy=("1-s", None)), hub_01={}) == []


ROLLBACK = {
    "phase": ROLL_BACK,
    "provisional": ["inf-01:strategy:1-s", "inf-01:reconciler:1-r", "gtw-01:gateway:1-g"],
}


def test_a_rollback_that_was_decided_is_finished_and_nobody_goes_back_twice() -> None:
    assert calls(
        ROLLBACK,
        gtw_01=status(gateway=("2-g", None)),
        inf_01=status(reconciler=("2-r", None), strategy=("1-s", None)),
        hub_01=status(monitoring=("2-m", None)),
    ) == [("rollback", "gtw-01", "gateway", "1-g"), ("rollback", "inf-01", "reconciler", "1-r")]
    action = Action("gtw-01", "gateway", "rollback", "1-g")
    assert action.arguments == ["rollback", "gateway", "--to", "1-g", "--json"]


def test_what_is_held_when_a_rollback_was_decided_is_confirmed() -> None:
    """The rest has returned to the release by itself, and follows; each after what it depends on."""
    assert calls(
        ROLLBACK,
        gtw_01=status(gateway=("1-g", "1-g")),
        inf_01=status(reconciler=("2-r", None), strategy=("2-s", None)),
    ) == [
        ("confirm", "gtw-01", "gateway", "1-g"),
        ("rollback", "inf-01", "reconciler", "1-r"),
        ("rollback", "inf-01", "strategy", "1-s"),
    ]


def test_what_is_held_before_a_rollback_was_decided_returns() -> None:
    record = {"phase": "judge", "provisional": []}
    assert calls(record, inf_01=status(reconciler=("1-r", "1-r"), strategy=("1-s", "1-s"))) == [
        ("revert", "inf-01", "strategy", "1-s"),
        ("revert", "inf-01", "reconciler", "1-r"),
    ]


def test_a_rollback_that_was_being_put_back_is_put_back_host_by_host() -> None:
    """Its services share what the deployment changed, so none of them comes back healthy alone."""
    seen = status(reconciler=("1-r", None), strategy=("1-s", "1-s"), monitoring=("2-m", None))
    for service in ("reconciler", "strategy"):
        seen["services"][service]["undid"] = "ddd"
    record = {**ROLLBACK, "phase": "put back"}
    assert calls(record, inf_01=seen, gtw_01=status(gateway=("2-g", None))) == [("back", "inf-01", "", "ddd")]
    action = Action("inf-01", "", "back", "ddd")
    assert action.arguments == ["undo", "--deployment", "ddd", "--back", "--json"]
    assert action.told == "the undo of ddd on inf-01 put back"


def test_a_rollback_before_its_decision_has_changed_nothing() -> None:
    record = {**ROLLBACK, "phase": "ask every host"}
    assert calls(record, gtw_01=status(gateway=("2-g", None))) == []


def test_a_rollback_is_finished_in_the_order_of_its_decision() -> None:
    gateway = Action("gtw-01", "gateway", "rollback", "1-g")
    reconciler = Action("inf-01", "reconciler", "rollback", "1-r")
    assert waves(ROLLBACK, [gateway, reconciler]) == [[[reconciler]], [[gateway]]]
    turned = {**ROLLBACK, "provisional": list(reversed(ROLLBACK["provisional"]))}
    assert waves(turned, [reconciler, gateway]) == [[[gateway]], [[reconciler]]]


def test_a_silent_host_stops_what_would_leave_it_behind_for_good() -> None:
    assert stuck(ROLLBACK, ["inf-01", "hub-01"]) == ["inf-01"]
    assert stuck({**ROLLBACK, "phase": "put back the gateway"}, ["gtw-01"]) == ["gtw-01"]
    # What waits for its confirmation there goes back by itself.
    assert stuck({**ROLLBACK, "phase": CONFIRM}, ["inf-01"]) == []
    assert stuck({"phase": "activate 1/2"}, ["inf-01"]) == []


FLEET = Fleet(
    Path("inventory/x.yml"),
    "x",
    {"inf-01": {}, "gtw-02": {}},
    {"all": ("inf-01", "gtw-02"), "windows": ("gtw-02",), "gateway": ("gtw-02",)},
)
MIXED = {"phase": ROLL_BACK, "provisional": ["inf-01:reconciler:1-r", "gtw-02:gateway:1-g"]}


def windows_says(monkeypatch: pytest.MonkeyPatch, statuses: dict[str, Any], calls: list[Any]) -> None:
    """Linux hosts answer nothing wrong; the play of Windows hosts is recorded."""

    def run(_inventory: Path, hosts: list[str], phase: str, known: dict[str, Any]) -> windows_play.Played:
        calls.append((phase, hosts, known))
        if phase == "observe":
            return windows_play.Played(bool(statuses), statuses=statuses)
        answer = ToolAnswer("gtw-02", "rollback", "gateway", True, {"changed": True}, "", 0.1)
        return windows_play.Played(answers=[answer])

    monkeypatch.setattr(windows_play, "run", run)
    inf = '{"services": {"reconciler": {"current": "1-r", "pending": null}}}'
    monkeypatch.setattr(ssh, "run", lambda *_words, **_options: ssh.Reply(0, inf, ""))


def test_windows_gateways_are_settled_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    windows_says(monkeypatch, {"gtw-02": status(gateway=("2-g", None))}, made)

    done = settle(FLEET, MIXED)

    assert done.lines == ["gateway on gtw-02 rolled back to 1-g"]
    assert done.hosts == ("inf-01", "gtw-02"), "who depends on what has moved is concerned as well"
    assert [(answer.host, answer.verb, answer.service) for answer in done.answers] == [
        ("gtw-02", "rollback", "gateway")
    ]
    assert [phase for phase, _, _ in made] == ["observe", "settle"]
    assert made[1][2] == {"windows_calls": {"gtw-02": ["rollback", "gateway", "--to", "1-g", "--json"]}}


def test_a_host_that_left_the_inventory_is_told_as_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    windows_says(monkeypatch, {"gtw-02": status(gateway=("2-g", None))}, [])
    done = settle(FLEET, {**MIXED, "hosts": [*FLEET.hosts, "inf-09"]})
    assert done.lines[-1] == "not in the inventory any more, so not asked what it left there: inf-09"
    assert "so not asked: inf-09." in done.sentence


def test_a_windows_gateway_that_does_not_answer_is_not_taken_for_rolled_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows_says(monkeypatch, {}, [])

    done = settle(FLEET, MIXED)

    assert done.answers == []
    assert [failure.partition(":")[0] for failure in done.failures] == [
        "gtw-02 does not answer and does not go back by itself"
    ]


@pytest.mark.parametrize(
    "reply", [ssh.Reply(1, '{"error": {"message": "damaged"}}', ""), ssh.Reply(None, "", "")]
)
def test_a_host_that_cannot_say_what_runs_is_not_taken_for_one_where_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, reply: ssh.Reply
) -> None:
    windows_says(monkeypatch, {"gtw-02": status(gateway=("2-g", None))}, [])
    monkeypatch.setattr(ssh, "run", lambda *_words, **_options: reply)

    done = settle(FLEET, MIXED)

    assert done.answers == []
    assert [failure.partition(" ")[0] for failure in done.failures] == ["inf-01"]
