"""Scenarios of crash and recovery, by number, through real sockets and real processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mt5crs.client.published import StateUnavailableError
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.protocol.codec import encode
from mt5crs.protocol.events import HEARTBEAT_TOPIC, Heartbeat, trade_topic
from mt5crs.protocol.replies import Error, Reply, SymbolReply
from mt5crs.protocol.requests import Request, SymbolQuery, SyncAll
from mt5crs.reconciler.model import LocalState
from tests.unit.client.peers import Answer, ScriptedGateway, Wire
from tests.unit.reconciler.books import LOGIN, identity, position, snapshot, symbol_spec
from tests.unit.reconciler.trader import Trader


def records(fleet: Fleet) -> list[tuple[str, str]]:
    """(id, kind) of every event on record."""
    path = fleet.directory / "reconciler" / "reconciler.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        return database.execute("SELECT id, kind FROM event ORDER BY id").fetchall()


def halted(fleet: Fleet) -> str:
    """The reason of the halt, once the reconciler has exited with status 1."""
    assert fleet.wait_exit("reconciler") == 1
    halts = [line for line in fleet.log("reconciler") if line["event"] == "SystemHaltException"]
    assert len(halts) == 1
    return str(halts[0]["reason"])


def net(fleet: Fleet) -> float:
    """Sum of the reconciler's positions, in lots."""
    positions = fleet.state().positions or ()
    return round(sum(p.volume if p.type == "BUY" else -p.volume for p in positions), 8)


def equal(fleet: Fleet) -> bool:
    """Whether the reconciler is ready and its digest equals a fresh one of the gateway."""
    try:
        state = fleet.state()
    except StateUnavailableError:
        return False
    with fleet.client() as client:
        return state.state == "ready" and (
            state.digest == client.snapshot(MAGIC, history_since_msc=None).digest
        )


def point_at(fleet: Fleet, gateway: ScriptedGateway) -> None:
    """Let the reconciler talk to a scripted gateway."""
    fleet.settings["reconciler"] |= {
        "GATEWAY_PORT": gateway.port,
        "GATEWAY_PUB_PORT": gateway.pub_port,
        "GATEWAY_PUBLIC_KEY": gateway.public,
    }


def scripted(sync: Callable[[SyncAll], Answer]) -> Callable[[Request], Answer]:
    """Answers that know EURUSD only, with SYNC_ALL as the test says."""

    def answer(request: Request) -> Answer:
        if isinstance(request, SyncAll):
            return sync(request)
        if isinstance(request, SymbolQuery) and request.symbol == "EURUSD":
            return SymbolReply(v=1, id=request.id, spec=symbol_spec("EURUSD"))
        return refusal(request, "UNKNOWN_SYMBOL")

    return answer


def refusal(request: Request, code: Any, retry_ms: int | None = None) -> Reply:
    return Error(
        v=1, id=request.id, code=code, field="", message="scripted", remedy="", retry_ms=retry_ms, final=False
    )


# ---- 1: no known state, no trading ----


def test_scenario_01_no_gateway_means_halt_and_no_order(fleet: Fleet) -> None:
    fleet.start("strategy")
    for failures in (1, 2):
        fleet.start("reconciler")
        assert "no connection to the gateway" in halted(fleet)
        (fleet.directory / "reconciler.log").unlink()
        text = (fleet.directory / "reconciler/metrics/reconciler.prom").read_text()
        assert f'startup_sync_failures_consecutive{{magic="{MAGIC}"}} {failures}\n' in text
    assert fleet.health("strategy")["state"] == "starting"
    with sqlite3.connect(fleet.directory / "strategy/intents.db") as database:
        assert database.execute("SELECT count(*) FROM intent").fetchone() == (0,)


def test_scenario_01_silent_gateway_gets_every_attempt_on_its_own_socket(fleet: Fleet) -> None:
    with ScriptedGateway(lambda _: None) as gateway:
        point_at(fleet, gateway)
        fleet.start("reconciler")
        assert "no answer from the gateway" in halted(fleet)
        assert len(gateway.requests) == 3
        assert len({request.id for request in gateway.requests}) == 3
        assert len(gateway.sockets) == 3


def test_scenario_01_success_resets_the_failure_count(fleet: Fleet) -> None:
    fleet.start("reconciler")
    halted(fleet)
    fleet.start_ready("gateway")
    metrics = fleet.directory / "reconciler/metrics/reconciler.prom"
    assert f'startup_sync_failures_consecutive{{magic="{MAGIC}"}} 1\n' in metrics.read_text()
    fleet.start_ready("reconciler")
    fleet.wait(
        lambda: f'startup_sync_failures_consecutive{{magic="{MAGIC}"}} 0\n' in metrics.read_text(),
        "the count of failures to be 0",
    )


def test_a_late_answer_to_an_earlier_attempt_is_not_taken_for_the_current_one(fleet: Fleet) -> None:
    earlier: list[Request] = []

    def answer(request: SyncAll) -> Answer:
        earlier.append(request)
        if len(earlier) == 1:
            return None
        stale = snapshot(earlier[0].id, positions=[position(99, 5.0)])
        return [encode(stale), encode(stale), encode(snapshot(request.id))]

    with ScriptedGateway(scripted(answer)) as gateway:
        point_at(fleet, gateway)
        fleet.start_ready("reconciler")
        assert fleet.state().positions == ()


# ---- 3, 4, 10, 16: things happen while the reconciler is down ----


def test_scenario_03_half_fill_missed_while_down_is_recovered_once(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    fleet.start_ready("reconciler")
    # Every quote fills a tenth of a lot: however long it takes to see the first, the order is not filled yet.
    limit = trader.send("BUY", 8.0, "LIMIT", price=round(trader.bid() - 0.0100, 5))
    assert limit.outcome == "PLACED"
    fleet.wait(lambda: len(fleet.state().orders or ()) == 1, "the order on record")
    fleet.kill("reconciler")
    fleet.broker(do="faults", faults={"liquidity": 0.1})
    low = round(trader.bid() - 0.0110, 5)
    fleet.broker(do="price", symbol="EURUSD", bid=low, ask=round(low + 0.0001, 5))
    fleet.wait(lambda: trader.books(), "the half fill")
    trader.cancel(limit.order)
    filled = sum(p.volume for p in trader.books())
    assert 0 < filled < 8
    fleet.start_ready("reconciler")
    assert equal(fleet)
    assert net(fleet) == round(filled, 8)
    assert fleet.state().orders == ()
    kinds = [kind for _, kind in records(fleet)]
    assert kinds.count("fill") == round(filled / 0.1)
    assert "order_cancelled_after_partial_fill" in kinds


def test_scenario_04_restarting_twice_on_the_same_state_records_nothing_new(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    fleet.start_ready("reconciler")
    trader.send("BUY", 0.3)
    trader.send("SELL", 0.2)
    fleet.wait(lambda: len(fleet.state().positions or ()) == 2, "both positions on record")
    before = records(fleet)
    for _ in range(2):
        fleet.kill("reconciler")
        fleet.start_ready("reconciler")
        assert equal(fleet)
        assert records(fleet) == before


def test_scenario_05_broker_moved_on_while_down_and_its_deals_explain_it(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    trader.send("BUY", 1.0)
    fleet.start_ready("reconciler")
    fleet.kill("reconciler")
    fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.5, magic=MAGIC)
    fleet.start_ready("reconciler")
    assert equal(fleet)
    assert net(fleet) == 1.5


@pytest.mark.parametrize("recorded", [0.5, 1.5])
def test_scenario_05_unexplained_difference_halts_until_accepted(fleet: Fleet, recorded: float) -> None:
    fleet.start_ready("gateway")
    Trader(fleet).send("BUY", 1.0)
    fleet.start_ready("reconciler")
    fleet.stop("reconciler")
    _falsify(fleet, recorded)
    fleet.start("reconciler")
    assert "no deal explains it" in halted(fleet)
    left = fleet.directory / "reconciler/metrics/reconciler.prom"
    differ = f'mt5crs_reconciler_position_mismatches{{magic="{MAGIC}"}} '
    assert f"{differ}1\n" in left.read_text()
    from mt5crs.reconciler.store import Acceptance, write_acceptance

    write_acceptance(fleet.directory / "reconciler", Acceptance(reason="test", who="test"))
    fleet.start_ready("reconciler")
    assert equal(fleet)
    fleet.wait(lambda: f"{differ}0\n" in left.read_text(), "the difference to be gone from the file")
    fleet.kill("reconciler")
    fleet.start_ready("reconciler")


def _falsify(fleet: Fleet, volume: float) -> None:
    """Change the volume in the reconciler's own record."""
    with sqlite3.connect(fleet.directory / "reconciler/reconciler.db") as database:
        (body,) = database.execute("SELECT body FROM state").fetchone()
        state = msgspec.msgpack.decode(body, type=LocalState)
        changed = tuple(msgspec.structs.replace(p, volume=volume) for p in state.positions)
        state = msgspec.structs.replace(state, positions=changed)
        database.execute("UPDATE state SET body = ?", (msgspec.msgpack.encode(state),))


def test_scenario_10_stop_loss_hit_while_down(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    bid = trader.bid()
    trader.send("BUY", 1.0, sl=round(bid - 0.0050, 5))
    fleet.start_ready("reconciler")
    assert net(fleet) == 1.0
    fleet.kill("reconciler")
    fleet.broker(do="price", symbol="EURUSD", bid=round(bid - 0.0060, 5), ask=round(bid - 0.0059, 5))
    fleet.wait(lambda: not trader.books(), "the stop loss")
    fleet.start_ready("reconciler")
    assert equal(fleet)
    assert net(fleet) == 0
    assert "position_closed" in [kind for _, kind in records(fleet)]
    with fleet.client() as client:  # nothing was sent in answer to it
        deals = client.snapshot(MAGIC, history_since_msc=0).deals
    assert [deal.entry for deal in deals if deal.magic == MAGIC] == ["IN", "OUT"]


def test_scenario_10_pending_orders_filled_and_cancelled_while_down(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    bid = trader.bid()
    filled = trader.send("BUY", 0.4, "LIMIT", price=round(bid - 0.0050, 5))
    gone = trader.send("BUY", 0.7, "LIMIT", price=round(bid - 0.0500, 5))
    fleet.start_ready("reconciler")
    assert len(fleet.state().orders or ()) == 2
    fleet.kill("reconciler")
    fleet.broker(do="price", symbol="EURUSD", bid=round(bid - 0.0060, 5), ask=round(bid - 0.0059, 5))
    fleet.wait(lambda: trader.books(), "the fill")
    fleet.broker(do="cancel", order=gone.order)
    fleet.start_ready("reconciler")
    assert equal(fleet)
    assert net(fleet) == 0.4
    events = dict(records(fleet))
    assert events[f"order-ended:{filled.order}"] == "order_filled"
    assert events[f"order-ended:{gone.order}"] == "order_cancelled"


def test_scenario_16_unfilled_working_order_survives_restarts(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    placed = trader.send("BUY", 0.4, "LIMIT", price=round(trader.bid() - 0.0500, 5))
    for _ in range(2):
        fleet.start_ready("reconciler")
        assert [order.ticket for order in fleet.state().orders or ()] == [placed.order]
        fleet.kill("reconciler")
        fleet.kill("gateway")
        fleet.start_ready("gateway")
    assert not [kind for _, kind in records(fleet) if "rejected" in kind or "ended" in kind]


# ---- 7, 8: answers that are no evidence ----


def test_scenario_07_history_that_fails_after_a_fill_is_asked_for_again(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    fleet.start_ready("reconciler")
    fleet.kill("reconciler")
    trader.send("BUY", 0.6)
    fleet.broker(do="faults", faults={"fail_queries": 1})
    fleet.start_ready("reconciler")
    assert equal(fleet)
    assert net(fleet) == 0.6
    assert [kind for _, kind in records(fleet)].count("fill") == 1


def _without(key: str) -> Callable[[SyncAll], Answer]:
    def answer(request: SyncAll) -> bytes:
        body = msgspec.msgpack.decode(encode(snapshot(request.id)))
        del body[key]
        return msgspec.msgpack.encode(body)

    return answer


BAD_REPLIES: dict[str, tuple[Callable[[SyncAll], Answer], str]] = {
    **{
        f"no {key}": (_without(key), f"missing required field `{key}`")
        for key in ("orders", "positions", "deals", "account", "identity", "unresolved", "digest")
    },
    "unknown symbol": (
        lambda r: snapshot(r.id, positions=[position(1, 1.0, symbol="NOSUCH")]),
        "NOSUCH, which its broker does not know",
    ),
    "not msgpack": (lambda _: b'{"status":"OK"}', "not a protocol v1 message"),
    "another kind": (
        lambda r: SymbolReply(v=1, id=r.id, spec=symbol_spec("EURUSD")),
        "asked SyncAll, got SymbolReply",
    ),
    "wrong digest": (lambda r: snapshot(r.id, digest="0" * 64), "digest"),
    "ticket twice": (
        lambda r: snapshot(r.id, positions=[position(1, 1.0), position(2, 1.0, ticket=1)]),
        "position ticket 1 appears 2 times",
    ),
    "two netting positions": (
        lambda r: snapshot(
            r.id, positions=[position(1, 1.0), position(2, 1.0)], identity=identity(margin_mode="NETTING")
        ),
        "netting position in symbol EURUSD appears 2 times",
    ),
    "another account": (lambda r: snapshot(r.id, identity=identity(login=LOGIN + 1)), "expected 90000001"),
    "not connected": (lambda r: snapshot(r.id, identity=identity(connected=False)), "not connected"),
    "another magic": (lambda r: snapshot(r.id, magic=7), "the reply is for magic 7"),
    "not a number": (
        lambda r: snapshot(r.id, positions=[position(1, float("nan"))], digest="0" * 64),
        "position 1 has the volume nan",
    ),
}


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_scenario_08_a_reply_that_cannot_be_believed_halts(fleet: Fleet, case: str) -> None:
    answer, reason = BAD_REPLIES[case]
    with ScriptedGateway(scripted(answer)) as gateway:
        point_at(fleet, gateway)
        fleet.start("reconciler")
        assert reason in halted(fleet)
    assert not [line for line in fleet.log("reconciler") if line["event"] == "startup.synced"]
    assert records(fleet) == []


# ---- 11, 12: the network ----


def test_scenario_11_fills_during_a_disconnect_are_recovered_at_reconnect(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    trader = Trader(fleet)
    with Wire(fleet.port) as asking, Wire(fleet.pub_port) as hearing:
        fleet.settings["reconciler"] |= {"GATEWAY_PORT": asking.port, "GATEWAY_PUB_PORT": hearing.port}
        fleet.start_ready("reconciler")
        asking.cut()
        hearing.cut()
        fleet.wait(lambda: fleet.state().state == "unknown", "the state counted as unknown")
        trader.send("BUY", 0.5)
        trader.send("BUY", 0.2)
        asking.open()
        hearing.open()
        fleet.wait(lambda: equal(fleet), "equality after the reconnect")
    assert net(fleet) == 0.7
    assert [kind for _, kind in records(fleet)].count("fill") == 2


def test_scenario_11_gateway_restart_is_followed_by_a_resync(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    fleet.start_ready("reconciler")
    fleet.kill("gateway")
    fleet.wait(lambda: fleet.state().state == "unknown", "the state counted as unknown")
    fleet.start_ready("gateway")
    fleet.wait(lambda: equal(fleet), "equality after the restart")


def test_scenario_11_sequence_gap_leads_to_a_resync(fleet: Fleet) -> None:
    books: list[Any] = []

    def answer(request: SyncAll) -> Answer:
        return snapshot(request.id, seqs={trade_topic(MAGIC): len(books)}, positions=books)

    fleet.settings["reconciler"] |= {"RECHECK_INTERVAL_S": 3600, "SILENCE_TIMEOUT_S": 9}
    with ScriptedGateway(scripted(answer)) as gateway:
        point_at(fleet, gateway)
        fleet.start_ready("reconciler")
        before = gateway.asked(SyncAll)

        def beat() -> bool:
            seqs = {trade_topic(MAGIC): 4}
            gateway.publish(
                HEARTBEAT_TOPIC,
                Heartbeat(v=1, stream="s1", seq=1, time_msc=1, interval_ms=1000, state="ready", seqs=seqs),
            )
            return gateway.asked(SyncAll) > before

        fleet.wait(beat, "a new SYNC_ALL after the gap")


def test_scenario_12_half_open_publisher_means_unknown_within_the_bound(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    with Wire(fleet.pub_port) as wire:
        fleet.settings["reconciler"] |= {"GATEWAY_PUB_PORT": wire.port, "RECHECK_INTERVAL_S": 3600}
        fleet.start_ready("reconciler")
        wire.freeze()
        fleet.wait(lambda: fleet.state().state == "unknown", "unknown although no FIN came")
        assert "nothing heard" in fleet.state().reason
        assert fleet.health("reconciler")["healthy"] is False
        wire.open()
        fleet.wait(lambda: fleet.state().state == "ready", "ready once it is heard again")


def test_scenario_12_without_events_the_state_stays_unknown_although_requests_work(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    with Wire(fleet.pub_port) as wire:
        fleet.settings["reconciler"] |= {"GATEWAY_PUB_PORT": wire.port, "RECHECK_INTERVAL_S": 0.2}
        fleet.start_ready("reconciler")
        wire.freeze()
        fleet.wait(lambda: fleet.state().state == "unknown", "unknown although no FIN came")
        done = _figure(fleet, "syncs_total")
        fleet.wait(lambda: _figure(fleet, "syncs_total") >= done + 5, "five more syncs that worked")
        states = [line["state"] for line in fleet.log("reconciler") if line["event"] == "state"]
        assert states[states.index("unknown") :].count("ready") == 0
        wire.open()
        fleet.wait(lambda: fleet.state().state == "ready", "ready once events arrive")


# ---- 15: while running ----


def test_scenario_15_a_difference_that_lasts_three_checks_halts(fleet: Fleet) -> None:
    volume = [1.0]
    with ScriptedGateway(scripted(lambda r: snapshot(r.id, positions=[position(1, volume[0])]))) as gateway:
        point_at(fleet, gateway)
        fleet.settings["reconciler"] |= {"RECHECK_INTERVAL_S": 0.2, "SILENCE_TIMEOUT_S": 9}
        fleet.start_ready("reconciler")
        volume[0] = 3.0
        assert "the broker has 3" in halted(fleet)
    strikes = [line["strikes"] for line in fleet.log("reconciler") if line["event"] == "discrepancy"]
    assert strikes == [1, 2, 3]


def test_scenario_15_a_difference_that_passes_does_not_halt(fleet: Fleet) -> None:
    volume = [1.0]
    with ScriptedGateway(scripted(lambda r: snapshot(r.id, positions=[position(1, volume[0])]))) as gateway:
        point_at(fleet, gateway)
        fleet.settings["reconciler"] |= {
            "RECHECK_INTERVAL_S": 0.2,
            "SILENCE_TIMEOUT_S": 9,
            "SYNC_RETRY_INTERVAL_S": 0.5,
        }
        fleet.start_ready("reconciler")
        volume[0] = 3.0
        fleet.wait(lambda: fleet.state().state == "unknown", "unknown at the first sight of it")
        volume[0] = 1.0
        fleet.wait(lambda: fleet.state().state == "ready", "ready again")
        assert "reconciler" in fleet.processes


def test_scenario_15_a_failing_query_skips_the_check_and_is_counted(fleet: Fleet) -> None:
    busy = [False]

    def answer(request: SyncAll) -> Answer:
        return refusal(request, "BUSY", 10) if busy[0] else snapshot(request.id, positions=[position(1, 1.0)])

    with ScriptedGateway(scripted(answer)) as gateway:
        point_at(fleet, gateway)
        fleet.settings["reconciler"] |= {
            "RECHECK_INTERVAL_S": 0.2,
            "SILENCE_TIMEOUT_S": 9,
            "SYNC_RETRY_INTERVAL_S": 0.5,
        }
        fleet.start_ready("reconciler")
        busy[0] = True
        fleet.wait(lambda: _figure(fleet, "checks_skipped_total") >= 1, "a skipped check")
        state = fleet.state()
        assert state.positions is not None
        assert [p.identifier for p in state.positions] == [1]  # not taken for "no positions"
        busy[0] = False
        fleet.wait(lambda: fleet.state().synced_at > state.synced_at, "a check that worked")
        assert fleet.state().state == "ready"


def _figure(fleet: Fleet, name: str) -> float:
    import urllib.request

    url = f"http://127.0.0.1:{fleet.metrics_ports['reconciler']}/metrics"
    text = urllib.request.urlopen(url, timeout=5).read().decode()
    return next(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"mt5crs_reconciler_{name}")
    )


def test_settings_errors_come_all_at_once_with_status_78(fleet: Fleet) -> None:
    fleet.settings["reconciler"] |= {
        "SYNC_TIMEOUT_S": "soon",
        "MAGIC_NUMBER": "-5",
        "GATEWAY_PORT": "70000",
        "CLIENT_SECRET_KEY": "no-key-at-all",
        "EXPECTED_ACCOUNT_LOGIN": "",
    }
    fleet.start("reconciler")
    assert fleet.wait_exit("reconciler") == 78
    text = fleet.tail("reconciler")
    for name in fleet.settings["reconciler"].keys() & {
        "SYNC_TIMEOUT_S",
        "MAGIC_NUMBER",
        "GATEWAY_PORT",
        "CLIENT_SECRET_KEY",
        "EXPECTED_ACCOUNT_LOGIN",
    }:
        assert name in text
    assert "no-key-at-all" not in text


def test_state_directory_that_cannot_be_used_is_a_configuration_error(fleet: Fleet, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    fleet.settings["reconciler"] |= {"STATE_DIR": blocked}
    fleet.start("reconciler")
    assert fleet.wait_exit("reconciler") == 78
    assert "STATE_DIR" in fleet.tail("reconciler")
