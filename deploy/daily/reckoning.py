"""Money of a day, reckoned from the broker's deals. Pure, and exact: no amount is rounded before the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from mt5crs.protocol.records import Deal

DAY_MS = 24 * 3600 * 1000
_CENT = Decimal("0.01")
_EPSILON = 1e-8

DEFINITIONS = {
    "day": "Midnight to midnight by the broker's clock.",
    "result": "Profit, swap, commission and fee of the day's trading deals, in the account's currency.",
    "deposits and withdrawals": "All deals of the day that trade nothing: deposits, charges, corrections.",
    "opening and closing balance": "Sum of all deals of the account until then.",
    "trade": "A position that was closed completely on the day. Its result is that of all its deals.",
    "win rate": "Trades with a result above zero, divided by all trades.",
    "profit factor": "Results of winning trades divided by those of losing ones; none if none was lost.",
    "drawdown": "Largest fall of the balance below its highest of the day. Open positions are not in it.",
    "orders": "Submissions in the gateway's journal: what was sent, and what was refused for good. Of the "
    "refused it keeps the newest 10 000 of each magic number.",
    "latency": "Seconds from a strategy's order call to its answer, as Prometheus has them.",
    "alerts": "What fired at a look once a minute; shorter ones may be missing.",
    "expected profit": "Not recorded: orders carry none yet.",
    "equity": "Not recorded: only the balance is drawn.",
}
"""What each figure means; printed in every report."""


@dataclass(frozen=True)
class Trade:
    """A position that was closed completely; its result is that of all its deals."""

    position: int
    symbol: str
    magic: int
    closed_msc: int
    result: Decimal


@dataclass(frozen=True)
class Day:
    """The money of a day."""

    opening: Decimal
    closing: Decimal
    result: Decimal
    deposits: Decimal
    deals: int
    trades: tuple[Trade, ...]
    wins: int
    win_rate: float | None
    profit_factor: float | None
    drawdown: Decimal
    curve: tuple[tuple[int, Decimal], ...]
    """Broker time → balance after each deal; begins with the opening balance."""
    by_symbol: dict[str, Decimal]
    by_hour: dict[int, Decimal]


def bounds(date: str) -> tuple[int, int]:
    """First millisecond of a day YYYYMMDD, and of the next one, by the broker's clock. ValueError."""
    wrong = ValueError(f"{date} is no date such as 20261130")
    if len(date) != 8 or not (date.isascii() and date.isdigit()):
        raise wrong
    try:
        first = datetime(int(date[:4]), int(date[4:6]), int(date[6:]), tzinfo=timezone.utc)
    except ValueError:
        raise wrong from None
    last = first + timedelta(days=1)
    return int(first.timestamp() * 1000), int(last.timestamp() * 1000)


def amount(deal: Deal) -> Decimal:
    """What a deal added to the balance, exactly as the broker wrote it."""
    return sum(
        (Decimal(repr(part)) for part in (deal.profit, deal.swap, deal.commission, deal.fee)), Decimal(0)
    )


def cents(value: Decimal) -> Decimal:
    """Rounded to hundredths."""
    return value.quantize(_CENT)


def balance(deals: Iterable[Deal]) -> Decimal:
    """What all deals of an account add up to."""
    return sum((amount(deal) for deal in deals), Decimal(0))


def reckon(deals: Sequence[Deal], first_msc: int, last_msc: int) -> Day:
    """The day [first, last) of an account. deals: all of the account, from its beginning."""
    ordered = sorted(deals, key=lambda one: (one.time_msc, one.ticket))
    opening = balance(deal for deal in ordered if deal.time_msc < first_msc)
    of_day = [deal for deal in ordered if first_msc <= deal.time_msc < last_msc]
    trading = [deal for deal in of_day if deal.type in ("BUY", "SELL")]
    curve, now, high, drawdown = [(first_msc, opening)], opening, opening, Decimal(0)
    by_symbol: dict[str, Decimal] = defaultdict(Decimal)
    by_hour: dict[int, Decimal] = defaultdict(Decimal)
    for deal in of_day:
        now += amount(deal)
        curve.append((deal.time_msc, now))
        if deal.type in ("BUY", "SELL"):
            by_symbol[deal.symbol] += amount(deal)
            by_hour[(deal.time_msc - first_msc) // 3_600_000] += amount(deal)
            drawdown = max(drawdown, high - now)
        else:
            high += amount(deal)  # a withdrawal is no loss
        high = max(high, now)
    trades = _trades([deal for deal in ordered if deal.time_msc < last_msc], first_msc)
    won = [trade.result for trade in trades if trade.result > 0]
    lost = [trade.result for trade in trades if trade.result < 0]
    return Day(
        opening=opening,
        closing=now,
        result=balance(trading),
        deposits=balance(of_day) - balance(trading),
        deals=len(of_day),
        trades=trades,
        wins=len(won),
        win_rate=len(won) / len(trades) if trades else None,
        profit_factor=float(sum(won) / -sum(lost)) if lost else None,
        drawdown=drawdown,
        curve=tuple(curve),
        by_symbol=dict(sorted(by_symbol.items())),
        by_hour=dict(sorted(by_hour.items())),
    )


def _trades(deals: Sequence[Deal], first_msc: int) -> tuple[Trade, ...]:
    of: dict[int, list[Deal]] = defaultdict(list)
    for deal in deals:
        if deal.position_id and deal.type in ("BUY", "SELL"):
            of[deal.position_id].append(deal)
    found = []
    for position, made in of.items():
        last = made[-1]
        left = sum(deal.volume if deal.type == "BUY" else -deal.volume for deal in made)
        if last.time_msc >= first_msc and abs(left) < _EPSILON:
            opened = next((deal.magic for deal in made if deal.entry == "IN"), last.magic)
            found.append(Trade(position, last.symbol, opened, last.time_msc, balance(made)))
    return tuple(sorted(found, key=lambda trade: (trade.closed_msc, trade.position)))
