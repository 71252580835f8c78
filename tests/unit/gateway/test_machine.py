"""Random histories of gateway core, disk and simulated broker, crashing at every point between them.

Journal, leases, halts and the broker's books are the real ones on real files (in memory); a crash throws
every object away and opens the files again. Messages travel in a bag: lost, late, twice, in any order.
`MT5CRS_MACHINE_RUNS=100000` makes it run longer.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mt5crs.broker.interface import TradeRequest
from mt5crs.broker.sim.backend import Command, Profile
from mt5crs.broker.sim.faults import Faults, Rules, SendFault
from mt5crs.broker.sim.terminal import Part, Showing
from mt5crs.gateway.control import Control
from mt5crs.gateway.ledger import Ledger
from mt5crs.gateway.order_manager import OrderManager
from mt5crs.gateway.refusal import Refusal
from mt5crs.gateway.stream import Stream
from mt5crs.gateway.watch import Watch
from mt5crs.protocol.identifiers import comment_id
from mt5crs.protocol.replies import Error, OrderResult, Reply
from mt5crs.protocol.requests import OrderCancel, OrderSend, PositionClose, Submission
from mt5crs.settings.gateway import Limits
from tests.unit.gateway.crashing import POINTS, Crash, CrashingBroker, CrashingJournal
from tests.unit.orders import check_none_is_doubled

RUNS = int(os.environ.get("MT5CRS_MACHINE_RUNS", "700"))
MAGIC = 7
LIMITS = Limits(dry_run=False, symbols=["EURUSD"], max_order_volume=0.5, max_position_volume=1.5)
LOGIN, SERVER, TTL_MS = 90_000_001, "Sim-Demo", 20_000
FAULTS = (
    st.none()
    | st.none()
    | st.none()
    | st.builds(
        SendFault,
        kind=st.sampled_from(["lose_reply", "lose_request", "late_fill", "too_late"]),
        retcode=st.sampled_from([0, 10012, 10031, 10008]),
        delay_ms=st.just(1500),
    )
    | st.builds(
        SendFault, kind=st.just("retcode"), retcode=st.sampled_from([10004, 10018, 10020, 10021, 10027])
    )
)
RULES = st.builds(
    Rules,
    mode=st.sampled_from(["FULL", "FULL", "LONG_ONLY", "SHORT_ONLY", "CLOSE_ONLY", "DISABLED"]),
    execution=st.sampled_from(["REQUEST", "INSTANT", "MARKET", "EXCHANGE"]),
    kinds=st.sampled_from([["MARKET", "LIMIT"], ["MARKET"], ["LIMIT"]]),
    fillings=st.sampled_from([None, ["FOK"], ["IOC"], ["RETURN"]]),
    gtc=st.booleans(),
    specified=st.booleans(),
    freeze_level=st.sampled_from([0, 10**6]),
)
"""What a symbol takes changes while it is traded."""
CRASHES = st.none() | st.none() | st.sampled_from(POINTS)
LAG_MS = st.sampled_from([0, 0, 60, 1000, 4000])
SHOWING = st.just(Showing()) | st.builds(
    Showing,
    positions_lag_ms=LAG_MS,
    orders_lag_ms=LAG_MS,
    history_lag_ms=LAG_MS,
    deals_lag_ms=LAG_MS,
    odd_records=st.booleans(),
    loading=st.sampled_from([False] * 5 + [True]),
    no_prices=st.sampled_from([[]] * 5 + [["EURUSD"]]),
    tick_value=st.sampled_from(["", "", "", "zero", "nan"]),
    comments=st.sampled_from(["", "", "", "cut", "rewritten", "dropped"]),
    clock_ahead_ms=st.sampled_from([0, 0, 0, 600_000, -600_000]),
    still=st.sampled_from([[], [], [], ["EURUSD"]]),
    at_send=st.sampled_from(["", "", "", "", "trade_off", "logged_out"]),
    at_send_ms=st.just(1500),
)
"""Every list is late by itself; it loads, lacks prices, quotes stand still, comments and clocks differ."""


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        root = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="mt5crs-", dir=root))
        self.now = 1_700_000_000_000
        self.armed: str | None = None
        self.bag: list[Submission] = []
        self.sent: dict[str, Submission] = {}
        self.answers: dict[str, tuple[Any, ...]] = {}
        self.epochs = {"a": 0, "b": 0}
        self.latest = 0
        self.halted = False
        self.number = 0
        self.current: Submission | None = None
        self.boot()

    # --- the system under test -----------------------------------------------------------------------------

    def boot(self) -> None:
        self.broker = CrashingBroker(
            self.directory / "sim", Profile(balance=1e6), clock=lambda: self.now, durable=False
        )
        self.journal = CrashingJournal(self.directory / "journal.db", "x", durable=False)
        self.broker.machine = self.journal.machine = self
        self.control = Control(
            self.directory / "control.db",
            "x",
            monotonic=lambda: self.now / 1000,
            wall_msc=lambda: self.now,
            durable=False,
        )
        stream = Stream("s", lambda _: None)
        ledger = Ledger(self.broker)
        watch = Watch(self.broker, stream, ledger)
        self.order_manager = OrderManager(
            self.broker, self.journal, self.control, watch, ledger, stream, lambda: {MAGIC: LIMITS},
            LOGIN, SERVER, lambda *_, **__: None, monotonic=lambda: self.now / 1000,
        )  # fmt: skip

    def crash(self) -> None:
        for part in (self.broker, self.journal, self.control):
            part.close()
        self.armed = None
        self.boot()

    def teardown(self) -> None:
        try:
            self.everything_is_told_truly()
        finally:
            for part in (self.broker, self.journal, self.control):
                part.close()
            shutil.rmtree(self.directory)

    def crash_if(self, point: str) -> None:
        if self.armed == point:
            raise Crash(point)

    # --- what must hold at the moment an order goes out ----------------------------------------------------

    def about_to_send(self, trade: TradeRequest) -> None:
        request = self.current
        assert request is not None, "the broker was called outside a submission"
        assert request.lease_epoch == self.latest, "an order under a stale epoch"
        assert not self.halted, "an order while halted"
        assert trade.action == "REMOVE" or trade.comment == comment_id(MAGIC, request.client_order_id)
        assert trade.position or trade.volume <= LIMITS.max_order_volume
        waiting = {e.request.client_order_id for e in self.journal.unresolved()} - {request.client_order_id}
        assert not waiting or trade.action == "REMOVE", "an order while another is unresolved"

    # --- messages ------------------------------------------------------------------------------------------

    def _head(self, who: str) -> dict[str, Any]:
        self.number += 1
        return {
            "v": 1, "id": f"m{self.number}", "client": "c", "magic": MAGIC,
            "client_order_id": f"o{self.number}", "lease_epoch": max(1, self.epochs[who]), "valid_ms": 5000,
        }  # fmt: skip

    def _post(self, request: Submission) -> None:
        self.bag.append(request)
        self.sent[request.client_order_id] = request

    @initialize()
    def begin(self) -> None:
        self.acquire("a")

    @rule(
        who=st.sampled_from("aaab"),
        side=st.sampled_from(["BUY", "SELL"]),
        volume=st.sampled_from([0.1, 0.1, 0.2, 0.5, 0.7]),
        kind=st.sampled_from(["MARKET", "MARKET", "MARKET", "LIMIT"]),
        filling=st.sampled_from(["IOC", "RETURN", "FOK"]),
        at_once=st.sampled_from([True, True, True, False]),
        fault=FAULTS,
        crash=CRASHES,
    )
    def post_order(
        self,
        who: str,
        side: Any,
        volume: float,
        kind: Any,
        filling: Any,
        at_once: bool,
        fault: SendFault | None,
        crash: str | None,
    ) -> None:
        far = 0.5 if side == "BUY" else 2.0
        self._post(
            OrderSend(
                **self._head(who), symbol="EURUSD", side=side, type=kind, volume=volume,
                price=far if kind == "LIMIT" else None, sl=None, tp=None, max_slippage_points=None,
                filling=filling, expiration_msc=None,
            )
        )  # fmt: skip
        if at_once:
            if fault is not None:
                self.broker.faults.send.append(fault)
            self.armed = crash
            self._deliver(self.bag[-1])

    @precondition(lambda self: bool(self.broker._positions))
    @rule(who=st.sampled_from("ab"), data=st.data())
    def post_close(self, who: str, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.broker._positions)))
        volume = data.draw(st.sampled_from([None, 0.1]))
        self._post(
            PositionClose(**self._head(who), position=position, volume=volume, max_slippage_points=None)
        )

    @precondition(lambda self: bool(self.broker._orders))
    @rule(who=st.sampled_from("ab"), data=st.data())
    def post_cancel(self, who: str, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(sorted(self.broker._orders)))
        self._post(OrderCancel(**self._head(who), order=order))

    @precondition(lambda self: bool(self.bag))
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.integers(0, len(self.bag) - 1))
        request = self.bag[index] if again else self.bag.pop(index)
        self._deliver(request)

    @precondition(lambda self: bool(self.sent))
    @rule(data=st.data(), who=st.sampled_from("ab"))
    def retry_with_a_new_epoch(self, data: st.DataObject, who: str) -> None:
        old = self.sent[data.draw(st.sampled_from(sorted(self.sent)))]
        self._deliver(msgspec.structs.replace(old, id="retry", lease_epoch=max(1, self.epochs[who])))

    @precondition(lambda self: bool(self.answers))
    @rule(data=st.data())
    def same_id_other_content(self, data: st.DataObject) -> None:
        old = self.sent[data.draw(st.sampled_from(sorted(self.answers)))]
        changed = msgspec.structs.replace(old, client="someone-else")
        self.current = None
        with pytest.raises(Refusal, match="DUPLICATE_ID"):
            self.order_manager.submit(changed, lambda: 0)

    def _deliver(self, request: Submission) -> None:
        self.current = request
        try:
            reply = self.order_manager.submit(request, lambda: 0)
        except Crash:
            self.crash()
        else:
            self._remember(request.client_order_id, reply)
        finally:
            self.current = None

    def _remember(self, client_order_id: str, reply: Reply) -> None:
        """An answer that was given once is given for ever."""
        if isinstance(reply, OrderResult) and reply.outcome != "UNRESOLVED":
            answer: tuple[Any, ...] = (reply.outcome, reply.order, reply.volume)
        elif isinstance(reply, Error) and reply.final:
            answer = (reply.code, 0, 0.0)
        else:
            return
        assert self.answers.setdefault(client_order_id, answer) == answer

    # --- the rest of the world -----------------------------------------------------------------------------

    @rule(who=st.sampled_from("ab"))
    def acquire(self, who: str) -> None:
        try:
            epoch = self.control.acquire(MAGIC, who, f"run-{who}", TTL_MS)
        except Refusal:
            return
        assert epoch >= self.latest, "the epoch fell"
        other = "b" if who == "a" else "a"
        assert epoch > self.epochs[other], "two holders of one epoch"
        self.epochs[who] = self.latest = epoch

    @precondition(lambda self: self.latest > 0)
    @rule(who=st.sampled_from("ab"))
    def release(self, who: str) -> None:
        try:
            self.control.release(MAGIC, who, f"run-{who}", max(1, self.epochs[who]))
        except Refusal:
            return

    @rule(ms=st.sampled_from([1, 300, 2000, 2000, 21_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        self._settle()

    @rule(really=st.integers(0, 5))
    def halt(self, really: int) -> None:
        if really:
            return
        self.control.halt("FLEET", 0, "ops", "drill")
        self.halted = True

    @precondition(lambda self: self.halted)
    @rule()
    def resume(self) -> None:
        self.control.resume("FLEET", 0, "ops", "over")
        self.halted = False

    @rule(
        kind=st.sampled_from(["lose_reply", "lose_request", "late_fill", "retcode"]),
        retcode=st.sampled_from([0, 10012, 10031, 10008]),
        failing=st.integers(0, 2),
        liquidity=st.sampled_from([0.0, 0.0, 0.2]),
        taken=st.just({}) | st.fixed_dictionaries({"EURUSD": RULES}),
        showing=SHOWING,
    )
    def break_the_broker(
        self,
        kind: Any,
        retcode: int,
        failing: int,
        liquidity: float,
        taken: dict[str, Rules],
        showing: Showing,
    ) -> None:
        code = 10006 if kind == "retcode" else retcode
        fault = SendFault(kind=kind, retcode=code, delay_ms=1500)
        closed = ["EURUSD"] if failing == 2 else []
        faults = Faults(
            send=[fault],
            fail_queries=failing,
            liquidity=liquidity,
            closed=closed,
            rules=taken,
            terminal=showing,
        )
        self.broker.command(Command(do="faults", faults=faults))

    @rule(showing=SHOWING)
    def the_terminal_is_behind(self, showing: Showing) -> None:
        self.broker.command(Command(do="faults", faults=Faults(terminal=showing)))

    @rule(
        showing=SHOWING,
        sides=st.lists(st.sampled_from(["BUY", "BUY", "SELL"]), min_size=2, max_size=5),
        gap_ms=st.sampled_from([0, 50, 700]),
    )
    def orders_in_quick_succession(self, showing: Showing, sides: list[str], gap_ms: int) -> None:
        self.the_terminal_is_behind(showing)
        for side in sides:
            self.post_order("a", side, 0.5, "MARKET", "IOC", True, None, None)
            self.now += gap_ms

    @rule(hours=st.sampled_from([1, -1]))
    def the_brokers_clock_is_set(self, hours: int) -> None:
        """Summer time begins or ends, whatever is open or under way."""
        self.broker.command(Command(do="clock", shift_ms=hours * 3600_000))

    @rule(point=st.sampled_from(POINTS))
    def arm(self, point: str) -> None:
        self.armed = point

    @rule(shown=st.none() | st.none() | st.integers(0, 2))
    def kill(self, shown: int | None) -> None:
        """At times the terminal with it, which loads its lists one after the other while orders come in."""
        self.crash()
        if shown is not None:
            self.the_terminal_is_behind(Showing(part=Part(shown=shown, for_ms=3000)))
            self.post_order("a", "BUY", 0.5, "MARKET", "IOC", True, None, None)

    @rule(bid=st.sampled_from([0.4, 1.0, 1.1, 2.5]))
    def price_moves(self, bid: float) -> None:
        self.broker.command(Command(do="price", symbol="EURUSD", bid=bid, ask=bid + 0.0001))

    def _settle(self) -> None:
        try:
            self.order_manager.resolve_all()
            self.order_manager.keep_seen()
        except Crash:
            self.crash()

    # --- what must always hold -----------------------------------------------------------------------------

    @invariant()
    def no_order_is_doubled(self) -> None:
        check_none_is_doubled(self.broker)

    @invariant()
    def limits_hold(self) -> None:
        exposure = sum(p.volume for p in self.broker._store.positions())
        exposure += sum(o.volume_current for o in self.broker._store.orders())
        assert exposure <= LIMITS.max_position_volume + 1e-9

    def everything_is_told_truly(self) -> None:
        """At the end, with all late fills in: every answer agrees with the broker's books."""
        self.armed = None
        self.crash()
        self.now += 10_000
        for _ in range(3):
            self._settle()
        books, deals = self.broker.books(), self.broker._store.deals(0)
        assert {p.identifier: p.volume for p in books.positions} == {
            p.identifier: p.volume for p in self.broker._store.positions()
        }
        for client_order_id, request in self.sent.items():
            entry = self.journal.find(MAGIC, client_order_id)
            traces = [d for d in deals if d.comment == comment_id(MAGIC, client_order_id)]
            if entry is None or entry.state == "refused":
                assert not traces, "the broker executed what was never sent"
                continue
            if isinstance(entry.answer, OrderResult):
                self._remember(client_order_id, entry.answer)
                if entry.answer.outcome in ("REJECTED", "CANCELED") and not isinstance(request, OrderCancel):
                    assert not traces, "called not executed, but it was"
                if entry.answer.outcome in ("FILLED", "PARTIAL"):
                    assert traces, "called executed, but it was not"
            elif traces:
                raise AssertionError("the books show it and it is still unresolved")


class TestMachine(Machine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(
        max_examples=RUNS,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
