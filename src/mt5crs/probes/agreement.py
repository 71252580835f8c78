"""Do two versions of a strategy decide alike? From the tapes of both; pure.

Decisions are compared callback by callback, since both had the same callbacks with the same answers. One that
comes in a callback soon before or after is the same decision, early or late.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from mt5crs.service import exits
from mt5crs.strategy.tape import BEGAN, JOINING, Call, Decision, same_number, same_order

What = Literal["same", "late", "volume", "price", "only_running", "only_new"]
WHATS: tuple[What, ...] = ("same", "late", "volume", "price", "only_running", "only_new")
AGREE: frozenset[What] = frozenset({"same", "late"})
CANNOT_KNOW = (
    "what orders of the new version would have been filled at, and what would have followed",
    "what it does on a book of its own: both decide on the running version's, also after a difference",
    "what the gateway and the broker would have said to what only the new version wanted",
)
_ROWS = 200
_TIMES = 2000
_MOST_WAITING = 5000


class Stood(NamedTuple):
    """A decision that has no other side yet; `at_ms`: when the running version had the callback."""

    at_ms: int
    decision: Decision


@dataclass(frozen=True)
class Terms:
    """What a new version has to show, and who promotes it."""

    window_s: float
    agreement_percent: float
    least_decisions: int
    promotion: Literal["rule", "command"]


@dataclass(frozen=True)
class Word:
    """What somebody said of it while the window was open."""

    said: Literal["promote", "drop"]
    by: str


class Verdict(NamedTuple):
    """`status`: exit status of the comparison; 0: the new version goes on."""

    status: int
    reason: str


class Agreement:
    """Takes both tapes as they grow."""

    def __init__(self, tolerance_s: float) -> None:
        """tolerance_s: how much earlier or later a decision may come and still be the same."""
        self._tolerance_ms = tolerance_s * 1000
        self._calls: dict[tuple[str, int], Call] = {}
        self._running: deque[Stood] = deque()
        self._new: deque[Stood] = deque()
        self._now_ms = 0
        self.counts: Counter[What] = Counter()
        self.calls = self.replayed = self.forgotten = self.before = self.asked_itself = 0
        self._own_running: deque[float] = deque(maxlen=_TIMES)
        self._own_new: deque[float] = deque(maxlen=_TIMES)
        self._agreed: deque[dict[str, Any]] = deque(maxlen=_ROWS)
        self._differs: deque[dict[str, Any]] = deque(maxlen=_ROWS)
        self.began = False

    @property
    def decisions(self) -> int:
        """How many decisions were compared, one that both made counted once."""
        return sum(self.counts.values())

    @property
    def ratio(self) -> float | None:
        """Share of the decisions that both made; None: there was none, which says nothing."""
        agreed = sum(self.counts[what] for what in AGREE)
        return agreed / self.decisions if self.decisions else None

    @property
    def behind(self) -> int:
        """Callbacks that the new version has not been through yet."""
        return len(self._calls)

    def take_running(self, calls: Iterable[Call]) -> None:
        """Callbacks of the running version."""
        for call in calls:
            self.began = True
            if call.callback == BEGAN:
                continue
            self.calls += 1
            self._now_ms = max(self._now_ms, call.at_ms)
            self._own_running.append(call.own_s)
            self._calls[call.run, call.number] = call
            if len(self._calls) > _MOST_WAITING:
                self._give_up(next(iter(self._calls)))

    def take_new(self, calls: Iterable[Call]) -> None:
        """Callbacks of the new version."""
        for call in calls:
            if call.number == JOINING:
                self.before += len(call.decisions)
                continue
            running = self._calls.pop((call.run, call.number), None)
            if running is None:
                self.forgotten += 1
                continue
            self.replayed += 1
            self.asked_itself += call.asked_itself
            self._own_new.append(call.own_s)
            self._compare(running, call)
        self._settle()

    def end(self) -> None:
        """Nothing follows: what has no other side now has none."""
        for name in list(self._calls):
            self._give_up(name)
        self._settle(final=True)

    def as_json(self) -> dict[str, Any]:
        """Counts, ratio and the newest decisions."""
        rows = sorted([*self._agreed, *self._differs], key=lambda row: int(row["at_ms"]))
        return {
            "calls": self.calls,
            "replayed": self.replayed,
            "behind": self.behind,
            "not_compared": self.forgotten,
            "before": self.before,
            "asked_itself": self.asked_itself,
            "decisions": self.decisions,
            **{what: self.counts[what] for what in WHATS},
            "agreement": self.ratio,
            "own_s": {"running": _times(self._own_running), "new": _times(self._own_new)},
            "rows": rows,
            "rows_left_out": self.decisions - len(rows),
            "cannot_know": list(CANNOT_KNOW),
        }

    def _compare(self, running: Call, new: Call) -> None:
        theirs = list(new.decisions)
        left = []
        for ours in running.decisions:
            found = next((one for one in theirs if same_order(ours, one)), None)
            if found is None:
                left.append(ours)
                continue
            theirs.remove(found)
            self._both(ours, found, running.at_ms, found.own_s - ours.own_s)
        for ours in left:
            found = next((one for one in theirs if _key(one) == _key(ours)), None)
            if found is None:
                self._running.append(Stood(running.at_ms, ours))
                continue
            theirs.remove(found)
            self._count("volume", ours, found, running.at_ms, found.own_s - ours.own_s)
        self._new.extend(Stood(running.at_ms, one) for one in theirs)

    def _both(self, ours: Decision, theirs: Decision, at_ms: int, late_s: float, what: What = "same") -> None:
        prices = all(
            same_number(getattr(ours, name), getattr(theirs, name)) for name in ("price", "sl", "tp")
        )
        self._count(what if prices else "price", ours, theirs, at_ms, late_s)

    def _settle(self, *, final: bool = False) -> None:
        for ours in list(self._running):
            found = next(
                (
                    one
                    for one in self._new
                    if same_order(ours.decision, one.decision)
                    and abs(one.at_ms - ours.at_ms) <= self._tolerance_ms
                ),
                None,
            )
            if found is not None:
                self._running.remove(ours)
                self._new.remove(found)
                late_s = (found.at_ms - ours.at_ms) / 1000
                self._both(ours.decision, found.decision, ours.at_ms, late_s, "late")
        self._left(self._running, "only_running", final=final)
        self._left(self._new, "only_new", final=final)

    def _left(self, waiting: deque[Stood], what: What, *, final: bool) -> None:
        while waiting and (final or self._now_ms - waiting[0].at_ms > self._tolerance_ms):
            one = waiting.popleft()
            mine = one.decision
            self._count(
                what,
                mine if what == "only_running" else None,
                mine if what == "only_new" else None,
                one.at_ms,
                None,
            )

    def _give_up(self, name: tuple[str, int]) -> None:
        call = self._calls.pop(name)
        self._running.extend(Stood(call.at_ms, one) for one in call.decisions)

    def _count(
        self, what: What, running: Decision | None, new: Decision | None, at_ms: int, late_s: float | None
    ) -> None:
        self.counts[what] += 1
        either = running or new
        assert either is not None  # noqa: S101  (one of them is there; for the type checker)
        (self._agreed if what in AGREE else self._differs).append(
            {
                "at_ms": at_ms,
                "what": what,
                "kind": either.kind,
                "symbol": either.symbol,
                "side": either.side,
                "ticket": either.ticket,
                "late_s": None if late_s is None else round(late_s, 6),
                "running": _shown(running),
                "new": _shown(new),
            }
        )


def judge(found: Agreement, terms: Terms, word: Word | None = None) -> Verdict:
    """Whether the new version goes on, once the window is over or somebody has said a word."""
    told = told_of(found)
    if word is not None and word.said == "drop":
        return Verdict(exits.INCONCLUSIVE, f"dropped by {word.by}; {told}")
    if word is not None:
        return Verdict(exits.OK, f"promoted by {word.by}; {told}")
    if terms.promotion == "command":
        return Verdict(
            exits.INCONCLUSIVE, f"nobody promoted it within the window of {terms.window_s:g} s; {told}"
        )
    ratio = found.ratio
    if ratio is None:
        return Verdict(exits.INCONCLUSIVE, told)
    if found.decisions < terms.least_decisions:
        return Verdict(exits.INCONCLUSIVE, f"{terms.least_decisions} decisions were wanted; {told}")
    if ratio * 100 < terms.agreement_percent:
        return Verdict(exits.FAILED, f"{terms.agreement_percent:g} % were wanted; {told}")
    return Verdict(exits.OK, told)


def told_of(found: Agreement) -> str:
    """The comparison in one line."""
    if found.ratio is None:
        return (
            "no decisions in the window, so nothing is known of whether they agree: the running version was "
            f"called {found.calls} times, the new one {found.replayed} times"
        )
    agreed = sum(found.counts[what] for what in AGREE)
    parts = [
        (found.counts["late"], "of these earlier or later"),
        (found.counts["volume"], "with another volume"),
        (found.counts["price"], "with another price"),
        (found.counts["only_running"], "of the running version only"),
        (found.counts["only_new"], "of the new version only"),
    ]
    more = "".join(f", {number} {what}" for number, what in parts if number)
    return f"{agreed} of {found.decisions} decisions agree ({percent(found.ratio)}){more}"


def percent(ratio: float) -> str:
    """A share for people; what is not all is never shown as 100 %."""
    shown = min(ratio * 100, 99.9) if ratio < 1 else 100.0
    return f"{shown:.1f} %"


def _key(one: Decision) -> tuple[object, ...]:
    return one.kind, one.symbol, one.side, one.ticket


def _shown(one: Decision | None) -> Mapping[str, Any] | None:
    if one is None:
        return None
    became = one.outcome.result if one.outcome else one.failed.code or one.failed.error if one.failed else ""
    return {
        "id": one.id,
        "volume": one.volume,
        "price": one.price,
        "sl": one.sl,
        "tp": one.tp,
        "where": one.where,
        "became": became,
    }


def _times(seconds: deque[float]) -> dict[str, float] | None:
    """Median and worst; None when there is none."""
    if not seconds:
        return None
    return {"median": round(statistics.median(seconds), 6), "worst": round(max(seconds), 6)}
