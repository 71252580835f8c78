"""Random histories of a magic number under phases: no order beyond the phase in force, whatever happens.

What a phase allows is reckoned here a second time, from the profile's file. Promotions, forged and old
records, demotions, jumps of the wall clock, kills and restarts come in any order.
`MT5CRS_MACHINE_RUNS` (at most 1000 here) makes it run longer; `make states-long` sets it.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mt5crs.broker.interface import TradeRequest, TradeResult
from mt5crs.gateway.refusal import Refusal
from mt5crs.phases.profile import profiles
from mt5crs.phases.record import PhaseRecord, sign, text_of
from mt5crs.protocol.replies import OrderResult
from tests.unit.gateway.counter import MAGIC
from tests.unit.gateway.phased import DAY_MS, LEVERAGE, Phased, key

RUNS = min(1000, int(os.environ.get("MT5CRS_MACHINE_RUNS", "12")))
NAMES = list(profiles())
PRICE, LOT = 1.10001, 100_000  # next to no spread: what opening costs is not what breaks a phase here


class PhaseMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        root = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="mt5crs-phase-", dir=root))
        self.allowed, self.runs_out, self.reducing = 0, 0, False
        """What the model holds to be in force: number of the phase, when its record ends, and the state."""
        self.serial = 0
        self.signed: list[tuple[PhaseRecord, str]] = []
        self.over: Phased = Phased(self.directory)
        self._watch()

    def teardown(self) -> None:
        self.over.phases.close()
        for part in (self.over.broker, self.over.journal, self.over.control):
            part.close()
        shutil.rmtree(self.directory)

    # --- the model -----------------------------------------------------------------------------------------

    def phase(self) -> Any:
        lasting = self.allowed == 0 or self.over.now < self.runs_out
        return profiles()[NAMES[self.allowed if lasting else 0]]

    def _watch(self) -> None:
        """Look at everything that goes to the broker."""
        over, send = self.over, self.over.broker.send
        over.price(1.1, PRICE)

        def watched(request: TradeRequest) -> TradeResult | None:
            if request.action != "REMOVE" and not request.position:
                self._may_go_out(request)
            return send(request)

        over.broker.send = watched  # type: ignore[method-assign]

    def _may_go_out(self, request: TradeRequest) -> None:
        phase = self.phase()
        assert not phase.dry_run, "an order of a dry run at the broker"
        assert not self.reducing, "an order while only reducing"
        books = self.over.broker.books()
        lots = sum(p.volume for p in books.positions) + sum(o.volume_current for o in books.orders)
        margin = PRICE * LOT / LEVERAGE
        assert request.volume * margin <= phase.limits.trade_size + 1e-6
        assert (lots + request.volume) * margin <= phase.limits.position_limit + 1e-6
        assert self.expected is not None
        assert (
            self.expected >= request.volume * margin * phase.limits.min_expected_profit_percent / 100 - 1e-9
        )

    @invariant()
    def never_above(self) -> None:
        """The gateway may hold back more than the model, and never less."""
        shown = self.over.phases.in_force(MAGIC)
        assert shown is not None
        assert shown.phase <= self.phase().phase, f"{shown.name} is in force"

    @initialize(phase=st.integers(0, 3), days=st.sampled_from([1, 10]))
    def begin(self, phase: int, days: int) -> None:
        self.promote(phase, days, True, 1)

    # --- orders --------------------------------------------------------------------------------------------

    expected: float | None = None

    @rule(
        volume=st.sampled_from([0.01, 0.01, 0.03, 0.08, 0.18, 0.4]),
        expected=st.sampled_from([None, 0.0, 0.001, 5.0]),
        pending=st.booleans(),
    )
    def order(self, volume: float, expected: float | None, pending: bool) -> None:
        self._lease()
        self.expected = expected
        kind: dict[str, Any] = {"type": "LIMIT", "price": 1.09, "filling": "RETURN"} if pending else {}
        reply = self.over.order(volume=volume, expected_profit=expected, **kind)
        if self.phase().dry_run:
            assert not isinstance(reply, OrderResult) or reply.outcome == "DRY_RUN"

    @rule()
    def burst(self) -> None:
        """The largest orders of the phase, as many as the position limit allows and more."""
        for _ in range(14):
            self.order((0.01, 0.03, 0.08, 0.18)[self.phase().phase], 5.0, False)
            self.over.now += 7_000

    @precondition(lambda self: bool(self.over.broker._positions))
    @rule(data=st.data())
    def close_one(self, data: st.DataObject) -> None:
        """Closing is always possible."""
        self._lease()
        reply = self.over.close(data.draw(st.sampled_from(sorted(self.over.broker._positions))))
        assert isinstance(reply, OrderResult), reply
        assert reply.outcome == "FILLED"

    def _lease(self) -> None:
        self.over.epoch = self.over.control.acquire(MAGIC, "c", "run", 60_000)

    # --- records -------------------------------------------------------------------------------------------

    @rule(
        phase=st.integers(0, 3),
        days=st.sampled_from([1, 1, 10, 60]),
        override=st.booleans(),
        ahead=st.sampled_from([1, 1, 1, 0, 5]),
    )
    def promote(self, phase: int, days: int, override: bool, ahead: int) -> None:
        over = self.over
        serial = over.state().serial
        assert serial >= self.serial, "the serial fell"
        record = over.record(
            NAMES[phase], serial=max(1, serial + ahead), override=override, issued_msc=over.now,
            expires_msc=over.now + days * DAY_MS,
        )  # fmt: skip
        self._give(record, sign(text_of(record), key("alice")))

    @precondition(lambda self: bool(self.signed))
    @rule(data=st.data())
    def give_an_old_record_again(self, data: st.DataObject) -> None:
        self._give(*data.draw(st.sampled_from(self.signed)))

    @rule(phase=st.integers(1, 3), signer=st.sampled_from(["mallory", "alice"]))
    def forge(self, phase: int, signer: str) -> None:
        record = self.over.record(NAMES[phase])
        signature = sign(text_of(record), key(signer))
        forged = msgspec.structs.replace(record, reason="forged") if signer == "alice" else record
        before = self.over.state().serial
        try:
            self.over.give_signed(text_of(forged), signature)
        except Refusal:
            assert self.over.state().serial == before
            return
        raise AssertionError("a forged record was taken")

    def _give(self, record: PhaseRecord, signature: str) -> None:
        before, new = self.phase().phase, record.serial > self.over.state().serial
        try:
            self.over.give_signed(text_of(record), signature)
        except Refusal:
            return
        wanted = profiles()[record.profile]
        assert new, "an older record came back"
        assert record.override or wanted.phase <= before + 1, "a phase was skipped"
        assert self.over.now < record.expires_msc, "a record that had run out"
        assert record.expires_msc - record.issued_msc <= wanted.record_days * DAY_MS
        self.allowed, self.runs_out = wanted.phase, record.expires_msc
        self.serial = record.serial
        self.signed.append((record, signature))

    @rule(phase=st.integers(0, 3))
    def demote(self, phase: int) -> None:
        try:
            self.over.phases.demote(MAGIC, NAMES[phase], "ops", "drill")
        except Refusal:
            return
        assert phase <= self.phase().phase
        self.allowed = phase

    @rule(reducing=st.sampled_from([True, False, False]))
    def only_reduce(self, reducing: bool) -> None:
        self.over.phases.set_trading(MAGIC, "REDUCING" if reducing else "ACTIVE", "ops", "drill")
        self.reducing = reducing

    # --- the rest of the world -----------------------------------------------------------------------------

    @rule(hours=st.sampled_from([1, 5, 30, 24 * 12]))
    def time_passes(self, hours: int) -> None:
        self.over.now += hours * 3_600_000
        self.over.phases.tick()
        if self.allowed and self.over.now >= self.runs_out:
            self.allowed = 0

    @rule(days=st.sampled_from([-400, -1, 1, 400]))
    def the_wall_clock_jumps(self, days: int) -> None:
        self.over.wall_off = days * DAY_MS

    @rule(killed=st.booleans(), days=st.sampled_from([0, 0, -1, -400]))
    def restart(self, killed: bool, days: int) -> None:
        """With a clock that is right, or behind: then it is as late as the gateway last knew."""
        self.over.phases.tick()
        if not killed:
            self.over.phases._write()
        shown = self.over.reopened(killed=killed, wall_off=days * DAY_MS)
        self.over = shown
        self._watch()

    @rule(bid=st.sampled_from([1.1, 1.1, 1.0995]))
    def the_market_moves(self, bid: float) -> None:
        """A broken rollback criterion only takes away, so the model follows it down."""
        self.over.price(bid)
        self.over.order_manager.look()
        self.over.price(1.1, PRICE)
        profile, state = self.over.phases.in_force(MAGIC), self.over.phases.trading(MAGIC)
        assert profile is not None
        assert profile.phase <= self.phase().phase
        self.allowed = min(self.allowed, profile.phase)
        self.reducing = self.reducing or state == "REDUCING"


TestPhaseMachine = PhaseMachine.TestCase
TestPhaseMachine.settings = settings(
    max_examples=RUNS,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
