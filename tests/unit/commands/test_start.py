"""`mt5crs start` against a real gateway: what it wants first, what it lifts, and every way to end it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.commands import backup, start, strategy_state
from deploy.fleet import inventory
from deploy.preflight.facts import Firing
from deploy.remote import ssh
from mt5crs.client.gateway import GatewayClient
from mt5crs.local_fleet.rehearsal import Fleet
from mt5crs.operate import trading
from mt5crs.operate.trading import withdrawn
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import PhaseAct
from mt5crs.protocol.replies import OrderResult
from tests.unit.gateway.running import MAGIC, Running, running
from tests.unit.operate.operated import BACKUP, Operated, away, no_backup, operated
from tests.unit.preflight.test_preflight import GOOD, on
from tests.unit.preflight.test_preflight import gateway as gateway_says
from tests.unit.stand_in import Hub, closed, hub_that_answers

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("start")) as started:
        yield started


@pytest.fixture
def ops(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Operated:
    return operated(gateway, monkeypatch)


def test_a_start_lifts_the_halt_after_everything_was_shown_and_waits_for_the_strategy(ops: Operated) -> None:
    ops.halt("end of the week")
    ops.facts = on("hub-01", firing=[Firing("Mt5crsHalted", "gtw-01", "critical")])(GOOD)
    trader = ops.trader()
    ops.waits = ["its strategy is suspended: the state is not known", "its strategy is suspended: x"]
    began = ops.start("--reason", "monday")
    assert began.exit_code == 0, began.output
    told = began.output
    shown = [
        "GO for staging",
        f"backup {BACKUP['id']}",
        "halts",
        "started in 5 s",
        "started in 1 s",
        "waits: ",
    ]
    assert [told.index(part) for part in shown] == sorted(told.index(part) for part in shown)
    assert f"{MAGIC} by ops: end of the week" in told
    assert "max_order_volume 5.0" in told
    assert "inf-01: its strategy is suspended: the state is not known" in told
    assert f"{MAGIC} trades: preflight" in told
    assert all(part in told.splitlines()[-1] for part in ("backup ", "countdown ", "lifting ", "strategy "))
    assert ops.slept == [1.0] * 5 + [start._POLL_S] * 2
    assert isinstance(trader.order(), OrderResult)
    (act,) = ops.recorded
    assert (act["what"], act["magic"], act["reason"], act["unasked"]) == (
        "trading.started",
        MAGIC,
        "monday",
        False,
    )
    assert (act["backup"], act["gateways"]) == (BACKUP["id"], {"gtw-01": "done"})

    again = ops.start()
    assert (again.exit_code, again.output) == (0, f"{MAGIC} trades already; nothing was changed\n")
    assert len(ops.recorded) == 1


def test_it_also_lifts_that_it_may_only_reduce_and_the_halt_last(ops: Operated) -> None:
    ops.trader()
    ops.tell(requests.PhaseTrading, state="REDUCING", reason="news at 14:30")
    ops.halt("end of the week")
    began = ops.start("--yes", "--json")
    assert began.exit_code == 0, began.output
    document = json.loads(began.stdout)
    assert document["acts"] == {
        "gtw-01: lift: it may only reduce: news at 14:30": "done",
        "gtw-01: lift: halt by ops: end of the week": "done",
    }
    assert list(document["seconds"]) == ["preflight", "backup", "lifting", "strategy"]
    assert ops.recorded[0]["unasked"] is True
    assert ops.slept == []


def test_ctrl_c_while_it_counts_leaves_everything_as_it_was(
    ops: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops.halt()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "_sleep", interrupt)
    ended = ops.start()
    assert ended.exit_code == 130, ended.output
    assert f"{MAGIC} is not started; everything is as it was; backup {BACKUP['id']} was made" in ended.output
    assert ops.halts() == [(MAGIC, "drill")]
    assert ops.recorded == []


def test_ctrl_c_afterwards_says_what_was_done(ops: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    ops.halt()
    ops.trader()

    def interrupt(seconds: float) -> None:
        if seconds == start._POLL_S and len(ops.slept) >= 5:
            raise KeyboardInterrupt
        ops.slept.append(seconds)

    ops.waits = ["it starts"] * 3
    monkeypatch.setattr(start, "_sleep", interrupt)
    ended = ops.start()
    assert ended.exit_code == 130, ended.output
    assert f"the start of {MAGIC} had begun\n  gtw-01: lift: halt by ops: drill: done" in ended.output
    assert f"`stop --magic {MAGIC}` takes it back" in ended.output
    assert ops.halts() == []
    assert [act["what"] for act in ops.recorded] == ["trading.started"]


def test_ctrl_c_while_it_lifts_is_recorded_and_says_what_is_not_known(
    ops: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops.tell(requests.PhaseTrading, state="REDUCING", reason="news")
    ops.halt()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "_resume", interrupt)
    ended = ops.start("--yes")
    assert ended.exit_code == 130, ended.output
    assert "lift: it may only reduce: news: done" in ended.output
    assert "lift: halt by ops: drill: asked for; whether it was done is not known" in ended.output
    assert ops.halts() == [(MAGIC, "drill")]
    assert [act["what"] for act in ops.recorded] == ["trading.started"]


def test_no_go_ends_it_with_the_failing_checks_and_the_status_of_preflight(ops: Operated) -> None:
    ops.halt()
    ops.facts = gateway_says(state="not_ready", reason="no terminal")(GOOD)
    ended = ops.start("--yes")
    assert ended.exit_code == 2, ended.output
    assert "FAIL P0 G-DAT-02" in ended.output
    assert "stopped by G-DAT-02" in ended.output
    assert ended.output.endswith(f"{MAGIC} is not started; nothing was changed\n")
    assert ops.halts() == [(MAGIC, "drill")]


@pytest.fixture
def hub(ops: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same fleet with a Hub, which keeps its lock."""
    of = ops.fleet
    ops.fleet = inventory.Fleet(
        of.inventory,
        of.environment,
        {"hub-01": {"ansible_host": "10.9.9.1"}, **of.hosts},
        {**of.groups, "hub": ("hub-01",)},
    )
    answers = hub_that_answers(tmp_path, monkeypatch)
    answers(0, {"changed": True})
    return answers


def test_nobody_deploys_or_starts_while_it_starts(
    ops: Operated, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts would each lift what the other was shown; a deployment would change it."""
    ops.halt()
    ops.trader()
    seen: list[bool] = []
    made = start._resume

    def resume(*given: Any) -> Any:
        seen.append(any(" close " in one for one in hub(0, {})))
        return made(*given)

    monkeypatch.setattr(start, "_resume", resume)
    began = ops.start("--yes")
    assert began.exit_code == 0, began.output
    asked = hub(0, {})
    assert seen == [False], "the lock is held until the halt is lifted"
    assert (closed(asked)["action"], closed(asked)["outcome"]) == ("start", "changed")
    hub(2, {"error": {"message": "another deployment holds the fleet's lock: anna", "remedy": "wait"}})
    ops.halt()
    refused = ops.start("--yes")
    assert refused.exit_code == 1, refused.output
    assert "anna" in refused.output
    assert refused.output.endswith("not started; nothing was changed\n")
    assert ops.halts() == [(MAGIC, "drill")]


def test_a_start_that_changed_nothing_is_no_deployment_on_record(ops: Operated, hub: Hub) -> None:
    ops.halt()
    ops.facts = gateway_says(state="not_ready", reason="no terminal")(GOOD)
    assert ops.start("--yes").exit_code == 2
    assert closed(hub(0, {}))["outcome"] == "unchanged"


def test_the_lock_is_given_back_before_the_strategy_is_waited_for(
    ops: Operated, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback must not have to wait for a strategy that does not come."""
    ops.halt()
    ops.trader()
    ops.waits = ["it starts"]
    slept: list[bool] = []
    monkeypatch.setattr(start, "_sleep", lambda _: slept.append(any(" close " in one for one in hub(0, {}))))
    began = ops.start("--yes")
    assert (began.exit_code, slept) == (0, [True]), began.output


def test_a_backup_that_failed_or_is_not_whole_ends_it(ops: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    ops.halt()
    ops.backup["missing"] = {"inf-01": "no answer"}
    ended = ops.start("--yes")
    assert ended.exit_code == 1, ended.output
    assert f"backup {BACKUP['id']} is not whole: inf-01: no answer\nnot started; nothing was" in ended.output
    monkeypatch.setattr(backup, "made_of", no_backup("the Hub's disk is full"))
    ended = ops.start("--yes")
    assert (ended.exit_code, "the Hub's disk is full" in ended.output) == (1, True)
    assert ops.halts() == [(MAGIC, "drill")]


def test_without_a_terminal_somebody_has_to_say_yes(ops: Operated) -> None:
    ops.someone = False
    ended = ops.start()
    assert ended.exit_code == 1, "2 is NO-GO"
    assert "add --yes if that is meant. Nothing was done" in ended.output
    unknown = ops.run("start", "--magic", "7", "--yes")
    assert (unknown.exit_code, f"there are {MAGIC}" in unknown.output) == (1, True)
    short = ops.start("--yes", "--reason", "x")
    assert (short.exit_code, "3 to 256 characters" in short.output) == (1, True)


def test_a_halt_of_everything_and_a_withdrawal_are_not_lifted(ops: Operated) -> None:
    ops.halt("the exchange is down", scope="FLEET")
    ended = ops.start("--yes")
    assert (ended.exit_code, "everything is halted by ops: the exchange is down" in ended.output) == (1, True)
    ops.tell(requests.Resume, scope="FLEET", reason="it is back")
    assert ops.run("withdraw", "--magic", str(MAGIC), "--reason", "wrong model").exit_code == 0
    ended = ops.start("--yes")
    assert ended.exit_code == 1, ended.output
    assert "trading was withdrawn: wrong model (ops); give it back first" in ended.output
    assert ops.halts() == [(MAGIC, "withdrawn: wrong model")]
    back = ops.run("phase", "activate", "--magic", str(MAGIC), "--reason", "mended")
    assert back.exit_code == 0, back.output
    ops.trader()
    assert ops.start("--yes").exit_code == 0


def test_what_somebody_else_does_during_the_countdown_ends_it(
    ops: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops.halt()
    monkeypatch.setattr(start, "_sleep", lambda _: ops.halt("news", scope="FLEET"))
    ended = ops.start()
    assert ended.exit_code == 1, ended.output
    assert "what was shown of gtw-01 has changed since" in ended.output
    assert (MAGIC, "drill") in ops.halts()


def test_a_strategy_that_does_not_come_is_named(ops: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    ops.halt()
    ops.trader()
    ops.waits = ["its strategy is suspended: no state"] * 9
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(start, "_clock", lambda: float(next(clock)))
    ended = ops.start("--yes", "--within", "30")
    assert ended.exit_code == 1, ended.output
    assert "was not seen trading within 30 s" in ended.output
    assert "  waits: inf-01: its strategy is suspended: no state" in ended.output
    assert ops.halts() == []


def test_a_gateway_that_is_away_ends_it_before_anything_is_done(ops: Operated) -> None:
    ops.fleet = away(ops.fleet)
    ended = ops.start("--yes")
    assert ended.exit_code == 1, ended.output
    assert "gtw-01 does not answer" in ended.output
    assert "not started; nothing was changed" in ended.output


def test_a_withdrawal_ends_with_the_act_of_a_person() -> None:
    def act(name: str, reason: str, by: str = "ops", magic: int = 7) -> PhaseAct:
        return PhaseAct(at_msc=1, magic=magic, act=name, profile="", serial=1, by=by, reason=reason)

    taken = act("reducing", "withdrawn: x")
    assert withdrawn([act("crash", "lost", magic=0), act("reducing", "news"), taken], 7) == taken
    assert withdrawn([act("set", "no record was ever given", by="gateway"), taken], 7) == taken
    assert withdrawn([act("active", "mended"), taken], 7) is None
    assert withdrawn([act("override", "mended", by="alice"), taken], 7) is None
    assert withdrawn([taken], 8) is None


def test_a_strategy_on_a_real_fleet_is_seen_once_its_halt_is_lifted(
    fleet: Fleet,
) -> None:
    for service in ("gateway", "reconciler", "strategy"):
        fleet.start_ready(service)
    with fleet.client() as client:
        client.call(requests.Halt, replies.HaltState, magic=MAGIC, scope="MAGIC", reason="drill")
        found = lifts_and_waits(client)
        assert found[0] == ["halt by ops: drill"]
        client.call(requests.Resume, replies.HaltState, magic=MAGIC, scope="MAGIC", reason="over")
        assert fleet.health("strategy")["healthy"] is True, "a halt alone does not suspend it"
        assert lifts_and_waits(client) == ([], [])
        fleet.stop("strategy")
        assert lifts_and_waits(client) == ([], ["no program holds its lease"])


def lifts_and_waits(client: GatewayClient) -> tuple[list[str], list[str]]:
    said = trading.look(client, MAGIC)
    return list(trading.lifts(said)), list(trading.awaits(said))


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (ssh.Reply(0, json.dumps({"healthy": True, "magic": MAGIC}), ""), ""),
        (ssh.Reply(0, json.dumps({"healthy": True, "magic": 7}), ""), f"its strategy trades 7, not {MAGIC}"),
        (
            ssh.Reply(75, json.dumps({"healthy": False, "state": "starting", "reason": "no lease"}), ""),
            "its strategy is starting: no lease",
        ),
        (ssh.Reply(None, "", "no route to host"), "its strategy does not say how it is: no route to host"),
        (ssh.Reply(127, "", "mt5crs: not found"), "its strategy does not say how it is: mt5crs: not found"),
        (ssh.Reply(0, "{}", ""), "its strategy is unknown: it gives no reason"),
    ],
)
def test_a_strategy_trades_only_if_its_host_says_so(
    reply: ssh.Reply, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "run", lambda *_, **__: reply)
    host = {"strategy_metrics_address": "127.0.0.1", "strategy_metrics_port": 1}
    assert strategy_state.strategy_of(host, MAGIC) == why
