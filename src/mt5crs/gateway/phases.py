"""The phase of every magic number while the gateway runs: which one is in force, what an order may do in it,
what breaks it, and what was recorded in it. `phase_rules.py` and `phase_acceptance.py` decide,
`phase_store.py` keeps, `phase_evidence.py` counts, `phase_money.py` asks the broker what money is worth.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from mt5crs.broker.interface import Books, Broker, BrokerError
from mt5crs.phases.profile import Profile, Rollback, Trigger, lowest, named, profiles
from mt5crs.phases.record import PhaseRecord, RecordError, UncheckedError, read, verify
from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import VERSION, TradingState
from mt5crs.protocol.records import Order, PhaseFact, Position, SymbolSpec, Tick
from mt5crs.protocol.replies import OrderResult, PhaseState, Reply
from mt5crs.settings.gateway import Limits

from . import phase_rules
from .control import FLEET, Control
from .phase_acceptance import not_acceptable, require_acceptable
from .phase_evidence import count, facts
from .phase_money import PhaseMoney
from .phase_store import Act, PhaseStore, Standing, Stats
from .refusal import Refusal
from .unfilled import Unfilled

_WRITTEN_EVERY_MS = 60_000
_MINUTE_MS = 60_000


class Phases:
    """Thread-safe. What asks the broker is called by the terminal's thread only."""

    def __init__(
        self,
        store: PhaseStore,
        control: Control,
        broker: Broker,
        account: str,
        note: Callable[..., None],
        *,
        signers: Mapping[str, str] | None,
        ceiling: Callable[[int], str] = lambda _: "",
        unfilled: Unfilled,
        monotonic: Callable[[], float],
    ) -> None:
        """`signers` None: this gateway uses no phases. `ceiling`: name of the highest profile that settings
        allow a magic number; empty: any.
        """
        self._store = store
        self._control = control
        self._broker = broker
        self._account = account
        self._note = note
        self._signers = signers
        self._ceiling = ceiling
        self._monotonic = monotonic
        self._unfilled = unfilled
        self._lock = threading.RLock()
        self._standings = store.standings()
        self._records: dict[int, PhaseRecord] = {}
        self._minute: dict[int, deque[float]] = {}
        self._money = PhaseMoney(broker, monotonic)
        self._lost_since: float | None = None
        self._tripped: set[int] = set()
        """Whose failures have been acted on: a RESUME lifts the halt before it resets their count."""
        self._written_ms = store.observed_ms()
        self.changes = 0
        """Rises with every change: an order that was checked before one is not sent after it."""
        if signers is None:
            return
        for magic in list(self._standings):
            self._load(magic)

    def _load(self, magic: int) -> None:
        """Look at a record of before a restart as if it came from a stranger."""
        standing = self._standings[magic]
        if not standing.record or self._signers is None:
            return
        try:
            record = read(standing.record)
            verify(standing.record, standing.signature, record.by, self._signers)
            if (record.magic, record.account) != (magic, self._account):
                raise RecordError(f"it is one of magic {record.magic} of {record.account}")
            if named(standing.profile).phase > named(record.profile).phase:
                raise RecordError(f"it is one of {record.profile}, not of {standing.profile}")
        except UncheckedError as error:  # the lowest phase, until a start that can look at it
            self._note("phase.unchecked", magic=magic, error=str(error))
        except ValueError as error:
            self._fall_by_itself(magic, "forged", f"the record is not valid any more: {error}")
        else:
            self._records[magic] = record

    def close(self) -> None:
        """Write the figures and close the file."""
        with self._lock:
            if self._signers is not None:
                self._write()
            self._store.close()

    # --- which phase ---------------------------------------------------------------------------------------

    def in_force(self, magic: int) -> Profile | None:
        """The phase of a magic number; None where phases are not used. Never asks the broker or the disk."""
        if self._signers is None:
            return None
        with self._lock:
            standing, record = self._standings.get(magic), self._records.get(magic)
            profile = profiles().get(standing.profile) if standing is not None else None
            if profile is None or (profile.phase > lowest().phase and not self._valid(record)):
                return lowest()
            highest = profiles().get(self._ceiling(magic)) if self._ceiling(magic) else None
            return highest if highest is not None and highest.phase < profile.phase else profile

    def _valid(self, record: PhaseRecord | None) -> bool:
        return record is not None and self._store.now_msc() < record.expires_msc

    def trading(self, magic: int) -> TradingState:
        """Whether a magic number may only reduce."""
        standing = self._standings.get(magic)
        return standing.trading if standing is not None else "ACTIVE"

    def tightened(self, magic: int, limits: Limits) -> Limits:
        """Limits of a magic number with those of its phase that risk.py checks."""
        profile = self.in_force(magic)
        return limits if profile is None else phase_rules.tightened(limits, profile)

    def limits_for(self, terms: ask.OrderTerms, limits: Limits, view: Callable[[], Books]) -> Limits:
        """Limits that hold for an order; what only reduces has those of the magic number alone."""
        if self._signers is None or _reduces(terms, view()):
            return limits
        return self.tightened(terms.magic, limits)

    # --- orders --------------------------------------------------------------------------------------------

    def check(
        self,
        terms: ask.OrderTerms,
        books: Books,
        spec: SymbolSpec,
        tick: Tick,
        limits: Limits,
        daily_profit: float,
    ) -> None:
        """Raise Refusal LIMIT if the order goes beyond its phase. What only reduces is never held back."""
        profile, trading = self.in_force(terms.magic), self.trading(terms.magic)
        if (profile is None and trading == "ACTIVE") or _reduces(terms, books):
            return
        if trading == "REDUCING":
            raise Refusal(
                "LIMIT",
                "trading",
                f"magic {terms.magic} may only reduce what is open: {self._standings[terms.magic].why}",
                "close or cancel; `mt5crs phase activate` lifts it when the cause is gone",
                final=True,
            )
        if profile is None:
            return
        phase_rules.check_order(
            terms,
            profile,
            phase_rules.OrderFacts(
                spec=spec,
                tick=tick,
                positions=[p for p in books.positions if p.magic == terms.magic],
                orders=[o for o in books.orders if o.magic == terms.magic],
                netting=books.identity.margin_mode != "HEDGING",
                daily_profit=daily_profit,
                last_minute=self._last_minute(terms.magic),
                money=self._money.of(profile, books.identity.currency, [terms.symbol, *limits.symbols]),
            ),
        )

    def taken(self, magic: int) -> None:
        """An order has passed every check and is about to be recorded: it counts for its minute."""
        if magic in self._minute:
            self._minute[magic].append(self._monotonic())

    def _last_minute(self, magic: int) -> int:
        now = self._monotonic()
        if (
            magic not in self._minute
        ):  # since the start of this run: what the broker has from the run before counts
            now_msc = self._broker.time_msc()
            known = [*self._broker.closed_orders(max(0, now_msc - _MINUTE_MS)), *self._broker.books().orders]
            ages = sorted((now_msc - o.time_setup_msc for o in known if o.magic == magic), reverse=True)
            self._minute[magic] = deque(now - age / 1000 for age in ages)
        times = self._minute[magic]
        while times and now - times[0] >= _MINUTE_MS / 1000:
            times.popleft()
        return len(times)

    def concluded(self, magic: int, answer: Reply, took_ms: float | None = None) -> None:
        """Count the first answer to an order."""
        standing = self._counted(magic)
        if standing is None or not isinstance(answer, OrderResult):
            return
        with self._lock:
            count(standing.stats, answer, took_ms)

    def refused(self, magic: int) -> None:
        """Count an order that the gateway refused for its limits."""
        standing = self._counted(magic)
        if standing is not None:
            with self._lock:
                standing.stats.orders += 1
                standing.stats.rejects += 1

    def _counted(self, magic: int) -> Standing | None:
        """Where to count for a magic number; its lowest phase begins with its first order."""
        if self._signers is None:
            return None
        with self._lock:
            if magic not in self._standings:
                self._begin(magic)
            return self._standings.get(magic)

    # --- records -------------------------------------------------------------------------------------------

    def answer(
        self, request: ask.PhaseQuery | ask.PhaseSet, limits: Limits | None, currency: str
    ) -> PhaseState:
        """Answer what needs the broker. Raises Refusal and BrokerError."""
        symbols = limits.symbols if limits is not None else []
        if isinstance(request, ask.PhaseSet):
            self._accept(request, symbols, currency)
        profile = self.in_force(request.magic)
        try:
            obstacle = self._money.obstacle(profile, symbols, currency) if profile is not None else ""
        except (BrokerError, Refusal) as error:
            obstacle = f"not known now: {error}"
        return self.state(request.id, request.magic, obstacle)

    def _accept(self, request: ask.PhaseSet, symbols: list[str], currency: str) -> None:
        magic = request.magic
        _require_magic(magic)
        if self._signers is None:
            raise not_acceptable("enforced", "this gateway uses no phases", "set fleet_phases, then deploy")
        try:
            record = read(request.record)
            profile = named(record.profile)
            verify(request.record, request.signature, record.by, self._signers)
        except ValueError as error:
            self._note("phase.refused", magic=magic, client=request.client, error=str(error))
            raise not_acceptable(
                "record", str(error), "have it signed by one of fleet_phase_signers"
            ) from None
        with self._lock:
            self._require_acceptable(record, profile, magic)
        obstacle = self._money.obstacle(profile, symbols, currency)
        if obstacle:
            raise not_acceptable("profile", obstacle, "nothing was changed")
        with self._lock:
            self._require_acceptable(record, profile, magic)
            present = self._standings.get(magic)
            again = (
                present is not None and self.in_force(magic) is profile and present.profile == profile.name
            )
            since, stats = self._store.observed_ms(), self._no_stats()
            if again and present is not None:  # renewed: what was recorded in it goes on
                since, stats = present.since_ms, present.stats
            standing = Standing(
                serial=record.serial,
                profile=profile.name,
                trading=self.trading(magic),
                why=record.reason,
                record=request.record,
                signature=request.signature,
                since_ms=since,
                stats=stats,
            )
            self._store.put(magic, standing, "override" if record.override else "set", record.by)
            self._store.trust(record.issued_msc)
            self._records[magic] = record
            self._stand(magic, standing)
        self._note(
            "phase.set",
            magic=magic,
            profile=profile.name,
            serial=record.serial,
            by=record.by,
            override=record.override,
        )

    def _require_acceptable(self, record: PhaseRecord, profile: Profile, magic: int) -> None:
        present = self._standings.get(magic)
        require_acceptable(
            record,
            profile,
            magic=magic,
            account=self._account,
            serial=present.serial if present is not None else 0,
            phase=(self.in_force(magic) or lowest()).phase,
            now_msc=self._store.now_msc(),
        )

    def demote(self, magic: int, profile_name: str, by: str, reason: str) -> None:
        """Put a magic number under an earlier phase. Raises Refusal."""
        _require_magic(magic)
        present = self.in_force(magic)
        if present is None:
            raise not_acceptable("enforced", "this gateway uses no phases", "set fleet_phases, then deploy")
        try:
            profile = named(profile_name)
        except ValueError as error:
            raise not_acceptable("profile", str(error), "name one of them") from None
        if profile.phase > present.phase:
            raise not_acceptable(
                "profile",
                f"{profile.name} is above {present.name}, which is in force",
                "use `mt5crs phase promote`",
            )
        with self._lock:
            self._fall(magic, profile, "demoted", by, reason)

    def set_trading(self, magic: int, state: TradingState, by: str, reason: str) -> None:
        """Let a magic number only reduce, or lift that. Raises Refusal."""
        _require_magic(magic)
        with self._lock:
            present = self._standings.get(magic) or self._new(lowest(), 0, reason)
            changed = msgspec.structs.replace(present, trading=state, why=reason)
            if state == "REDUCING":  # in force even if the disk then fails
                self._stand(magic, changed)
            self._store.put(magic, changed, "reducing" if state == "REDUCING" else "active", by)
            self._stand(magic, changed)
        self._note("phase.trading", magic=magic, state=state, by=by, reason=reason)

    def _fall(
        self, magic: int, to: Profile, act: Act, by: str, reason: str, *, trading: TradingState | None = None
    ) -> None:
        """Lower the phase, for good until a newer record comes. In force even if the disk then fails."""
        present = self._standings.get(magic) or self._new(lowest(), 0, reason)
        kept = to.phase > lowest().phase
        standing = Standing(
            serial=present.serial + 1,
            profile=to.name,
            trading=trading or present.trading,
            why=reason,
            record=present.record if kept else "",
            signature=present.signature if kept else "",
            since_ms=self._store.observed_ms(),
            stats=self._no_stats(),
        )
        if not kept:
            self._records.pop(magic, None)
        self._stand(magic, standing)
        self._note(f"phase.{act}", magic=magic, profile=to.name, by=by, reason=reason)
        self._store.put(magic, standing, act, by)

    def _fall_by_itself(self, magic: int, act: Act, why: str) -> None:
        try:
            self._fall(magic, lowest(), act, "gateway", why)
        except Refusal as refusal:  # it is in force all the same
            self._note("phase.unrecorded", magic=magic, error=refusal.message)

    def _begin(self, magic: int) -> None:
        standing = self._new(lowest(), 0, "no record was ever given")
        try:
            self._store.put(magic, standing, "set", "gateway")
        except Refusal as refusal:
            self._note("phase.unrecorded", magic=magic, error=refusal.message)
        self._stand(magic, standing)

    def _new(self, profile: Profile, serial: int, why: str) -> Standing:
        return Standing(
            serial=serial,
            profile=profile.name,
            why=why,
            since_ms=self._store.observed_ms(),
            stats=self._no_stats(),
        )

    def _no_stats(self) -> Stats:
        return Stats(started_msc=self._store.now_msc())

    def _stand(self, magic: int, standing: Standing) -> None:
        self._standings[magic] = standing
        self.changes += 1

    # --- what breaks a phase -------------------------------------------------------------------------------

    def review(
        self,
        daily: Mapping[int, float],
        failures: Mapping[int, int],
        limits: Mapping[int, Limits],
        currency: str,
    ) -> None:
        """Look whether a rollback criterion is broken, and act. Called after each look at the books."""
        if self._signers is None:
            return
        for magic in list(self._standings):
            profile, result = self.in_force(magic), daily.get(magic)
            if profile is None or magic not in limits or self.trading(magic) == "REDUCING":
                continue
            if result is not None:
                self._worst(magic, result)
            rollback = profile.rollback_on("consecutive_failures")
            count = failures.get(magic, 0)
            if count < profile.limits.max_consecutive_failures:
                self._tripped.discard(magic)
            elif rollback is not None and magic not in self._tripped:
                self._tripped.add(magic)
                self._roll_back(
                    magic, profile, rollback, f"{count} submissions in a row failed (CIRCUIT_BREAKER_OPEN)"
                )
                continue
            if self._unfilled_too_long(magic, profile):
                continue
            rollback, limit = profile.rollback_on("daily_loss"), profile.limits.daily_loss
            if rollback is None or limit is None or result is None or result >= 0:
                continue
            try:
                bound = limit * self._money.of(profile, currency, limits[magic].symbols).unit()
            except (Refusal, BrokerError):
                continue  # orders are refused while it is not known
            if -result >= bound:
                self._roll_back(
                    magic,
                    profile,
                    rollback,
                    f"the day's loss is {-result:.2f} {currency}, the limit is {bound:.2f}",
                )

    def _unfilled_too_long(self, magic: int, profile: Profile) -> bool:
        """Whether a magic number had no deal for so long, and so many orders, that it was acted on."""
        rollback = profile.rollback_on("no_fills")
        asked, took = self._unfilled.of(magic)
        if rollback is None or asked < (rollback.after_orders or 1) or took < (rollback.after_s or 0):
            return False
        self._unfilled.dealt(magic)  # once a halt is lifted, it begins anew
        self._roll_back(
            magic, profile, rollback, f"{asked} orders in {took:.0f} s and no deal (LIVE_NO_FILLS)"
        )
        return True

    def _worst(self, magic: int, result: float) -> None:
        stats = self._standings[magic].stats
        if result == result and (stats.worst_day is None or result < stats.worst_day):
            stats.worst_day = round(result, 2)

    def terminal(self, *, usable: bool) -> None:
        """Say whether the terminal can be used; without it for too long, live phases stop."""
        if self._signers is None:
            return
        now = self._monotonic()
        if usable:
            self._lost_since = None
            return
        since = self._lost_since = now if self._lost_since is None else self._lost_since
        for magic in list(self._standings):
            profile = self.in_force(magic)
            rollback = profile.rollback_on("terminal_lost") if profile is not None else None
            if profile is None or rollback is None or now - since < (rollback.after_s or 0):
                continue
            self._roll_back(
                magic, profile, rollback, f"no terminal for {now - since:.0f} s (WS_DISCONNECTED)"
            )

    def _roll_back(self, magic: int, profile: Profile, rollback: Rollback, why: str) -> None:
        trigger: Trigger = rollback.on
        try:
            with self._lock:
                if rollback.do == "demote":
                    below = list(profiles().values())[max(0, profile.phase - 1)]
                    self._fall(magic, below, "demoted", "gateway", f"{trigger}: {why}", trading="REDUCING")
                    self._act(magic, "critical", profile, f"{trigger}: {why}")
                elif not {magic, FLEET} & {halt.magic for halt in self._control.halts()}:
                    self._control.halt("MAGIC", magic, "gateway", f"{trigger}: {why}"[:256])
                    self._act(magic, "critical", profile, f"{trigger}: {why}")
                    self._note(
                        "halt", scope="MAGIC", magic=magic, client="gateway", reason=f"{trigger}: {why}"
                    )
        except Refusal as refusal:  # it is in force though it could not be recorded
            self._note("phase.unrecorded", magic=magic, error=refusal.message)

    def _act(self, magic: int, act: Act, profile: Profile, reason: str) -> None:
        try:
            self._store.act(magic, act, profile.name, self._standings[magic].serial, "gateway", reason)
        except sqlite3.Error as error:
            self._note("phase.unrecorded", magic=magic, error=str(error))

    # --- time and figures ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: records that have run out fall, and the figures are written from time to time."""
        if self._signers is None:
            return
        with self._lock:
            for magic, record in list(self._records.items()):
                if self._valid(record):
                    continue
                self._fall_by_itself(magic, "lapsed", f"record {record.serial} has run out")
            if self._store.observed_ms() - self._written_ms >= _WRITTEN_EVERY_MS:
                self._write()

    def _write(self) -> None:
        self._written_ms = self._store.observed_ms()
        try:
            self._store.keep(self._standings)
        except sqlite3.Error as error:
            self._note("phase.unrecorded", error=str(error))

    def figures(self) -> dict[int, tuple[int, float]]:
        """Number of the phase, and seconds until its record runs out (infinite: never), by magic number."""
        with self._lock:
            found = {}
            for magic in self._standings if self._signers is not None else ():
                profile, left = self.in_force(magic), self._left_ms(magic)
                if profile is not None:
                    found[magic] = (profile.phase, float("inf") if left is None else left / 1000)
            return found

    def _left_ms(self, magic: int) -> int | None:
        record = self._records.get(magic)
        return None if record is None else max(0, record.expires_msc - self._store.now_msc())

    def state(self, request_id: str, magic: int, obstacle: str = "") -> PhaseState:
        """The reply that tells everything about a phase."""
        with self._lock:
            profile = self.in_force(magic)
            standing = self._standings.get(magic) or Standing(why="no record was ever given")
            halted = {magic, FLEET} & {halt.magic for halt in self._control.halts()}
            return PhaseState(
                v=VERSION,
                id=request_id,
                magic=magic,
                account=self._account,
                enforced=profile is not None,
                profile=profile.name if profile is not None else "",
                phase=profile.phase if profile is not None else 0,
                trading="HALTED" if halted else standing.trading,
                why=standing.why,
                serial=standing.serial,
                expires_in_ms=self._left_ms(magic),
                obstacle=obstacle,
                facts=self._facts(magic) if profile is not None else [],
                acts=self._store.acts(magic),
            )

    def _facts(self, magic: int) -> list[PhaseFact]:
        standing = self._standings.get(magic)
        if standing is None:
            return []
        return facts(
            standing,
            self._store.observed_ms(),
            self._store.now_msc(),
            lambda acts: self._store.last_ms(magic, *acts),
        )


def _reduces(terms: ask.OrderTerms, books: Books) -> bool:
    positions: list[Position] = [p for p in books.positions if p.magic == terms.magic]
    orders: list[Order] = [o for o in books.orders if o.magic == terms.magic]
    return phase_rules.reduces(terms, positions, orders, netting=books.identity.margin_mode != "HEDGING")


def _require_magic(magic: int) -> None:
    if not magic:
        raise Refusal("BAD_FIELD", "magic", "a phase belongs to a magic number, and 0 is none", "name one")
