"""Scenarios of the trading facts that concern the gateway, by number, through real sockets and processes."""

import contextlib
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from mt5crs.protocol import requests
from mt5crs.protocol.identifiers import comment_id
from mt5crs.protocol.replies import Error, OrderResult, Pong, Snapshot
from tests.unit.gateway.running import MAGIC, Caller, Running, eventually, running, with_settings


def outcome(reply: OrderResult | Error) -> str:
    return reply.outcome if isinstance(reply, OrderResult) else reply.code


def test_02_submitted_and_found_nowhere_stays_unresolved_and_blocks(gateway: Running, trader: Caller) -> None:
    gateway.fault({"kind": "lose_request"})
    assert outcome(trader.order(client_order_id="lost")) == "UNRESOLVED"
    blocked = trader.order()
    assert isinstance(blocked, Error)
    assert (blocked.code, blocked.field) == ("UNRESOLVED", "magic")
    gateway.restart()
    again = gateway.client("strategy")
    again.lease()
    assert outcome(again.query("lost")) == "UNRESOLVED"
    assert outcome(again.order()) == "UNRESOLVED"
    assert gateway.books("deals")[1:] == []  # only the deposit
    declared = gateway.client("ops").ask(
        requests.OrderResolve, client_order_id="lost", reason="looked at the terminal, nothing there"
    )
    assert (declared.outcome, declared.evidence) == ("REJECTED", "operator")
    assert outcome(again.order()) == "FILLED"


def test_02_another_magic_is_not_blocked(gateway: Running, trader: Caller) -> None:
    gateway.fault({"kind": "lose_request"})
    assert outcome(trader.order()) == "UNRESOLVED"
    other = gateway.client("other", 202402)
    other.lease()
    assert outcome(other.order()) == "FILLED"


@pytest.mark.parametrize("fault", [{}, {"retcode": 10012}, {"retcode": 10031}, {"retcode": 10028}])
def test_lost_reply_is_found_in_the_books(gateway: Running, trader: Caller, fault: dict[str, int]) -> None:
    gateway.fault({"kind": "lose_reply", **fault})
    reply = trader.order(client_order_id="x")
    assert isinstance(reply, OrderResult)
    assert (reply.outcome, reply.evidence) == ("FILLED", "books")
    assert [p.comment for p in gateway.books("positions")] == [comment_id(MAGIC, "x")]


def test_late_fill_is_unresolved_until_it_arrives(gateway: Running, trader: Caller) -> None:
    gateway.fault({"kind": "late_fill", "delay_ms": 700})
    assert outcome(trader.order(client_order_id="late")) == "UNRESOLVED"
    eventually(lambda: outcome(trader.query("late")) == "FILLED")
    assert len(gateway.books("positions")) == 1
    assert outcome(trader.order()) == "FILLED"


def test_03_partial_fill_then_cancel_keeps_the_filled_part(gateway: Running, trader: Caller) -> None:
    gateway.broker(do="price", symbol="EURUSD", bid=1.1, ask=1.1001)
    # With each new quote there is liquidity again, and quotes come while the answer is on its way.
    gateway.fault(liquidity=0.3, terminal={"still": ["EURUSD"]})
    reply = trader.order(volume=1.0, filling="RETURN")
    assert isinstance(reply, OrderResult)
    assert (reply.outcome, reply.volume) == ("PARTIAL", pytest.approx(0.3))
    cancelled = trader.cancel(reply.order)
    assert outcome(cancelled) == "CANCELED"
    filled = sum(d.volume for d in gateway.books("deals") if d.order == reply.order)
    (position,) = gateway.books("positions")
    assert position.volume == pytest.approx(filled)
    assert filled < 1.0
    assert gateway.books("orders") == []


def test_06_hedging_keeps_both_sides_and_the_digest_tells(gateway: Running, trader: Caller) -> None:
    trader.order(side="BUY", volume=0.2)
    one = trader.sync()
    trader.order(side="BUY", volume=0.1)
    trader.order(side="SELL", volume=0.1)
    two = trader.sync()
    assert isinstance(one, Snapshot)
    assert isinstance(two, Snapshot)
    assert sorted((p.type, p.volume) for p in two.positions) == [("BUY", 0.1), ("BUY", 0.2), ("SELL", 0.1)]
    assert one.digest != two.digest


def test_07_history_query_that_fails_after_a_fill_is_not_no_fill(gateway: Running, trader: Caller) -> None:
    gateway.fault({"kind": "lose_reply"}, fail_queries=3)
    reply = trader.order(client_order_id="x")
    assert outcome(reply) in ("UNRESOLVED", "FILLED")
    eventually(lambda: outcome(trader.query("x")) == "FILLED")
    assert len(gateway.books("positions")) == 1


@pytest.mark.parametrize(
    ("flag", "field"), [("disconnected", "connected"), ("trade_disabled", "trade_allowed")]
)
def test_09_terminal_that_cannot_trade_is_not_ready(
    gateway: Running, trader: Caller, flag: str, field: str
) -> None:
    gateway.fault(**{flag: True})
    refused = trader.sync()
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("NOT_READY", field)
    assert outcome(trader.order()) == "NOT_READY"
    eventually(lambda: gateway.health()["healthy"] is False)
    gateway.fault()
    assert isinstance(trader.sync(), Snapshot)
    assert outcome(trader.order()) == "FILLED"


@with_settings(TICK_SYMBOLS='["EURUSD", "XAUUSD"]')
def test_a_symbol_without_a_quote_concerns_no_other(gateway: Running, trader: Caller) -> None:
    gateway.fault(terminal={"no_quote": ["XAUUSD"]})
    eventually(lambda: gateway.metric("mt5crs_gateway_quotes_missing") == 1)
    assert gateway.health()["state"] == "ready"
    assert outcome(trader.order()) == "FILLED"
    assert outcome(trader.order(symbol="XAUUSD", filling="FOK")) == "BROKER"
    gateway.fault()
    eventually(lambda: gateway.metric("mt5crs_gateway_quotes_missing") == 0)
    assert outcome(trader.order(symbol="XAUUSD", filling="FOK")) == "FILLED"
    assert gateway.log().count('"event":"quote.missing"') == 1
    assert gateway.log().count('"event":"quote.back"') == 1


def test_09_account_switch_is_not_ready(gateway: Running, trader: Caller) -> None:
    gateway.fault(login=1234)
    refused = trader.sync()
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("NOT_READY", "login")
    assert outcome(trader.order()) == "NOT_READY"
    assert gateway.books("positions") == []


def test_an_account_that_is_switched_back_trades_on(gateway: Running, trader: Caller) -> None:
    held = trader.order()
    assert isinstance(held, OrderResult)
    gateway.fault(login=1234)
    assert outcome(trader.order(client_order_id="meanwhile")) == "NOT_READY"
    gateway.fault()
    assert outcome(trader.order(client_order_id="meanwhile")) == "FILLED", "nothing of it is recorded"
    snapshot = trader.sync()
    assert isinstance(snapshot, Snapshot)
    assert held.position in {position.identifier for position in snapshot.positions}
    assert len(snapshot.positions) == len(gateway.books("positions")) == 2


def test_13_same_id_after_restart_gets_the_original_answer(gateway: Running, trader: Caller) -> None:
    first = trader.order(client_order_id="once", volume=0.2)
    gateway.restart()
    again = gateway.client("strategy")
    again.lease()
    second = again.order(client_order_id="once", volume=0.2)
    assert isinstance(first, OrderResult)
    assert isinstance(second, OrderResult)
    assert (second.order, second.deals, second.price, second.replayed) == (
        first.order,
        first.deals,
        first.price,
        True,
    )
    other = again.order(client_order_id="once", volume=0.3)
    assert isinstance(other, Error)
    assert (other.code, other.field) == ("DUPLICATE_ID", "client_order_id")
    assert len(gateway.books("positions")) == 1


def test_13_a_refusal_is_final_for_its_id(gateway: Running, trader: Caller) -> None:
    ops = gateway.client("ops")
    ops.ask(requests.Halt, scope="FLEET", reason="drill")
    refused = trader.order(client_order_id="while-halted")
    assert isinstance(refused, Error)
    assert (refused.code, refused.final) == ("HALTED", True)
    ops.ask(requests.Resume, scope="FLEET", reason="drill is over")
    assert outcome(trader.order(client_order_id="while-halted")) == "HALTED"
    assert outcome(trader.order()) == "FILLED"


def test_17_cancel_that_is_not_confirmed_blocks_a_replacement(gateway: Running, trader: Caller) -> None:
    gateway.broker(do="price", symbol="EURUSD", bid=1.1, ask=1.1001)
    placed = trader.order(type="LIMIT", price=1.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    assert placed.outcome == "PLACED"
    gateway.fault({"kind": "lose_request"})
    assert outcome(trader.cancel(placed.order, client_order_id="c1")) == "UNRESOLVED"
    assert outcome(trader.order(type="LIMIT", price=1.01, filling="RETURN")) == "UNRESOLVED"
    assert outcome(trader.cancel(placed.order, client_order_id="c2")) == "CANCELED"
    eventually(lambda: outcome(trader.query("c1")) == "CANCELED")
    assert outcome(trader.order(type="LIMIT", price=1.01, filling="RETURN")) == "PLACED"


@with_settings(TERMINAL_TIMEOUT_S="0.6")
def test_hanging_terminal_leaves_ping_alive_and_sync_busy(gateway: Running, trader: Caller) -> None:
    gateway.fault({"kind": "hang", "delay_ms": 3000})
    pending = trader.send(requests.OrderSend, **trader.terms(client_order_id="slow"))
    watcher = gateway.client("watcher")
    eventually(lambda: watcher.ask(requests.Status).state == "terminal_hung")
    assert isinstance(watcher.ask(requests.Ping), Pong)
    busy = watcher.sync()
    assert isinstance(busy, Error)
    assert (busy.code, busy.field) == ("BUSY", "terminal")
    told = trader.receive(pending)
    assert isinstance(told, Error)
    assert told.code == "BUSY"
    eventually(lambda: outcome(trader.query("slow")) == "FILLED")
    assert len(gateway.books("positions")) == 1


def test_full_queue_is_answered_busy(tmp_path: Path) -> None:
    with running(tmp_path, QUEUE_LIMIT="3", TERMINAL_TIMEOUT_S="5") as gateway:
        watcher = gateway.client("watcher")
        gateway.fault(hang_ms=1500)
        sent = [watcher.send(requests.SyncAll, whole_account=True, history_since_msc=None) for _ in range(12)]
        codes = []
        for request_id in reversed(sent):  # refused ones are answered at once, in order of arrival
            try:
                reply = watcher.receive(request_id, 0.2)
            except TimeoutError:
                continue
            codes.append(getattr(reply, "code", "ok"))
            break
        assert codes == ["BUSY"]


def test_kill_between_broker_and_journal(gateway: Running, trader: Caller) -> None:
    """The broker executes, hangs, and the gateway is killed before it hears of it."""
    gateway.fault({"kind": "hang", "delay_ms": 60_000})
    trader.send(requests.OrderSend, **trader.terms(client_order_id="cut"))
    eventually(lambda: gateway.books("positions"))
    gateway.restart()
    again = gateway.client("strategy")
    again.lease()
    reply = again.order(client_order_id="cut")
    assert isinstance(reply, OrderResult)
    assert (reply.outcome, reply.evidence) == ("FILLED", "books")
    assert len(gateway.books("positions")) == 1


def test_lease_moves_with_fencing(gateway: Running, trader: Caller) -> None:
    second = gateway.client("strategy")
    held = second.ask(requests.LeaseAcquire, instance="run-2", ttl_ms=5000)
    assert (held.code, held.field) == ("LEASE_HELD", "magic")
    first_epoch = trader.epoch
    trader.ask(requests.LeaseRelease, instance="run-1", lease_epoch=first_epoch)
    assert second.lease("run-2").epoch == first_epoch + 1
    fenced = trader.order()
    assert isinstance(fenced, Error)
    assert (fenced.code, fenced.field) == ("FENCED", "lease_epoch")
    assert outcome(second.order()) == "FILLED"


def test_lease_runs_out_and_epoch_outlives_a_restart(gateway: Running) -> None:
    caller = gateway.client("strategy")
    epoch = caller.lease("a", ttl_ms=500).epoch
    eventually(lambda: outcome(caller.order()) == "FENCED")
    gateway.restart()
    late = gateway.client("strategy")
    granted = eventually(
        lambda: (
            reply
            if not isinstance(reply := late.ask(requests.LeaseAcquire, instance="b", ttl_ms=500), Error)
            else None
        )
    )
    assert granted.epoch > epoch


def test_halt_survives_a_restart(gateway: Running, trader: Caller) -> None:
    gateway.client("ops").ask(requests.Halt, scope="FLEET", reason="fire drill")
    gateway.restart()
    again = gateway.client("strategy")
    again.lease()
    refused = again.order()
    assert isinstance(refused, Error)
    assert refused.code == "HALTED"
    assert "fire drill" in refused.message
    assert gateway.metric("mt5crs_gateway_halts") == eventually(
        lambda: gateway.metric("mt5crs_gateway_halts")
    )


def test_dry_run_sends_nothing(tmp_path: Path) -> None:
    gateway = Running(tmp_path)
    gateway.limits[str(MAGIC)]["dry_run"] = True
    try:
        gateway.start()
        trader = gateway.client("strategy")
        trader.lease()
        assert outcome(trader.order(client_order_id="d")) == "DRY_RUN"
        assert outcome(trader.order(client_order_id="d")) == "DRY_RUN"
        assert gateway.books("positions") == []
    finally:
        gateway.close()


def test_limits_can_change_without_restart(gateway: Running, trader: Caller) -> None:
    gateway.limits[str(MAGIC)]["max_order_volume"] = 0.05
    gateway.write_clients()
    refused = eventually(lambda: r if isinstance(r := trader.order(), Error) else None)
    assert (refused.code, refused.field) == ("LIMIT", "max_order_volume")


def test_circuit_breaker_opens_and_is_closed_on_purpose(tmp_path: Path) -> None:
    gateway = Running(tmp_path)
    gateway.limits[str(MAGIC)]["max_consecutive_failures"] = 2
    try:
        gateway.start()
        trader = gateway.client("strategy")
        trader.lease()
        gateway.fault({"kind": "retcode", "retcode": 10006}, {"kind": "retcode", "retcode": 10018})
        assert [outcome(trader.order()), outcome(trader.order())] == ["REJECTED", "REJECTED"]
        refused = trader.order()
        assert isinstance(refused, Error)
        assert (refused.code, refused.field) == ("LIMIT", "max_consecutive_failures")
        gateway.restart()
        again = gateway.client("strategy")
        again.lease()
        assert outcome(again.order()) == "LIMIT"
        gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="broker is back")
        eventually(lambda: outcome(again.order()) == "FILLED")
    finally:
        gateway.close()


def test_valid_ms_bounds_the_wait(gateway: Running, trader: Caller) -> None:
    gateway.fault(hang_ms=400)
    refused = trader.order(valid_ms=50)
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("EXPIRED", "valid_ms")
    assert gateway.books("positions") == []


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="freezes a process")
def test_what_became_too_old_while_the_gateway_was_frozen_is_not_sent(
    gateway: Running, trader: Caller
) -> None:
    assert gateway.process is not None
    watcher = gateway.client("watcher")
    watcher.ask(requests.Ping)  # its connection stands before the freeze
    gateway.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    sent = [trader.send(requests.OrderSend, **trader.terms(valid_ms=valid_ms)) for valid_ms in (300, 60_000)]
    question = watcher.send(requests.SyncAll, whole_account=True, history_since_msc=None)
    time.sleep(1 - (time.monotonic() - began))  # the freeze itself
    gateway.process.send_signal(signal.SIGCONT)
    refused, done = (trader.receive(each) for each in sent)
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("EXPIRED", "valid_ms")
    assert isinstance(done, OrderResult)
    assert done.outcome == "FILLED"
    assert len(gateway.books("positions")) == 1
    assert isinstance(watcher.receive(question), Snapshot)  # a question does not grow old


def test_sigterm_ends_cleanly(gateway: Running) -> None:
    assert gateway.process is not None
    gateway.process.terminate()
    assert gateway.process.wait(10) == 0
    assert '"event":"stopped"' in gateway.log()


def test_what_the_broker_must_not_raise_is_an_error_of_that_request(gateway: Running, trader: Caller) -> None:
    """It comes back without a restart."""

    def rename(old: str, new: str) -> None:
        with contextlib.closing(sqlite3.connect(gateway.directory / "state" / "sim" / "broker.db")) as db:
            db.execute(f"ALTER TABLE {old} RENAME TO {new}")
            db.commit()

    rename("deals", "hidden")
    refused = trader.sync(history_since_msc=0)
    assert isinstance(refused, Error)
    assert refused.code == "BROKER"
    assert "deals raised OperationalError" in refused.message
    assert isinstance(trader.ask(requests.Ping), Pong)
    rename("hidden", "deals")
    assert not isinstance(trader.sync(history_since_msc=0), Error)
    assert outcome(trader.order()) == "FILLED"


def test_nothing_secret_in_the_log(gateway: Running, trader: Caller) -> None:
    trader.order()
    for secret in (gateway.environment["GATEWAY_SECRET_KEY"], *gateway.secrets.values()):
        assert secret not in gateway.log()
