"""The answers to submissions, from what the broker replied and what its books show. Used by the terminal's
thread.
"""

import math
from typing import Literal

import msgspec

from mt5crs.broker.interface import TradeRequest, TradeResult
from mt5crs.broker.retcodes import DONE, REQUOTE, name
from mt5crs.protocol import requests as ask
from mt5crs.protocol.events import trade_topic
from mt5crs.protocol.fields import VERSION, Outcome
from mt5crs.protocol.replies import Error, OrderResult, Reply

from .evidence import Verdict
from .journal import Entry
from .pending import Seen
from .stream import Stream

_EPSILON = 1e-9

Evidence = Literal["reply", "books", "gateway", "none", "operator"]


class OrderResults:
    """Each names the latest event of its magic number, so that a client knows what it must have seen."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def result(
        self, entry: Entry, request_id: str, outcome: Outcome, retcode: int, message: str, evidence: Evidence
    ) -> OrderResult:
        """An answer without deals and prices."""
        request = entry.request
        topic = trade_topic(request.magic)
        return OrderResult(
            v=VERSION,
            id=request_id,
            client_order_id=request.client_order_id,
            outcome=outcome,
            retcode=retcode,
            message=message,
            order=request.order if isinstance(request, ask.OrderCancel) else 0,
            deals=[],
            position=0,
            position_ticket=0,
            volume_requested=getattr(request, "volume", None) or 0.0,
            volume=0.0,
            price=0.0,
            comment_id=entry.comment_id,
            epoch=request.lease_epoch,
            evidence=evidence,
            replayed=False,
            time_msc=entry.sent_msc,
            stream=self._stream.name,
            seq=self._stream.last(topic),
        )

    def from_books(self, entry: Entry, verdict: Verdict, retcode: int, seen: Seen) -> OrderResult:
        """What the books say became of a submission."""
        blank = self.result(entry, entry.request.id, verdict.outcome, retcode, verdict.message, "books")
        return msgspec.structs.replace(
            blank,
            order=verdict.order,
            deals=verdict.deals,
            position=verdict.position,
            position_ticket=next(
                (p.ticket for p in seen.books.positions if p.identifier == verdict.position), 0
            ),
            volume=verdict.volume,
            price=verdict.price,
        )

    def from_reply(self, entry: Entry, outcome: Outcome, result: TradeResult) -> OrderResult:
        """What the broker's reply says, where the books do not show it yet."""
        blank = self.result(entry, entry.request.id, outcome, result.retcode, name(result.retcode), "reply")
        filled = outcome in ("FILLED", "PARTIAL")
        return msgspec.structs.replace(
            blank,
            order=result.order,
            deals=[result.deal] if result.deal else [],
            volume=result.volume if filled else 0.0,
            price=result.price if filled else 0.0,
        )

    def recorded(self, request_id: str, entry: Entry) -> Reply:
        """The answer on record, to whoever asks again; UNRESOLVED while there is none."""
        answer = entry.answer
        if isinstance(answer, Error):
            return msgspec.structs.replace(answer, id=request_id)
        if isinstance(answer, OrderResult):
            return msgspec.structs.replace(answer, id=request_id, replayed=True)
        return self.result(
            entry, request_id, "UNRESOLVED", 0, "the broker's books do not show it yet", "none"
        )


def outcome_of(trade: TradeRequest, result: TradeResult) -> Outcome | None:
    """Outcome of a plain success reply whose traces the books do not show (yet)."""
    if trade.action == "PENDING":
        return "PLACED" if result.order and result.retcode == DONE else None
    if trade.action == "REMOVE" or not result.deal:
        return None  # "done" without a deal, or a cancel that the books do not confirm: ask again
    return "FILLED" if result.volume >= trade.volume - _EPSILON else "PARTIAL"


def reason_of(result: TradeResult) -> str:
    """Why a request was refused: the code's meaning, and the broker's own words where it has others."""
    known = name(result.retcode)
    if result.retcode == REQUOTE and 0 < result.price < math.inf:
        known = f"{known}: the price is {result.price:.10g} now"
    said = result.comment.strip()
    return known if said.lower() in ("", name(result.retcode)) else f"{known}: {said}"[:256]
