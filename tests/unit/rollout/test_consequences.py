"""A plan says who restarts, who gains or loses access and whose positions are left, before it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.rendering import TEMPLATES
from deploy.fleet.services import SERVICES
from deploy.remote import holdings
from deploy.rollout import consequences
from deploy.rollout.batches import GATEWAY, Step
from deploy.rollout.consequences import Held
from deploy.rollout.generation import Desired, Shadow, Todo
from deploy.rollout.plan import NOTHING, Plan, Work


def listed(**clients: tuple[str, int]) -> dict[str, Any]:
    made = {
        name: {"key": key, "permissions": ["trade"], "magics": [magic]}
        for name, (key, magic) in clients.items()
    }
    limits = {str(magic): {"dry_run": False, "symbols": ["EURUSD"]} for _, magic in clients.values()}
    return {"clients": made, "limits": limits, "legacy": {}}


NOW = listed(one=("a", 1), two=("b", 2))


def plan(wanted: dict[str, Any]) -> Plan:
    files = {"clients.json": {"content": json.dumps(wanted)}}
    text = json.dumps({"access": "clients.json", "files": files})
    todo = Todo(stage=True, activate=True)
    work = {("gtw-01", GATEWAY): Work(Desired(GATEWAY, text, None, "d", 180), todo)}
    for host in ("inf-01", "inf-02"):
        for service in ("reconciler", "strategy"):
            work[host, service] = Work(Desired(service, "{}", None, "d", 180), todo)
    return Plan("lab", "rolling", (), {}, {}, {}, work)


def told(wanted: dict[str, Any], held: Held | str = "no answer", now: Any = NOW) -> str:
    access = None if now is None else {"serial": 3, "own": True, "list": now}
    seen = {"gtw-01": {"services": {"gateway": {"current": "0001-a", "access": access}}}}
    return "\n".join(consequences.shown(plan(wanted), seen, {"gtw-01": held}))


def test_it_says_what_restarts_and_that_access_stays() -> None:
    assert told(NOW).splitlines() == [
        "consequences:",
        "  restarts   gateway on gtw-01",
        "  restarts   reconciler, strategy on inf-01, inf-02",
    ]


def test_a_strategy_restarts_with_the_reconciler_that_it_is_bound_to() -> None:
    todo = Todo(stage=True, activate=True)
    work = {
        (host, service): Work(Desired(service, "{}", None, "d", 180), todo if activated else Todo())
        for host in ("inf-01", "inf-02")
        for service, activated in (("reconciler", True), ("strategy", False))
    }
    runs = {"reconciler": "0001-a confirmed", "strategy": "0001-b confirmed"}
    observed = {"inf-01": runs, "inf-02": {**runs, "strategy": NOTHING}}
    made = Plan("lab", "rolling", (), {}, observed, {}, work)
    assert consequences.shown(made, {}, {}) == [
        "consequences:",
        "  restarts   reconciler, strategy on inf-01",
        "  restarts   reconciler on inf-02",
    ]


def test_what_changes_without_a_restart_is_told_apart() -> None:
    live, anew = (Todo(stage=True, activate=True, live=live) for live in (True, False))
    runs = {"gateway": "0001-g confirmed", "reconciler": "0001-a confirmed", "strategy": "0001-b confirmed"}
    work = {
        ("gtw-01", "monitoring"): Work(Desired("monitoring", "{}", None, "d", 180), live),
        ("inf-01", "reconciler"): Work(Desired("reconciler", "{}", None, "d", 180), anew),
        ("inf-01", "strategy"): Work(Desired("strategy", "{}", None, "d", 180), live),
        ("inf-02", "reconciler"): Work(Desired("reconciler", "{}", None, "d", 180), live),
        ("inf-02", "strategy"): Work(Desired("strategy", "{}", None, "d", 180), Todo()),
    }
    made = Plan("lab", "rolling", (), {}, {"inf-01": runs, "inf-02": runs}, {}, work)
    assert consequences.shown(made, {}, {}) == [
        "consequences:",
        "  restarts   reconciler, strategy on inf-01",
        "  live       monitoring on gtw-01: no restart",
        "  live       reconciler on inf-02: no restart",
    ]


def test_what_is_bound_to_another_service_is_what_the_units_say() -> None:
    bound = {
        path.name: [line.partition("=")[2] for line in path.read_text().splitlines() if "BindsTo=" in line]
        for path in (TEMPLATES / "systemd").glob("mt5crs-*.service.j2")
        if "standby" not in path.name
    }
    assert {name: units for name, units in bound.items() if units} == {
        f"mt5crs-{one.name}.service.j2": [f"mt5crs-{one.bound_to}{{{{ fleet_suffix }}}}.service"]
        for one in SERVICES
        if one.bound_to
    }


@pytest.mark.parametrize(
    ("promotion", "said"),
    [("rule", "it goes on if 95 % of at least 3 decisions agree"), ("command", "if somebody promotes it")],
)
def test_a_shadow_is_told_with_its_time_and_who_promotes(promotion: str, said: str) -> None:
    def made(strategy: str, *, runs: bool = True) -> list[str]:
        want = Desired("strategy", "{}", None, "d", 180, shadow=Shadow(600, 95.0, 3, promotion))
        todo = Todo(stage=True, activate=True)
        work = {(host, "strategy"): Work(want, todo) for host in ("inf-01", "inf-02")}
        steps = tuple(Step(host, "inf", (host,)) for host in ("inf-01", "inf-02"))
        now = {"strategy": "0001-a confirmed" if runs else NOTHING}
        observed = dict.fromkeys(("inf-01", "inf-02"), now)
        return consequences.shown(Plan("lab", strategy, steps, {}, observed, {}, work), {}, {})

    told_of = [line for line in made("shadow") if line.startswith("  shadow")]
    assert "inf-01, inf-02 runs beside the old one for 600 s first" in told_of[0]
    assert "its orders go nowhere; 2 steps, 1200 s in all; the fleet's lock is held" in told_of[0]
    assert said in told_of[1]
    assert "is taken back otherwise" in told_of[1]
    for others in (made("blue_green"), made("shadow", runs=False)):
        assert not any("orders go nowhere" in line for line in others)


def test_a_host_that_leaves_or_is_renumbered_is_warned_of_with_what_it_holds() -> None:
    for wanted in (listed(one=("a", 1)), listed(one=("a", 1), two=("b", 3))):
        open_ones = told(wanted, Held({1: 5, 2: 2}, {2: 1}))
        assert "magic number 2 loses two; ITS 2 OPEN POSITIONS AND 1 WORKING ORDER ARE LEFT" in open_ones
        assert "magic number 1 loses" not in open_ones
        assert "is not known (no answer)" in told(wanted)
        assert "it holds no positions and no working orders" in told(wanted, Held({1: 5}, {}))
    gone = told(listed(one=("a", 1)))
    assert "gtw-01 takes, also if the deployment fails: two (may trade; magic number 2)" in gone
    renumbered = told(listed(one=("a", 1), two=("b", 3)))
    assert "gtw-01 gives: two: magic number 3" in renumbered
    assert "takes once it is confirmed: two: magic number 2" in renumbered


def test_a_replaced_key_is_told_with_its_way_back() -> None:
    said = told(listed(one=("c", 1), two=("b", 2)))
    assert "gives: one with another key" in said
    assert "takes once it is confirmed: one with the key it has now" in said
    assert "a rollback of the fleet needs access=back" in said
    assert "positions" not in said


def test_what_is_not_known_is_not_called_nothing() -> None:
    assert "who gains or loses access is not known" in told(listed(one=("a", 1)), now=None)
    seen: dict[str, Any] = {"gtw-01": {}}
    assert "access" not in "\n".join(consequences.shown(plan(NOW), seen, {})), "nothing runs there yet"


@pytest.mark.parametrize(
    ("output", "errors", "found"),
    [
        (
            '{"gtw-01": {"positions": [{"magic": 2}, {"magic": 2}], "orders": []}}',
            "",
            Held({2: 2}, {}),
        ),
        ('{"gtw-01": {"error": "gateway does not answer"}}', "error: x", "gateway does not answer"),
        ("", "Traceback\nerror: the vault has no key\n", "error: the vault has no key"),
        ("[]", "", "no answer"),
        (r'{"gtw-01": {"error": "down\u001b[2J"}}', "", r"down\x1b[2J"),
        ("", "down\x1b[2J", r"down\x1b[2J"),
        ('{"other": {"positions": [], "orders": []}}', "", "no answer"),
    ],
)
def test_answers_of_the_gateways_are_read_and_no_answer_is_not_none(
    output: str, errors: str, found: Any
) -> None:
    assert holdings.read(output, errors, ["gtw-01"]) == {"gtw-01": found}


def test_no_gateway_is_asked_when_no_magic_number_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings.subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    assert holdings.consequences_of(plan(NOW), {"gtw-01": {}}, tmp_path / "x.yml")
