"""Does a restored journal agree with the broker's books? Pure: entries and deals in, problems out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from deploy.backup.on_host import SEARCHED_BACK_MS
from mt5crs.gateway.journal import Entry
from mt5crs.protocol.identifiers import is_comment_id
from mt5crs.protocol.records import Deal
from mt5crs.protocol.replies import OrderResult

COMPARED = 500
"""Newest orders of each magic number that are compared."""
_VOLUME = 1e-8
_FOR_EVER = 2**62


def compared(entries: Iterable[Entry]) -> dict[int, list[Entry]]:
    """By magic number, the newest submissions that were executed."""
    found: dict[int, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda one: one.sent_msc):
        if isinstance(entry.answer, OrderResult) and entry.answer.deals and entry.state != "refused":
            found[entry.request.magic].append(entry)
    return {magic: of[-COMPARED:] for magic, of in found.items()}


def gaps(entries: Iterable[Entry], restored: Iterable[int]) -> list[tuple[int, int]]:
    """Broker times between which a restored journal is known to lack orders: from the last that the backup
    knew to the first that was sent after it was restored. restored: see `restorations`.
    """
    sent = sorted(entry.sent_msc for entry in entries if entry.state != "refused")
    lasts = [since + SEARCHED_BACK_MS for since in restored]
    return [(last, next((at for at in sent if at > last), _FOR_EVER)) for last in lasts]


def problems(
    entries: Mapping[int, Sequence[Entry]],
    deals: Mapping[int, Sequence[Deal]],
    known: Iterable[str],
    lacking: Sequence[tuple[int, int]] = (),
) -> list[str]:
    """What does not agree: executions that the broker has not, and orders of ours that the journal has not.

    known: comments of all submissions in the journal; lacking: see `gaps`. Deals after the newest entry are
    later than the copy.
    """
    found: list[str] = []
    comments = set(known)
    for magic, of in entries.items():
        there = {deal.ticket: deal for deal in deals.get(magic, ())}
        for entry in of:
            answer = entry.answer
            assert isinstance(answer, OrderResult)  # noqa: S101  (see `compared`)
            name = entry.request.client_order_id
            missing = [ticket for ticket in answer.deals if ticket not in there]
            volume = sum(there[ticket].volume for ticket in answer.deals if ticket in there)
            if missing:
                found.append(f"order {name} of {magic}: the broker has no deal {missing[0]}")
            elif abs(volume - answer.volume) > _VOLUME:
                found.append(
                    f"order {name} of {magic}: the broker filled {volume:g}, the journal {answer.volume:g}"
                )
        newest = max((ticket for entry in of for ticket in getattr(entry.answer, "deals", ())), default=0)
        for deal in deals.get(magic, ()):
            excused = any(last < deal.time_msc < first for last, first in lacking)
            ours = is_comment_id(deal.comment) and deal.comment not in comments
            if deal.ticket <= newest and ours and not excused:
                found.append(f"deal {deal.ticket} of {magic} is of an order that the journal does not have")
    return found
