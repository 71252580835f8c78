"""The decision at the heart of the reconciler: record + broker evidence → events, discrepancies, new record.

Pure: no clock, no I/O. The rule: a position changes only by deals. A change that the deals explain is an
event and moves the record; one that they do not explain is a discrepancy, leaves the record as it was and,
when it lasts, halts trading. Nothing is ever dropped, adopted from another magic number, or guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

import msgspec

from mt5crs.protocol.records import Deal, Order, Position
from mt5crs.reconciler.model import (
    Comparison,
    Discrepancy,
    Event,
    Evidence,
    LocalState,
    lots,
    signed_units,
    units,
)

OVERLAP_MSC = 120_000
"""Brokers write deals into the history late; so far back (broker time, ms) every query asks again."""
SET_BACK_MSC = 75 * 60_000
"""By so much, at most, brokers set their clock back (end of summer time): what is new is then dated before
what is known, so deals are known by ticket for so long.
"""
CLOCKS_DIFFER_MSC = 26 * 3600_000
"""More than any two clocks differ: time zones, and a clock that is wrong."""
STRIKES_TO_HALT = 3


def compare(local: LocalState | None, evidence: Evidence) -> Comparison:
    """Compare the record with the evidence; `local=None` takes the broker's state as the first record.

    Idempotent: comparing the resulting state with the same evidence yields no events. Independent of the
    order of the lists in the evidence.
    """
    if local is None:
        return _first_record(evidence)
    if local.login != evidence.login:
        return _other_account(local, evidence)
    fresh: dict[int, list[Deal]] = defaultdict(list)
    for deal in _fresh_deals(local, evidence):
        fresh[deal.position_id].append(deal)
    held = {position.identifier: position for position in local.positions}
    broker = {position.identifier: position for position in evidence.positions}
    external = {position.identifier: position for position in evidence.external}

    events: list[Event] = []
    discrepancies = _unresolved(evidence)
    positions: list[Position] = []
    applied: list[Deal] = []
    contained: list[Deal] = []
    unapplied_orders: set[int] = set()
    differing = 0
    for identifier in sorted({*held, *broker, *fresh}):
        before, after = held.get(identifier), broker.get(identifier)
        told_late, deals = _by_record(before, fresh.get(identifier, []))
        if before is None and after is None and not any(deal.magic == evidence.magic for deal in deals):
            continue  # another magic number's business
        problem = _unexplained(before, after, deals, external.get(identifier), evidence.deals_known)
        if problem is not None and told_late:
            held_already, since_then = _by_ticket(before, after, told_late + deals)
            if not _unexplained(before, after, since_then, external.get(identifier), evidence.deals_known):
                problem, told_late, deals = None, held_already, since_then
        if problem is not None:
            differing += 1
            discrepancies.append(Discrepancy(f"position:{identifier}", f"position {identifier}: {problem}"))
            unapplied_orders.update(deal.order for deal in told_late + deals)
            if before is not None:
                positions.append(before)
            continue
        contained += told_late
        applied += deals
        events += _deal_events(deals, evidence.magic) + _position_events(before, after, deals)
        if after is not None:
            positions.append(after)

    orders, order_events, order_problems = _compare_orders(
        local.orders, evidence, _filled_by_order([applied]), unapplied_orders
    )
    discrepancies += order_problems
    if evidence.unresolved:
        discrepancies = [_not_settled(each) for each in discrepancies]
    events += order_events + _external_events(local.external, external)
    through = (
        local.through_msc if discrepancies else _through(max(local.through_msc, _newest(evidence)), evidence)
    )
    known_from = max(_known_from(local), through - OVERLAP_MSC - SET_BACK_MSC)
    state = LocalState(
        login=evidence.login,
        magic=evidence.magic,
        positions=tuple(positions),
        orders=orders,
        external=tuple(sorted(external)),
        applied_deals=_remember(local.applied_deals, [*applied, *contained], evidence.deals, known_from),
        through_msc=through,
        known_from_msc=known_from,
        unexplained=bool(discrepancies),
    )
    return Comparison(
        state=state,
        events=tuple(sorted(events)),
        discrepancies=tuple(sorted(discrepancies)),
        broker_positions=len(broker),
        differing_positions=differing,
    )


def deals_wanted_from(local: LocalState) -> int:
    """Broker time (ms) from which the next snapshot must contain deals.

    Further back while a difference is not explained: the broker may have set its clock back meanwhile.
    """
    return max(0, _known_from(local) if local.unexplained else local.through_msc - OVERLAP_MSC)


def count_strikes(previous: Mapping[str, int], discrepancies: Iterable[Discrepancy]) -> dict[str, int]:
    """How often in a row each discrepancy has been seen, this time included; those gone are forgotten."""
    return {found.key: previous.get(found.key, 0) + 1 for found in discrepancies}


def struck_out(strikes: Mapping[str, int]) -> list[str]:
    """Keys of the discrepancies that have lasted STRIKES_TO_HALT checks: trading must halt."""
    return sorted(key for key, count in strikes.items() if count >= STRIKES_TO_HALT)


def first_deals_wanted_from(time_msc: int) -> int:
    """Broker time (ms) from which the first snapshot must contain deals, when the clock shows `time_msc`."""
    return max(0, time_msc - CLOCKS_DIFFER_MSC)


def _newest(evidence: Evidence) -> int:
    """Time of the newest thing that the history shows; 0 when it shows none.

    Not the time of the snapshot: a clock that is ahead of the deals' would hide those to come.
    """
    times = [deal.time_msc for deal in evidence.deals]
    times += [order.time_done_msc for order in evidence.closed_orders]
    return max((each for each in times if each <= evidence.time_msc + CLOCKS_DIFFER_MSC), default=0)


def _through(newest: int, evidence: Evidence) -> int:
    """Until when all is known. When the clock was set back what comes is dated from the snapshot's time on; a
    snapshot that is further behind has a wrong clock.
    """
    return newest if newest - evidence.time_msc > SET_BACK_MSC else min(newest, evidence.time_msc)


def _known_from(local: LocalState) -> int:
    return local.known_from_msc or local.through_msc - OVERLAP_MSC


def comparable(local: LocalState | None, login: int) -> LocalState | None:
    """The record, unless it is another account's that held nothing: there is nothing to compare then."""
    if local is not None and local.login != login and not (local.positions or local.orders):
        return None
    return local


def _other_account(local: LocalState, evidence: Evidence) -> Comparison:
    """Tickets and times of two accounts mean nothing to each other; what the record holds is not dropped."""
    held = f"{len(local.positions)} positions and {len(local.orders)} working orders"
    detail = (
        f"the record is of account {local.login}, which held {held}, and the gateway trades "
        f"{evidence.login}: nobody trades those any more"
    )
    return Comparison(
        state=local,
        events=(),
        discrepancies=(Discrepancy("account", detail),),
        broker_positions=len(evidence.positions),
        differing_positions=len(local.positions),
    )


def _first_record(evidence: Evidence) -> Comparison:
    asked_from = first_deals_wanted_from(evidence.time_msc)
    through = _through(_newest(evidence) or asked_from, evidence)
    known_from = max(asked_from, through - OVERLAP_MSC - SET_BACK_MSC)
    state = LocalState(
        login=evidence.login,
        magic=evidence.magic,
        positions=tuple(sorted(evidence.positions, key=lambda position: position.identifier)),
        orders=tuple(sorted(evidence.orders, key=lambda order: order.ticket)),
        external=tuple(sorted(position.identifier for position in evidence.external)),
        applied_deals=_remember((), _held_by_positions(evidence), (), known_from),
        through_msc=through,
        known_from_msc=known_from,
    )
    events = [
        Event(f"position-recovered:{p.identifier}", "position_recovered", _describe(p))
        for p in evidence.positions
    ]
    events += [
        Event(f"order-recovered:{o.ticket}", "order_recovered", f"{o.type} {o.volume_current:g} {o.symbol}")
        for o in evidence.orders
    ]
    events += _external_events((), {p.identifier: p for p in evidence.external})
    return Comparison(
        state=state,
        events=tuple(sorted(events)),
        discrepancies=tuple(_unresolved(evidence)),
        broker_positions=len(evidence.positions),
        differing_positions=0,
    )


def _held_by_positions(evidence: Evidence) -> list[Deal]:
    """Deals that the positions of a first reading contain; the others move them once the positions show it.

    Terminals show deals before positions, too. A position whose first deal is in the reading holds the
    longest run of deals that makes its volume; one that began earlier is taken as it is.
    """
    volumes = {each.identifier: signed_units(each) for each in (*evidence.positions, *evidence.external)}
    by_position: dict[int, list[Deal]] = defaultdict(list)
    for deal in sorted(evidence.deals, key=lambda deal: (deal.time_msc, deal.ticket)):
        by_position[deal.position_id].append(deal)
    held: list[Deal] = []
    for identifier, deals in by_position.items():
        runs = list(accumulate((_moves(deal) for deal in deals), initial=0))
        fitting = [n for n, volume in enumerate(runs) if volume == volumes.get(identifier, 0)]
        begins_here = deals[0].entry == "IN" and any(deal.magic == evidence.magic for deal in deals)
        held += deals[: fitting[-1]] if begins_here and fitting else deals
    return held


def _moves(deal: Deal) -> int:
    return signed_units(deal) if deal.type in ("BUY", "SELL") else 0


def _unresolved(evidence: Evidence) -> list[Discrepancy]:
    return [
        Discrepancy(f"unresolved:{name}", f"the gateway does not know the fate of order {name}")
        for name in sorted(set(evidence.unresolved))
    ]


def _not_settled(found: Discrepancy) -> Discrepancy:
    """A difference at a time when the gateway itself still waits for the broker's books: it does not halt."""
    settled = not found.key.startswith("unresolved:")
    return Discrepancy(f"unresolved:{found.key}", found.detail) if settled else found


def _fresh_deals(local: LocalState, evidence: Evidence) -> list[Deal]:
    seen = {ticket for _, ticket in local.applied_deals}
    floor = _known_from(local)
    unique = {
        deal.ticket: deal
        for deal in evidence.deals
        if deal.ticket not in seen and deal.time_msc >= floor and deal.type in ("BUY", "SELL")
    }
    return sorted(unique.values(), key=lambda deal: (deal.time_msc, deal.ticket))


def _by_record(before: Position | None, deals: list[Deal]) -> tuple[list[Deal], list[Deal]]:
    """Deals that the record's position holds already, and those that move it.

    Terminals show a position before its deals, so the first record may hold what deals tell only later. The
    broker's time of the position's last change tells them apart.
    """
    if before is None:
        return [], deals
    contained = [deal for deal in deals if deal.time_msc <= before.time_update_msc]
    return contained, deals[len(contained) :]


def _by_ticket(
    before: Position | None, after: Position | None, deals: list[Deal]
) -> tuple[list[Deal], list[Deal]]:
    """The same by the order in which the broker numbered them: what its dates tell apart no more when its
    clock was set back. Only where the dates of the position or of the deals say so, or the position is gone.
    """
    numbered = sorted(deals, key=lambda deal: deal.ticket)
    set_back = (
        after is None
        or (before is not None and after.time_update_msc < before.time_update_msc)
        or any(one.time_msc - next_one.time_msc > OVERLAP_MSC for one, next_one in pairwise(numbered))
    )
    if before is None or not set_back:
        return _by_record(before, deals)
    deals = numbered
    change = (signed_units(after) if after is not None else 0) - signed_units(before)
    moved_since = list(accumulate((signed_units(deal) for deal in reversed(deals)), initial=0))
    since = next((count for count, moved in enumerate(moved_since) if moved == change), 0)
    return deals[: len(deals) - since], deals[len(deals) - since :]


def _remember(
    known: tuple[tuple[int, int], ...], applied: Iterable[Deal], shown: Iterable[Deal], known_from_msc: int
) -> tuple[tuple[int, int], ...]:
    """Applied deals under the latest time that they were shown with: a changed date is no new deal."""
    dates = {ticket: time_msc for time_msc, ticket in known}
    dates |= {deal.ticket: max(deal.time_msc, dates.get(deal.ticket, 0)) for deal in applied}
    dates |= {deal.ticket: max(deal.time_msc, dates[deal.ticket]) for deal in shown if deal.ticket in dates}
    return tuple(
        sorted((time_msc, ticket) for ticket, time_msc in dates.items() if time_msc >= known_from_msc)
    )


def _unexplained(
    before: Position | None,
    after: Position | None,
    deals: list[Deal],
    external: Position | None,
    deals_known: bool,
) -> str | None:
    """Why the broker's position does not follow from the record and the deals, or None when it does."""
    if before is not None and after is not None and before.symbol != after.symbol:
        return f"{before.symbol} in the record, {after.symbol} at the broker"
    if after is None and external is not None:
        return f"carries magic {external.magic} now: another program trades {external.symbol} on this account"
    if not deals_known:
        return None
    recorded = signed_units(before) if before is not None else 0
    moved = sum(signed_units(deal) for deal in deals)
    at_broker = signed_units(after) if after is not None else 0
    if recorded + moved == at_broker:
        return None
    return (
        f"record {lots(recorded):g} and deals {lots(moved):g} make {lots(recorded + moved):g} lots, "
        f"but the broker has {lots(at_broker):g}"
    )


def _deal_events(deals: list[Deal], magic: int) -> list[Event]:
    return [
        Event(
            f"deal:{deal.ticket}",
            "fill" if deal.magic == magic else "external_fill",
            f"{lots(signed_units(deal)):+g} {deal.symbol} at {deal.price:g}, position {deal.position_id}",
        )
        for deal in deals
    ]


def _position_events(before: Position | None, after: Position | None, deals: list[Deal]) -> list[Event]:
    last = deals[-1].ticket if deals else 0
    if before is None:
        if after is None:
            return []
        return [Event(f"position-opened:{after.identifier}", "position_opened", _describe(after))]
    if after is None:
        return [Event(f"position-closed:{before.identifier}:{last}", "position_closed", _describe(before))]
    events = []
    if signed_units(before) != signed_units(after):
        name = f"position-changed:{after.identifier}:{last or signed_units(after)}"
        detail = f"{lots(signed_units(before)):+g} to {lots(signed_units(after)):+g} {after.symbol}"
        events.append(Event(name, "position_changed", detail))
    if (before.sl, before.tp) != (after.sl, after.tp):
        name = f"position-stops:{after.identifier}:{after.sl!r}:{after.tp!r}"
        events.append(Event(name, "position_stops", f"sl {after.sl:g} tp {after.tp:g}"))
    return events


def _filled_by_order(deals: Iterable[list[Deal]]) -> dict[int, int]:
    filled: dict[int, int] = defaultdict(int)
    for group in deals:
        for deal in group:
            filled[deal.order] += units(deal.volume)
    return filled


def _compare_orders(
    local: tuple[Order, ...], evidence: Evidence, applied_fills: Mapping[int, int], unapplied: set[int]
) -> tuple[tuple[Order, ...], list[Event], list[Discrepancy]]:
    """Orders of the record against the broker's book; those with unexplained deals stay as known."""
    known = {order.ticket: order for order in local}
    working = {order.ticket: order for order in evidence.orders}
    closed = {order.ticket: order for order in evidence.closed_orders}
    proven_fills = _filled_by_order([list({deal.ticket: deal for deal in evidence.deals}.values())])
    events: list[Event] = []
    problems: list[Discrepancy] = []
    kept: list[Order] = []
    for ticket in sorted(known.keys() | working.keys()):
        before, now = _with_fills(known.get(ticket), applied_fills.get(ticket, 0)), working.get(ticket)
        if ticket in unapplied:
            kept += [before] if before is not None else []
        elif now is not None:
            kept.append(now)
            events += _working_events(known.get(ticket), now)
        elif before is not None:
            recorded = units(before.volume_initial) - units(before.volume_current)
            filled = max(recorded, proven_fills.get(ticket, 0))
            outcome = _ending(before, closed.get(ticket), filled)
            if outcome is None and evidence.deals_known:
                kept.append(before)
                detail = (
                    f"order {ticket} left the book without a trace in the history ({lots(filled):g} filled)"
                )
                problems.append(Discrepancy(f"order:{ticket}", detail))
            else:
                kind = f"order_{outcome or 'gone'}"
                events.append(Event(f"order-ended:{ticket}", kind, f"{lots(filled):g} lots filled"))
    return tuple(kept), events, problems


def _with_fills(before: Order | None, filled: int) -> Order | None:
    """The order as recorded, less what fresh deals have filled: they count once and leave the window."""
    if before is None or filled == 0:
        return before
    left = max(0, units(before.volume_current) - filled)
    return msgspec.structs.replace(before, volume_current=lots(left))


def _working_events(before: Order | None, now: Order) -> list[Event]:
    if before is None:
        detail = f"{now.type} {now.volume_current:g} {now.symbol} at {now.price_open:g}"
        return [Event(f"order-placed:{now.ticket}", "order_placed", detail)]
    if units(before.volume_current) == units(now.volume_current):
        return []
    done = units(now.volume_initial) - units(now.volume_current)
    name = f"order-partly-filled:{now.ticket}:{done}"
    return [Event(name, "order_partly_filled", f"{lots(done):g} lots filled")]


def _ending(before: Order, closed: Order | None, filled: int) -> str | None:
    """How a missing order ended, by evidence only; None when there is none. Filled parts are never lost."""
    if filled >= units(before.volume_initial):
        return "filled"
    if closed is None or units(closed.volume_initial) - units(closed.volume_current) > filled:
        return None  # the history says more was filled than the deals show so far: ask again
    ended = {"CANCELED": "cancelled", "EXPIRED": "expired", "REJECTED": "rejected"}.get(closed.state)
    if ended is None:
        return None
    return f"{ended}_after_partial_fill" if filled else ended


def _external_events(reported: Iterable[int], external: Mapping[int, Position]) -> list[Event]:
    fresh = external.keys() - set(reported)
    return [
        Event(
            f"external:{identifier}",
            "external_position",
            f"{_describe(external[identifier])}, magic {external[identifier].magic}",
        )
        for identifier in sorted(fresh)
    ]


def _describe(position: Position) -> str:
    size = lots(signed_units(position))
    return f"{size:+g} {position.symbol} at {position.price_open:g}, ticket {position.ticket}"
