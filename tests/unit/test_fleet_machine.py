"""Random histories of the whole fleet: two strategies, gateway, reconciler and broker, on a line that loses,
delays, repeats and reorders messages, with crashes of each at every point and the lease moving between them.
One strategy's clock is slow.

All parts are the real ones on real files; only the socket is replaced, by a line that carries encoded frames.
`MT5CRS_MACHINE_RUNS=100000` makes it run longer.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mt5crs.broker.interface import TradeRequest
from mt5crs.broker.sim.backend import Command, Profile
from mt5crs.broker.sim.faults import Faults, Rules, SendFault
from mt5crs.broker.sim.terminal import Part, Showing
from mt5crs.client.connection import Peer as Address
from mt5crs.client.errors import GatewayError, GatewaySilentError, GatewayUnreachableError
from mt5crs.client.gateway import GatewayClient, Patience
from mt5crs.gateway.access import Peer, authorise, is_operator
from mt5crs.gateway.control import Control
from mt5crs.gateway.control_service import ControlService
from mt5crs.gateway.ledger import Ledger
from mt5crs.gateway.order_manager import OrderManager
from mt5crs.gateway.phase_store import PhaseStore
from mt5crs.gateway.phases import Phases
from mt5crs.gateway.reader import Query, Reader
from mt5crs.gateway.refusal import Refusal
from mt5crs.gateway.server import _OFFICE
from mt5crs.gateway.stream import Stream
from mt5crs.gateway.unfilled import Unfilled
from mt5crs.gateway.watch import Watch
from mt5crs.protocol import replies, requests
from mt5crs.protocol.codec import decode_reply, decode_request, encode
from mt5crs.protocol.identifiers import comment_id
from mt5crs.protocol.records import Position
from mt5crs.reconciler.compare import compare, deals_wanted_from
from mt5crs.reconciler.evidence import flaws
from mt5crs.reconciler.model import evidence_of
from mt5crs.reconciler.store import Store
from mt5crs.service.logs import Log
from mt5crs.settings.gateway import Limits
from mt5crs.strategy.api import OrderError
from mt5crs.strategy.execution import ExecutionAdapter
from mt5crs.strategy.journal import IntentJournal
from mt5crs.strategy.lease import LeaseKeeper
from tests.mutations import MUTATIONS
from tests.unit.gateway.crashing import POINTS, Crash, CrashingBroker, CrashingJournal
from tests.unit.gateway.test_machine import RULES, SHOWING
from tests.unit.orders import check_none_is_doubled

RUNS = int(os.environ.get("MT5CRS_MACHINE_RUNS", "300"))
MAGIC, LOGIN, SERVER = 7, 90_000_001, "Sim-Demo"
LIMITS = Limits(dry_run=False, symbols=["EURUSD"], max_order_volume=0.5, max_position_volume=0.8)
TTL_S, TIMEOUT_S = 20.0, 3.0
CLOCK_RATES = {"a": 0.8, "b": 1.0}
"""How fast a strategy's clock runs beside the gateway's; the lease's margin, a quarter, allows for 0.75."""
PEERS = {
    "strategy": Peer(name="strategy", permissions=frozenset({"trade"}), magics=frozenset({MAGIC})),
    "reconciler": Peer(name="reconciler", permissions=frozenset({"observe"}), magics=frozenset({MAGIC})),
    "ops": Peer(name="ops", permissions=frozenset({"observe", "administer"}), magics=frozenset()),
}
SUBMISSIONS = (requests.OrderSend, requests.OrderCancel, requests.PositionClose)
BUSY = replies.Error(
    v=1, id="any", code="BUSY", field="terminal", message="", remedy="", retry_ms=500, final=False
)
Fate = Literal[
    "arrives",
    "request_lost",
    "reply_lost",
    "late",
    "twice",
    "busy",
    "no_connection",
    "dies_before",
    "dies_after",
]
FATES: st.SearchStrategy[list[Any]] = st.lists(
    st.sampled_from(
        [
            "arrives",
            "arrives",
            "request_lost",
            "reply_lost",
            "late",
            "twice",
            "busy",
            "no_connection",
            "dies_before",
            "dies_after",
        ]
    ),
    max_size=4,
) | st.sampled_from(["request_lost", "reply_lost", "late", "busy", "no_connection"]).map(
    lambda fate: [fate] * 4
)
"""One by one, or the line is bad for longer than anyone waits."""
NO_FATES: st.SearchStrategy[list[Any]] = st.just([]) | st.just([]) | FATES
WHO = st.sampled_from(["holder", "holder", "a", "b"])
"""Who has the lease according to the gateway, or one that may have to be refused."""
CRASHES = st.none() | st.none() | st.sampled_from(POINTS)
FAULTS = st.none() | st.none() | st.builds(
    SendFault,
    kind=st.sampled_from(["lose_reply", "lose_request", "late_fill", "too_late"]),
    retcode=st.sampled_from([0, 10012, 10031, 10008]),
    delay_ms=st.just(1500),
)  # fmt: skip


class Death(BaseException):
    """kill -9 of the program that asks."""


class Line:
    """A connection of one client. What becomes of each message is decided beforehand; without a decision it
    arrives.
    """

    def __init__(self, world: Fleet) -> None:
        self._world = world

    def ask(self, message: requests.Request, timeout_s: float) -> replies.AnyReply:
        """The reply, as the real connection gives it. Raises GatewayError."""
        world = self._world
        fate = world.fates.popleft() if world.fates else "arrives"
        frame = encode(message)
        world.issued[message.id] = world.moves
        world.now += 1
        if fate == "no_connection":
            world.now += int(timeout_s * 1000)
            raise GatewayUnreachableError("no connection")
        if fate == "dies_before":
            raise Death
        if fate == "late":
            world.late.append(frame)
        if fate in ("request_lost", "late"):
            world.now += int(timeout_s * 1000)
            raise GatewaySilentError("no answer")
        if fate == "twice":
            world.late.append(frame)
        answer = world.serve(frame)
        if fate == "dies_after":
            raise Death
        if fate == "busy" and isinstance(message, SUBMISSIONS):
            return BUSY  # told while it hung in the terminal
        if fate == "reply_lost" or answer is None:
            world.now += int(timeout_s * 1000)
            raise GatewaySilentError("no answer")
        return decode_reply(answer)

    def lost(self) -> bool:
        """The fates decide about single messages; the line itself is never known to be down."""
        return False

    def close(self) -> None:
        """Nothing to let go of."""


class LineClient(GatewayClient):
    """The real client on a line instead of a socket."""

    def __init__(self, world: Fleet, name: str) -> None:
        address = Address(host="gateway", port=1, pub_port=2, server_key="", client_name=name, secret_key="")
        super().__init__(address, Patience(timeout_s=1.0, attempts=1, pause_s=0.0))
        self._world = world

    def once(self, *arguments: Any, **fields: Any) -> Any:
        """One attempt, on a fresh connection."""
        self._connection = Line(self._world)  # type: ignore[assignment]
        return super().once(*arguments, **fields)


class Keeper(LeaseKeeper):
    """The real keeper, renewed when the machine says so and not by a thread."""

    def _begin(self) -> None:
        return

    def renew(self) -> None:
        """What the thread does every quarter of the lease."""
        if self._wanted:
            self._renew()


class Adapter(ExecutionAdapter):
    """The real adapter; its pauses let the world's time pass."""

    world: Fleet

    def _wait(self, seconds: float) -> None:
        self.world.now += int(seconds * 1000) + 1


class Strategy:
    """One strategy program: journal, lease and adapter in its own directory."""

    def __init__(self, world: Fleet, name: str) -> None:
        log = Log("strategy", "CRITICAL", io.StringIO())
        self.journal = IntentJournal(world.directory / name, durable=False)
        rate = CLOCK_RATES[name]

        def clock() -> float:
            return world.seconds() * rate

        self.keeper = Keeper(
            LineClient(world, "strategy"),
            log,
            magic=MAGIC,
            instance=self.journal.instance(),
            ttl_s=TTL_S,
            margin_s=TTL_S / 4,
            clock=clock,
        )
        client = LineClient(world, "strategy")
        self.adapter = Adapter(
            client, self.journal, self.keeper, log, magic=MAGIC, timeout_s=TIMEOUT_S, clock=clock
        )
        self.adapter.world = world


def terms(
    *,
    volume: float,
    side: str = "BUY",
    kind: str = "MARKET",
    filling: str = "IOC",
    until_msc: int | None = None,
) -> dict[str, object]:
    """Content of an order; a LIMIT order is far from the market and may end by itself."""
    price = (0.5 if side == "BUY" else 2.0) if kind == "LIMIT" else None
    return {
        "symbol": "EURUSD", "side": side, "type": kind, "volume": volume, "price": price, "sl": None,
        "tp": None, "max_slippage_points": None, "filling": filling, "expiration_msc": until_msc,
    }  # fmt: skip


class AtOnce:
    """The gateway's terminal, as far as leases and halts need it."""

    @staticmethod
    def call_soon(call: Any) -> None:
        """Run it."""
        call()


class Fleet(RuleBasedStateMachine):
    histories = 0
    orders = 0
    """How many in this process, and how many submissions they handed to the broker."""

    def __init__(self) -> None:
        super().__init__()
        root = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="mt5crs-", dir=root))
        self.now = 1_700_000_000_000
        self.fates: deque[Fate] = deque()
        self.late: list[bytes] = []
        self.armed: str | None = None
        self.current: requests.Submission | None = None
        self.operating = False
        self.holders: dict[int, str] = {}
        self.ended: set[int] = set()
        self.sent_to_broker: dict[str, int] = {}
        self.set_back = False
        """Whether the broker has set its clock back."""
        self.moves = 0
        """How often a strategy has got a fresh epoch."""
        self.issued: dict[str, int] = {}
        """`moves` at the moment when a message was sent, by its id."""
        self.boot_gateway()
        self.store = Store(self.directory / "reconciler", MAGIC, durable=False)
        self.strategies = {name: Strategy(self, name) for name in "ab"}

    def seconds(self) -> float:
        """Monotonic time."""
        return self.now / 1000

    # --- the gateway ---------------------------------------------------------------------------------------

    def boot_gateway(self) -> None:
        self.broker = CrashingBroker(
            self.directory / "sim", Profile(balance=1e6), clock=lambda: self.now, durable=False
        )
        self.journal = CrashingJournal(self.directory / "journal.db", "x", durable=False)
        self.broker.machine = self.journal.machine = self
        self.control = Control(
            self.directory / "control.db", "x", monotonic=self.seconds, wall_msc=lambda: self.now,
            durable=False,
        )  # fmt: skip
        stream = Stream("s", lambda _: None)
        ledger = Ledger(self.broker)
        watch = Watch(self.broker, stream, ledger)
        self.order_manager = OrderManager(
            self.broker, self.journal, self.control, watch, ledger, stream, lambda: {MAGIC: LIMITS},
            LOGIN, SERVER, lambda *_, **__: None, monotonic=lambda: self.now / 1000,
        )  # fmt: skip
        self.reader = Reader(self.broker, self.order_manager, watch, ledger, self.control, stream)
        terminal: Any = AtOnce()
        clocks: dict[str, Any] = {"monotonic": self.seconds}
        store = PhaseStore(self.directory / "control.db", "x", **clocks, durable=False)
        unfilled = Unfilled(**clocks)
        self.phases = Phases(
            store,
            self.control,
            self.broker,
            "x",
            lambda *_, **__: None,
            signers=None,
            unfilled=unfilled,
            **clocks,
        )
        self.control_service = ControlService(
            self.control, self.order_manager, terminal, stream, self.phases, 10, lambda *_, **__: None
        )

    def crash_gateway(self) -> None:
        for part in (self.broker, self.journal, self.control, self.phases):
            part.close()
        self.armed = None
        self.boot_gateway()

    def serve(self, frame: bytes) -> bytes | None:
        """What the gateway answers to a frame; None when it dies of it."""
        request = decode_request(frame)
        try:
            return encode(self._answer(request))
        except Refusal as refusal:
            return encode(refusal.reply(request.id))
        except Crash:
            self.crash_gateway()
            return None
        finally:
            self.current, self.operating = None, False

    def _answer(self, request: requests.AnyRequest) -> replies.Reply:
        peer = PEERS[request.client]
        authorise(peer, request)
        if isinstance(request, _OFFICE):
            answer = self.control_service.answer(request, peer)
            self.note_lease(request, answer)
            return answer
        if isinstance(request, SUBMISSIONS):
            self.current, self.operating = request, is_operator(peer, request)
            return self.order_manager.submit(request, lambda: 0, operator=self.operating)
        if isinstance(request, requests.OrderQuery):
            return self.order_manager.query(request)
        assert isinstance(request, Query)
        return self.reader.answer(request)

    def note_lease(self, request: requests.AnyRequest, answer: replies.Reply) -> None:
        """Epochs rise for ever, one holder each; one that was given back or ran out never returns."""
        if isinstance(request, requests.LeaseRelease):
            self.ended.add(request.lease_epoch)
        if isinstance(request, requests.LeaseAcquire) and isinstance(answer, replies.Lease):
            assert answer.epoch >= max(self.holders, default=0), "an epoch fell"
            assert answer.epoch not in self.ended, "an epoch came back"
            holder = self.holders.setdefault(answer.epoch, request.instance)
            assert holder == request.instance, "two holders of one epoch"

    def _closes(self, client_order_id: str, position: int | None) -> bool:
        """Whether an unresolved request may close this position."""
        entry = self.journal.find(MAGIC, client_order_id)
        return (
            entry is not None
            and isinstance(entry.request, requests.PositionClose)
            and entry.request.position == position
        )

    def crash_if(self, point: str) -> None:
        if self.armed == point:
            raise Crash(point)

    def about_to_send(self, trade: TradeRequest) -> None:
        """What must hold at the moment an order goes out."""
        request = self.current
        assert request is not None, "the broker was called outside a submission"
        halted = bool(self.control.halts())
        if self.operating:
            assert halted, "an operator acts beside running programs"
            assert trade.action == "REMOVE" or trade.position, "an operator opens risk"
        else:
            assert not halted, "an order while halted"
            (lease,) = self.control.leases()
            assert request.lease_epoch == lease.epoch, "an order under a stale epoch"
            assert lease.remaining_ms > 0, "an order under a lease that has run out"
            assert self.issued[request.id] == self.moves, "an order from before the lease moved"
        assert trade.position or trade.action == "REMOVE" or trade.volume <= LIMITS.max_order_volume
        key = request.client_order_id
        others = set(self.order_manager.unresolved(MAGIC)) - {key}
        if self.operating:  # on this account, which is a hedging one, a close concerns its own position only
            others = {name for name in others if self._closes(name, trade.position)}
        assert trade.action == "REMOVE" or not others, "an order beside one whose fate is not known"
        self.sent_to_broker[key] = self.sent_to_broker.get(key, 0) + 1
        assert self.sent_to_broker[key] == 1, "one client order id was handed to the broker twice"

    # --- strategies ----------------------------------------------------------------------------------------

    def _act(self, who: str, fates: list[Fate], act: Any) -> None:
        """Let a strategy do something on a bad line; it may die of it, and is started again then."""
        self.fates = deque(fates)
        try:
            act(self.strategies[who])
        except OrderError:
            pass
        except Death:
            self._restart(who)
        finally:
            self.fates.clear()

    def _restart(self, who: str) -> None:
        self.strategies[who].journal.close()
        self.strategies[who] = Strategy(self, who)

    @rule(who=st.sampled_from("ab"), fates=NO_FATES)
    def take_lease(self, who: str, fates: list[Fate]) -> None:
        """As the strategy's runner does: a fresh epoch, then the fate of what is open."""

        def act(strategy: Strategy) -> None:
            wanted = strategy.keeper.epoch is None or strategy.journal.unsettled()
            if wanted and strategy.keeper.acquire(fresh_epoch=True):
                self.moves += 1
                strategy.adapter.resolve_open()

        self._act(who, fates, act)

    def _submit(self, who: str, fates: list[Fate], request: type[requests.Request], **content: Any) -> None:
        """As the runner does: only who has the lease, or can get it, submits."""
        if who == "holder":
            leases = self.control.leases()
            instance = leases[0].instance if leases else ""
            who = next((name for name, s in self.strategies.items() if s.journal.instance() == instance), "a")
        self.take_lease(who, [])
        self._act(who, fates, lambda strategy: strategy.adapter.submit(request, **content))

    @rule(to=st.sampled_from("ab"), fates=NO_FATES)
    def lease_runs_out_and_moves(self, to: str, fates: list[Fate]) -> None:
        self.time_passes(int(TTL_S * 1000) + 1)
        self.take_lease(to, fates)

    @rule(who=st.sampled_from("ab"), fates=NO_FATES)
    def renew(self, who: str, fates: list[Fate]) -> None:
        self.strategies[who].keeper.feed()
        self._act(who, fates, lambda strategy: strategy.keeper.renew())

    @rule(
        who=WHO,
        side=st.sampled_from(["BUY", "SELL"]),
        volume=st.sampled_from([0.1, 0.2, 0.5, 0.5, 0.7]),
        kind=st.sampled_from(["MARKET", "MARKET", "MARKET", "LIMIT"]),
        filling=st.sampled_from(["IOC", "RETURN", "FOK"]),
        ends=st.booleans(),
        fates=NO_FATES,
        fault=FAULTS,
        crash=CRASHES,
    )
    def order(
        self,
        who: str,
        side: str,
        volume: float,
        kind: str,
        filling: str,
        ends: bool,
        fates: list[Fate],
        fault: SendFault | None,
        crash: str | None,
    ) -> None:
        until = self.broker.time_msc() + 10_000 if ends and kind == "LIMIT" else None
        content = terms(side=side, volume=volume, kind=kind, filling=filling, until_msc=until)
        self.armed = crash
        if fault is not None:
            self.broker.faults.send.append(fault)
        self._submit(who, fates, requests.OrderSend, **content)
        self.armed = None

    @rule(
        orders=st.lists(
            st.tuples(st.sampled_from(["MARKET", "LIMIT"]), st.sampled_from([0.1, 0.5])),
            min_size=1,
            max_size=3,
        )
    )
    def trade_undisturbed(self, orders: list[tuple[str, float]]) -> None:
        for kind, volume in orders:
            self._submit("holder", [], requests.OrderSend, **terms(volume=volume, kind=kind))

    @precondition(lambda self: bool(self.broker._positions))
    @rule(who=WHO, data=st.data(), fates=NO_FATES, crash=CRASHES)
    def close(self, who: str, data: st.DataObject, fates: list[Fate], crash: str | None) -> None:
        theirs = sorted(p.identifier for p in self.broker._store.positions() if p.magic == MAGIC)
        position = data.draw(st.sampled_from([*sorted(self.broker._positions), *theirs * 3]))
        content = {
            "position": position, "volume": data.draw(st.sampled_from([None, 0.1])),
            "max_slippage_points": None,
        }  # fmt: skip
        self.armed = crash
        self._submit(who, fates, requests.PositionClose, **content)
        self.armed = None

    @precondition(lambda self: bool(self.broker._orders))
    @rule(who=WHO, data=st.data(), fates=NO_FATES)
    def cancel(self, who: str, data: st.DataObject, fates: list[Fate]) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.broker._orders)))
        self._submit(who, fates, requests.OrderCancel, order=ticket)

    @rule(who=st.sampled_from("ab"))
    def kill_strategy(self, who: str) -> None:
        self._restart(who)

    # --- the line, the operator, the broker, time ----------------------------------------------------------

    @precondition(lambda self: bool(self.late))
    @rule(data=st.data(), again=st.booleans(), crash=CRASHES)
    def late_message_arrives(self, data: st.DataObject, again: bool, crash: str | None) -> None:
        index = data.draw(st.integers(0, len(self.late) - 1))
        frame = self.late[index] if again else self.late.pop(index)
        self.armed = crash
        self.serve(frame)  # its answer belongs to an id that nobody waits for any more
        self.armed = None

    @rule(
        who=WHO,
        volume=st.sampled_from([0.1, 0.5]),
        dies=st.booleans(),
        ms=st.sampled_from([1, 6000, 21_000]),
        taker=st.sampled_from(["a", "b", None]),
    )
    def order_outlives_its_lease(
        self, who: str, volume: float, dies: bool, ms: int, taker: str | None
    ) -> None:
        """It is delayed; meanwhile its sender may die, the lease may run out and be taken anew."""
        before = len(self.late)
        fates: list[Fate] = ["late", "dies_before"] if dies else ["late"] * 4
        self._submit(who, fates, requests.OrderSend, **terms(volume=volume))
        self.now += ms
        if taker is not None:
            self.take_lease(taker, [])
        for frame in self.late[before:]:
            self.serve(frame)

    @rule(to=st.sampled_from("ab"), crash=st.sampled_from(["after_record", "before_send"]))
    def order_stays_unresolved_over_a_lease_move(self, to: str, crash: str) -> None:
        self.armed = crash
        self._submit("holder", [], requests.OrderSend, **terms(volume=0.1))
        self.armed = None
        self.lease_runs_out_and_moves(to, [])
        self._submit(to, [], requests.OrderSend, **terms(volume=0.1))

    def _ops(self, kind: type[requests.Request], **fields: Any) -> None:
        head = {"v": 1, "id": f"ops-{self.now}", "client": "ops", "magic": MAGIC}
        self.now += 1
        self.serve(encode(kind(**{**head, **fields})))

    @rule(really=st.integers(0, 5), scope=st.sampled_from(["FLEET", "MAGIC"]))
    def halt(self, really: int, scope: str) -> None:
        if not really:
            self._ops(requests.Halt, scope=scope, reason="drill")

    @precondition(lambda self: bool(self.control.halts()))
    @rule(scope=st.sampled_from(["FLEET", "MAGIC"]))
    def resume(self, scope: str) -> None:
        self._ops(requests.Resume, scope=scope, reason="over")

    @precondition(lambda self: bool(self.broker._positions))
    @rule(data=st.data())
    def operator_closes(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.broker._positions)))
        self._ops(
            requests.PositionClose, client_order_id=f"ops-{self.now}", lease_epoch=1, valid_ms=1000,
            position=position, volume=None, max_slippage_points=None,
        )  # fmt: skip

    @precondition(lambda self: bool(self.broker._positions))
    @rule(data=st.data())
    def closed_by_hand(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.broker._positions)))
        self._by_hand(Command(do="close", position=position))

    @rule(magic=st.sampled_from([0, 99]))
    def another_program_trades(self, magic: int) -> None:
        self._by_hand(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.1, magic=magic))

    def _by_hand(self, command: Command) -> None:
        with contextlib.suppress(ValueError):  # refused: gone meanwhile, or no money
            self.broker.command(command)

    @rule(
        failing=st.integers(0, 2),
        liquidity=st.sampled_from([0.0, 0.0, 0.2]),
        taken=st.just({}) | st.fixed_dictionaries({"EURUSD": RULES}),
        showing=SHOWING,
    )
    def broker_gets_worse(
        self, failing: int, liquidity: float, taken: dict[str, Rules], showing: Showing
    ) -> None:
        closed = ["EURUSD"] if failing == 2 else []
        faults = Faults(
            fail_queries=failing, liquidity=liquidity, closed=closed, rules=taken, terminal=showing
        )
        self.broker.command(Command(do="faults", faults=faults))

    @rule(showing=SHOWING, volumes=st.lists(st.sampled_from([0.1, 0.5]), min_size=2, max_size=4))
    def orders_in_quick_succession(self, showing: Showing, volumes: list[float]) -> None:
        self.broker.command(Command(do="faults", faults=Faults(terminal=showing)))
        for volume in volumes:
            self._submit("holder", [], requests.OrderSend, **terms(volume=volume))

    @rule(bid=st.sampled_from([0.4, 1.0, 1.1, 2.5]))
    def price_moves(self, bid: float) -> None:
        self.broker.command(Command(do="price", symbol="EURUSD", bid=bid, ask=bid + 0.0001))

    @rule(ms=st.sampled_from([1, 300, 2000, 6000, 21_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        self.order_manager.resolve_all()
        self.order_manager.keep_seen()

    @rule(shown=st.none() | st.none() | st.integers(0, 2))
    def kill_gateway(self, shown: int | None) -> None:
        """At times the terminal with it, which loads its lists one after the other."""
        self.crash_gateway()
        if shown is not None:
            part = Part(shown=shown, for_ms=3000)
            self.broker.command(Command(do="faults", faults=Faults(terminal=Showing(part=part))))

    @rule()
    def summer_time_begins(self) -> None:
        """The broker's own clock is set, whatever is open or under way."""
        self.broker.command(Command(do="clock", shift_ms=3600_000))

    @precondition(lambda self: not self.set_back)
    @rule()
    def summer_time_ends(self) -> None:
        """An hour comes twice; no broker does that to two in a row."""
        self.set_back = True
        self.broker.command(Command(do="clock", shift_ms=-3600_000))

    # --- the reconciler ------------------------------------------------------------------------------------

    @rule(fates=NO_FATES, dies=st.booleans())
    def reconcile(self, fates: list[Fate], dies: bool) -> None:
        self.fates = deque(fates)
        try:
            self._reconcile(dies=dies)
        except (GatewayError, Death):
            self._restart_reconciler()
        finally:
            self.fates.clear()

    def _reconcile(self, *, dies: bool = False) -> tuple[list[str], int]:
        """One check. Keys of the discrepancies, and how many events were new."""
        local = self.store.load()
        since = 0 if local is None else deals_wanted_from(local)
        snapshot = LineClient(self, "reconciler").snapshot(MAGIC, history_since_msc=since)
        assert flaws(snapshot, MAGIC, LOGIN) == []
        found = compare(local, evidence_of(snapshot, MAGIC))
        if dies:
            raise Death
        fresh = self.store.save(found.state, found.events)
        return [each.key for each in found.discrepancies], len(fresh)

    def _restart_reconciler(self) -> None:
        self.store.close()
        self.store = Store(self.directory / "reconciler", MAGIC, durable=False)

    # --- what must always hold -----------------------------------------------------------------------------

    @invariant()
    def no_order_is_doubled(self) -> None:
        check_none_is_doubled(self.broker)

    @invariant()
    def limits_hold(self) -> None:
        exposure = sum(p.volume for p in self.broker._store.positions() if p.magic == MAGIC)
        exposure += sum(o.volume_current for o in self.broker._store.orders() if o.magic == MAGIC)
        assert exposure <= LIMITS.max_position_volume + 1e-9

    @invariant()
    def at_most_one_believes_to_hold_the_lease(self) -> None:
        holders = [name for name, each in self.strategies.items() if each.keeper.epoch is not None]
        assert len(holders) <= 1, f"{holders} believe to hold the lease"

    @invariant()
    def who_believes_to_hold_the_lease_does(self) -> None:
        for name, each in self.strategies.items():
            epoch = each.keeper.epoch
            if epoch is not None:
                (lease,) = self.control.leases()
                assert lease.epoch == epoch, f"{name} believes in epoch {epoch} of {lease.epoch}"
                assert lease.remaining_ms > 0, f"{name} believes in a lease that has run out"

    @invariant()
    def what_was_not_sent_is_not_at_the_broker(self) -> None:
        for strategy in self.strategies.values():
            for client_order_id, state in strategy.journal.states().items():
                if state in ("never_sent", "refused"):
                    assert client_order_id not in self.sent_to_broker, f"{state}, but the broker got it"

    def teardown(self) -> None:
        Fleet.histories += 1
        Fleet.orders += len(self.sent_to_broker)
        try:
            self.all_is_known_once_it_is_quiet()
        finally:
            for part in (self.broker, self.journal, self.control, self.phases, self.store):
                part.close()
            for strategy in self.strategies.values():
                strategy.journal.close()
            shutil.rmtree(self.directory)

    def all_is_known_once_it_is_quiet(self) -> None:
        """Everything starts again, late messages are in, the broker behaves: who knows what?"""
        self.crash_gateway()
        self.broker.command(Command(do="faults", faults=Faults()))
        for _ in range(3):
            self.now += 10_000
            self.order_manager.resolve_all()
        for scope in ("FLEET", "MAGIC"):
            self._ops(requests.Resume, scope=scope, reason="over")
        for name in "ab":
            self._restart(name)
            self.now += int(TTL_S * 1000) + 1
            self.take_lease(name, [])
        for frame in self.late:
            self.serve(frame)
        self.intents_are_told_truly()
        self.nothing_is_lost()

    def intents_are_told_truly(self) -> None:
        """What each strategy believes of its orders is what the broker's books show."""
        self.now += 10_000
        deals = {deal.comment for deal in self.broker._store.deals(0)}
        for strategy in self.strategies.values():
            for client_order_id, state in strategy.journal.states().items():
                if state in ("never_sent", "refused"):
                    assert comment_id(MAGIC, client_order_id) not in deals, f"{state}, but it was executed"
                if state in ("unknown", "intent"):
                    assert client_order_id in self.order_manager.unresolved(MAGIC), (
                        "the gateway knows its fate"
                    )

    def nothing_is_lost(self) -> None:
        """The reconciler's record is the broker's books, and looking again shows nothing new."""
        self._restart_reconciler()
        self._reconcile()  # a difference that this one cannot explain has the next look further back
        problems, _ = self._reconcile()
        assert [key for key in problems if not key.startswith("unresolved:")] == []
        _, fresh = self._reconcile()
        assert fresh == 0, "the same evidence made new events"
        record = self.store.load()
        assert record is not None
        theirs = [p for p in self.broker.books().positions if p.magic == MAGIC]
        assert held(record.positions) == held(theirs)


def held(positions: Any) -> dict[int, tuple[str, float]]:
    """Side and volume by identifier."""
    found: list[Position] = list(positions)
    return {p.identifier: (p.type, p.volume) for p in found}


class TestFleet(Fleet.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(
        max_examples=RUNS,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def test_the_random_histories_trade() -> None:
    """A machine whose strategies are refused most of the time finds nothing."""
    if not Fleet.histories:
        pytest.skip("the histories were not run in this process")
    assert Fleet.orders >= Fleet.histories / 2, f"{Fleet.orders} orders in {Fleet.histories} histories"


def test_the_deliberate_faults_still_fit_the_code() -> None:
    """`make mutations` takes minutes and runs seldom; that it has something to break is cheap to know."""
    assert [(each.name, misfit) for each in MUTATIONS if (misfit := each.misfit())] == []
