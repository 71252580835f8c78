"""The execution adapter against a real gateway, a frozen one, and one that loses answers."""

from __future__ import annotations

import io
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mt5crs.client.connection import Peer
from mt5crs.client.gateway import GatewayClient, Patience
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, Lease, OrderResult, Pong, Snapshot
from mt5crs.protocol.requests import LeaseAcquire, LeaseRelease, LeaseRenew, OrderQuery, OrderSend, Request
from mt5crs.service.logs import Log
from mt5crs.settings.schema import SettingsError
from mt5crs.strategy.api import (
    OrderNotSentError,
    OrderRefusedError,
    OrderUnknownError,
    Outcome,
    TradingSuspendedError,
)
from mt5crs.strategy.execution import ExecutionAdapter
from mt5crs.strategy.journal import IntentJournal
from mt5crs.strategy.lease import LeaseKeeper
from tests.unit.client.peers import Answer, ScriptedGateway, Wire
from tests.unit.orders import TERMS


class Placing:
    """Adapter, journal and lease of one strategy process, without the process."""

    def __init__(self, peer: Peer, directory: Path, *, timeout_s: float = 1.0, ttl_s: float = 10.0) -> None:
        log = Log("strategy", "ERROR", io.StringIO())
        self.journal = IntentJournal(directory)
        patience = Patience(0.4, 2, 0.05)
        self._client = GatewayClient(peer, patience)
        self.lease = LeaseKeeper(
            GatewayClient(peer, patience),
            log,
            magic=MAGIC,
            instance=self.journal.instance(),
            ttl_s=ttl_s,
            margin_s=ttl_s / 4,
        )
        self.adapter = ExecutionAdapter(
            self._client, self.journal, self.lease, log, magic=MAGIC, timeout_s=timeout_s
        )

    def buy(self, **changes: Any) -> Outcome:
        return self.adapter.submit(requests.OrderSend, **(TERMS | changes))

    def crash(self) -> None:
        """Let go of everything without a word to the gateway, as kill -9 does."""
        self.lease._stop.set()
        self.lease._thread.join(5)
        self.lease._client.close()
        self._client.close()
        self.journal.close()

    def close(self) -> None:
        self.lease.release()
        self._client.close()
        self.journal.close()


@pytest.fixture
def placing(fleet: Fleet, tmp_path: Path) -> Iterator[Placing]:
    fleet.start_ready("gateway")
    made = Placing(fleet.peer("strategy"), tmp_path / "placing")
    assert made.lease.acquire(fresh_epoch=True)
    yield made
    made.close()


def books(fleet: Fleet) -> Snapshot:
    with fleet.client() as client:
        return client.snapshot(MAGIC, history_since_msc=0)


def our_deals(fleet: Fleet) -> int:
    return sum(deal.magic == MAGIC for deal in books(fleet).deals)


def test_an_order_is_on_record_and_filled(fleet: Fleet, placing: Placing) -> None:
    outcome = placing.buy()
    assert (outcome.result, outcome.volume) == ("FILLED", 0.1)
    assert placing.journal.states() == {outcome.client_order_id: "done"}
    assert [p.identifier for p in books(fleet).positions] == [outcome.position]


def test_a_refusal_is_typed_and_final(fleet: Fleet, placing: Placing) -> None:
    with pytest.raises(OrderRefusedError) as refused:
        placing.buy(volume=50.0)
    assert refused.value.code == "LIMIT"
    assert list(placing.journal.states().values()) == ["refused"]
    assert our_deals(fleet) == 0


def test_no_lease_no_order(fleet: Fleet, placing: Placing) -> None:
    placing.lease.lost("test")
    with pytest.raises(TradingSuspendedError, match="lease"):
        placing.buy()
    assert placing.journal.states() == {}


def test_a_gateway_that_is_not_there_means_not_sent_within_the_time(fleet: Fleet, placing: Placing) -> None:
    fleet.kill("gateway")
    with pytest.raises((OrderNotSentError, OrderUnknownError)):
        placing.buy()
    began = time.monotonic()
    placing.journal.settle(next(iter(placing.journal.states())), "never_sent", "test")
    with pytest.raises(OrderNotSentError):
        placing.buy()
    assert time.monotonic() - began < 10  # returns at all: the bound itself is 1 s
    assert set(placing.journal.states().values()) == {"never_sent"}


def test_a_frozen_gateway_never_makes_an_order_call_hang(fleet: Fleet, placing: Placing) -> None:
    placing.buy()
    process = fleet.processes["gateway"]
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(OrderUnknownError):
            placing.buy()
        with pytest.raises(TradingSuspendedError):
            placing.buy()
    finally:
        process.send_signal(signal.SIGCONT)
    assert list(placing.journal.states().values()).count("unknown") == 1
    # The frozen gateway may still have the message: a fresh epoch decides, then the records are asked.
    fleet.wait(lambda: placing.lease.acquire(fresh_epoch=True), "the lease after the thaw")
    assert placing.adapter.resolve_open() == []
    assert our_deals(fleet) in (1, 2)
    done = list(placing.journal.states().values()).count("done")
    assert our_deals(fleet) == done


def test_an_order_that_hangs_in_the_terminal_is_never_called_not_sent(fleet: Fleet, tmp_path: Path) -> None:
    """The gateway answers BUSY meanwhile, to this order and to every repetition; then it is executed."""
    fleet.settings["gateway"] = {"SIM_FAULTS": "true", "TERMINAL_TIMEOUT_S": 0.2}
    fleet.start_ready("gateway")
    placing = Placing(fleet.peer("strategy"), tmp_path / "placing", timeout_s=1.0)
    assert placing.lease.acquire(fresh_epoch=True)
    fleet.broker(do="faults", faults={"send": [{"kind": "hang", "delay_ms": 3000}]})
    with pytest.raises(OrderUnknownError):
        placing.buy()
    with pytest.raises(TradingSuspendedError):
        placing.buy()
    fleet.wait(
        lambda: placing.lease.acquire(fresh_epoch=True) and not placing.adapter.resolve_open(), "its fate"
    )
    assert list(placing.journal.states().values()) == ["done"]
    assert our_deals(fleet) == 1
    placing.close()


@pytest.mark.parametrize(
    ("code", "final", "certain"),
    [
        ("BUSY", False, False),
        ("INTERNAL", False, False),
        ("BROKER", False, False),
        ("NOT_READY", False, False),
        ("FORBIDDEN", False, True),
        ("LIMIT", True, True),
    ],
)
def test_which_refusals_prove_that_nothing_is_executed(code: Any, final: bool, certain: bool) -> None:
    """One that is about the moment proves nothing: a copy of the message may come in a better one."""

    def answer(request: Request) -> Answer:
        if isinstance(request, (LeaseAcquire, LeaseRenew, LeaseRelease)):
            return Lease(v=1, id=request.id, magic=MAGIC, epoch=7, ttl_ms=10_000, instance="x")
        return msgspec.structs.replace(
            refusal(request), code=code, final=final, retry_ms=None if certain else 200
        )

    with (
        ScriptedGateway(answer) as gateway,
        scripted_order_manager(gateway, timeout_s=0.5) as placing,
        pytest.raises(OrderRefusedError if certain else OrderUnknownError),
    ):
        placing.buy()


def test_an_answer_lost_on_the_wire_is_asked_for_again_under_the_same_id(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.start_ready("gateway")
    with Wire(fleet.port) as wire:
        peer = fleet.peer("strategy")
        placing = Placing(
            Peer(
                host=peer.host,
                port=wire.port,
                pub_port=peer.pub_port,
                server_key=peer.server_key,
                client_name=peer.client_name,
                secret_key=peer.secret_key,
            ),
            tmp_path / "placing",
        )
        assert placing.lease.acquire(fresh_epoch=True)
        placing._client.once(requests.Ping, Pong, timeout_s=1.0, magic=MAGIC)  # connected from here on
        wire.deaf_to_answers = True
        with pytest.raises(OrderUnknownError):
            placing.buy()
        fleet.wait(lambda: our_deals(fleet) == 1, "the order executed although no answer came")
        wire.deaf_to_answers = False
        assert placing.lease.acquire(fresh_epoch=True)
        assert placing.adapter.resolve_open() == []
        assert list(placing.journal.states().values()) == ["done"]
        assert our_deals(fleet) == 1
        placing.close()


def test_scenario_02_an_unresolved_order_blocks_until_the_books_decide(
    fleet: Fleet, placing: Placing
) -> None:
    fleet.broker(do="faults", faults={"send": [{"kind": "late_fill", "delay_ms": 1500}]})
    try:
        placing.buy()
    except OrderUnknownError:
        with pytest.raises(TradingSuspendedError):
            placing.buy()
        fleet.wait(
            lambda: placing.lease.acquire(fresh_epoch=True) and not placing.adapter.resolve_open(), "its fate"
        )
    assert list(placing.journal.states().values()) == ["done"]
    assert our_deals(fleet) == 1


def test_a_crash_before_sending_sends_nothing_afterwards(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_ready("gateway")
    before = Placing(fleet.peer("strategy"), tmp_path / "placing")
    assert before.lease.acquire(fresh_epoch=True)
    epoch = before.lease.epoch
    before.journal.open_intent("intent-without-send", MAGIC, "OrderSend", TERMS)
    before.crash()
    after = Placing(fleet.peer("strategy"), tmp_path / "placing")
    assert after.lease.acquire(fresh_epoch=True)  # at once: same instance, no waiting for the old lease
    assert after.lease.epoch is not None
    assert epoch is not None
    assert after.lease.epoch > epoch
    assert after.adapter.resolve_open() == []
    assert after.journal.states() == {"intent-without-send": "never_sent"}
    assert our_deals(fleet) == 0
    after.close()


def test_a_crash_after_sending_finds_the_outcome(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_ready("gateway")
    before = Placing(fleet.peer("strategy"), tmp_path / "placing")
    assert before.lease.acquire(fresh_epoch=True)
    outcome = before.buy()
    before.journal.settle(outcome.client_order_id, "intent", "")  # as if the crash came before the answer
    before.crash()
    after = Placing(fleet.peer("strategy"), tmp_path / "placing")
    with pytest.raises(TradingSuspendedError):
        after.buy()
    assert after.lease.acquire(fresh_epoch=True)
    assert after.adapter.resolve_open() == []
    assert after.journal.states() == {outcome.client_order_id: "done"}
    assert our_deals(fleet) == 1
    after.close()


def test_retries_carry_the_same_id_and_content() -> None:
    seen: list[OrderSend] = []

    def answer(request: Request) -> Answer:
        if isinstance(request, (LeaseAcquire, LeaseRenew)):
            return Lease(v=1, id=request.id, magic=MAGIC, epoch=7, ttl_ms=10_000, instance="x")
        if isinstance(request, LeaseRelease):
            return Lease(v=1, id=request.id, magic=MAGIC, epoch=7, ttl_ms=0, instance="x")
        assert isinstance(request, OrderSend)
        seen.append(request)
        return None if len(seen) < 3 else filled(request)

    with ScriptedGateway(answer) as gateway, scripted_order_manager(gateway, timeout_s=5.0) as placing:
        assert placing.buy().result == "FILLED"
    assert len({order.client_order_id for order in seen}) == 1
    assert len({order.id for order in seen}) == 3
    assert {order.lease_epoch for order in seen} == {7}


def test_a_refusal_after_a_lost_answer_does_not_prove_anything() -> None:
    """Attempt one may be inside the gateway; FENCED on attempt two says nothing about it."""
    sent: list[Request] = []

    def answer(request: Request) -> Answer:
        if isinstance(request, (LeaseAcquire, LeaseRenew, LeaseRelease)):
            return Lease(v=1, id=request.id, magic=MAGIC, epoch=7, ttl_ms=10_000, instance="x")
        if isinstance(request, OrderQuery):
            return filled(request)
        sent.append(request)
        return None if len(sent) == 1 else refusal(request)

    with ScriptedGateway(answer) as gateway, scripted_order_manager(gateway) as placing:
        with pytest.raises(OrderUnknownError):
            placing.buy()
        assert list(placing.journal.states().values()) == ["unknown"]
        assert placing.lease.acquire(fresh_epoch=True)
        assert placing.adapter.resolve_open() == []
        assert list(placing.journal.states().values()) == ["done"]


def filled(request: Any) -> OrderResult:
    return OrderResult(
        v=1,
        id=request.id,
        client_order_id=request.client_order_id,
        outcome="FILLED",
        retcode=10009,
        message="",
        order=1,
        deals=[2],
        position=1,
        position_ticket=1,
        volume_requested=0.1,
        volume=0.1,
        price=1.1,
        comment_id="c",
        epoch=7,
        evidence="reply",
        replayed=False,
        time_msc=1,
        stream="s",
        seq=1,
    )


def refusal(request: Request) -> Error:
    return Error(
        v=1,
        id=request.id,
        code="FENCED",
        field="lease_epoch",
        message="",
        remedy="",
        retry_ms=None,
        final=False,
    )


class scripted_order_manager:  # noqa: N801  (reads as a function)
    """A placing on a scripted gateway, in its own directory."""

    def __init__(self, gateway: ScriptedGateway, timeout_s: float = 1.5) -> None:
        self._gateway, self._timeout_s = gateway, timeout_s

    def __enter__(self) -> Placing:
        import tempfile

        from mt5crs.protocol.curve import new_keypair

        self._directory = tempfile.TemporaryDirectory()
        peer = Peer(
            host="127.0.0.1",
            port=self._gateway.port,
            pub_port=self._gateway.pub_port,
            server_key=self._gateway.public,
            client_name="strategy",
            secret_key=new_keypair()[1],
        )
        self._placing = Placing(peer, Path(self._directory.name), timeout_s=self._timeout_s)
        assert self._placing.lease.acquire(fresh_epoch=False)
        return self._placing

    def __exit__(self, *_: object) -> None:
        self._placing.close()
        self._directory.cleanup()


# ---- lease ----


def test_the_lease_ends_by_itself_before_the_gateways_does(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_ready("gateway")
    placing = Placing(fleet.peer("strategy"), tmp_path / "placing", ttl_s=2.0)
    assert placing.lease.acquire(fresh_epoch=True)
    fleet.processes["gateway"].send_signal(signal.SIGSTOP)
    try:
        fleet.wait(lambda: placing.lease.epoch is None, "the strategy's own end of the lease")
        with pytest.raises(TradingSuspendedError):
            placing.buy()
    finally:
        fleet.processes["gateway"].send_signal(signal.SIGCONT)
    placing.close()


def test_a_main_loop_that_hangs_loses_the_lease(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_ready("gateway")
    placing = Placing(fleet.peer("strategy"), tmp_path / "placing", ttl_s=1.0)
    assert placing.lease.acquire(fresh_epoch=True)
    for _ in range(8):
        placing.lease.feed()
        time.sleep(0.25)
        assert placing.lease.epoch is not None
    fleet.wait(lambda: placing.lease.epoch is None, "the end of a lease nobody feeds")
    assert "hangs" in placing.lease.reason
    placing.close()


def test_only_one_instance_holds_the_lease(fleet: Fleet, placing: Placing, tmp_path: Path) -> None:
    other = Placing(fleet.peer("strategy"), tmp_path / "other")
    assert not other.lease.acquire(fresh_epoch=True)
    assert "LEASE_HELD" in other.lease.reason
    placing.lease.release()
    assert other.lease.acquire(fresh_epoch=True)
    other.close()


def test_one_state_directory_serves_one_process(tmp_path: Path) -> None:
    first = IntentJournal(tmp_path)
    with pytest.raises(SettingsError, match="another strategy process"):
        IntentJournal(tmp_path)
    first.close()
    IntentJournal(tmp_path).close()


def test_a_copied_state_directory_is_another_instance(tmp_path: Path) -> None:
    """Two programs of one instance would trade in turns under one lease."""
    journal = IntentJournal(tmp_path / "first")
    name = journal.instance()
    journal.close()
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    for directory, same in (("first", True), ("copy", False)):
        journal = IntentJournal(tmp_path / directory)
        assert (journal.instance() == name) is same
        assert journal.instance() == journal.instance()
        journal.close()
