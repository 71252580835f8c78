"""For how long nothing was traded, from the gateway's own journal; pure but for the asking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from mt5crs.broker.sim.clock import BROKER_CLOCK_OFFSET_MS
from tests.faults.fleet.collect import GATEWAY, ask
from tests.lab.engines import Fleet

SENT = "SELECT magic, sent_msc FROM submissions WHERE state != 'refused' AND sent_msc >= ? ORDER BY sent_msc"


Span = tuple[int, int]
"""Begin and end, milliseconds of this machine's clock, which lab hosts share."""


def longest_pause_s(sent_msc: Iterable[int], span: Span, quiet: Iterable[Span] = ()) -> float:
    """Longest time without an order in a span, in seconds; no order at all: all of it.

    quiet: spans in which the test had stopped the strategies: they do not count, the start afterwards does.
    """
    begin, end = span
    moments = {begin, end, *(at for at in sent_msc if begin <= at <= end)}
    stops = sorted((stopped, started) for stopped, started in quiet if started > begin and stopped < end)
    free = [(begin, end)]
    for stopped, started in stops:
        last, _ = free.pop()
        free += [(last, max(last, stopped)), (max(last, started), end)]
    return max(_longest(moments, *part) for part in free) / 1000


def _longest(moments: Iterable[int], begin: int, end: int) -> int:
    inside = sorted({begin, max(begin, end), *(at for at in moments if begin <= at <= end)})
    return max((after - before for before, after in pairwise(inside)), default=0)


def pauses(
    fleet: Fleet, magics: Mapping[str, int], span: Span, quiet: Iterable[Span] = ()
) -> dict[str, float]:
    """Host → its longest pause in a span."""
    rows = ask(fleet, "gtw-01", sent=(GATEWAY, SENT, [span[0] + BROKER_CLOCK_OFFSET_MS]))["sent"]
    sent: dict[int, list[int]] = {}
    for magic, at in rows:
        sent.setdefault(int(magic), []).append(int(at) - BROKER_CLOCK_OFFSET_MS)
    stopped = tuple(quiet)
    return {host: longest_pause_s(sent.get(magic, ()), span, stopped) for host, magic in magics.items()}
