"""What existing clients are told, made of our own replies, in the dialect of their message. Pure."""

import datetime
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from mt5crs.protocol.records import HaltInfo, Order, Position, Tick
from mt5crs.protocol.replies import AccountState, Error, OrderResult, Reply, Snapshot

from .legacy_format import Question, is_trade, name_of

_WITH_UUID = frozenset({"PING", "GET_ACCOUNT", "GET_POSITIONS", "OPEN", "CLOSE", "CANCEL"})
_MAYBE_EXECUTED = frozenset({"BUSY", "UNRESOLVED", "INTERNAL"})


class _Untold(Exception):  # noqa: N818  (an answer, not a malfunction)
    """A failure found while an answer is made: its code and sentence."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.more = more


def pong(question: Question, now: float, took_s: float, why_not_ready: str) -> dict[str, Any]:
    """Answer to a JSON ping: the gateway is there; `ready` says whether its terminal can be used."""
    told: dict[str, Any] = {"server_time": _iso(now), "ready": not why_not_ready, "reason": why_not_ready}
    if question.command:
        return {**_uuid(question), "status": "ONLINE", **told}
    return {**_uuid(question), "status": "ok", **told, "latency_ms": round(took_s * 1000, 3)}


def failure(question: Question | None, code: str, message: str, now: float) -> dict[str, Any]:
    """Answer to a message that failed, in the dialect of the message. `error` is in every one of them, and a
    list or a sum of money in none: an empty one would be read as "no positions".
    """
    told = {"error": code, "message": message}
    if question is not None and question.command:
        return {**_uuid(question), "code": _command_code(code), **told}
    told |= {"error_code": code, "error_msg": message}
    if question is None or name_of(question) not in _WITH_UUID:
        return {**_uuid(question), "status": "ERROR", **told}
    status = "error"
    if is_trade(question):  # never call rejected what may have been executed
        status = "UNRESOLVED" if code in _MAYBE_EXECUTED else "REJECTED"
    return {**_uuid(question), "status": status, **told, "timestamp": _iso(now)}


def to_answer(
    question: Question,
    reply: Reply,
    magics: frozenset[int],
    unresolved: Sequence[str],
    now: float,
    took_s: float,
) -> dict[str, Any]:
    """Answer to a message that our gateway has replied to. `unresolved`: client order ids of the client's
    magic numbers whose fate is not known.
    """
    try:
        if isinstance(reply, Error):
            raise _Untold(reply.code, f"{reply.message}; {reply.remedy}")
        if isinstance(reply, AccountState):
            return _account(question, reply, now)
        if isinstance(reply, OrderResult):
            return _order(question, reply, now, took_s)
        if not isinstance(reply, Snapshot):
            raise _Untold("INTERNAL", f"unexpected {type(reply).__name__}")
        if question.action == "SYNC_ALL":
            return _synced(question, reply)
        return _positions(question, reply, magics, unresolved, now)
    except _Untold as why:
        return {**failure(question, why.code, str(why), now), **why.more}


def _uuid(question: Question | None) -> dict[str, Any]:
    return {} if question is None or question.uuid is None else {"uuid": question.uuid}


def _account(question: Question, reply: AccountState, now: float) -> dict[str, Any]:
    if not reply.identity.connected:
        raise _Untold(
            "NOT_READY",
            "the terminal is not connected, so its money is of an unknown age; check its connection to the "
            "trade server",
        )
    account = reply.account
    if question.command:
        return {**_uuid(question), "code": 200, "balance": account.balance}
    return {
        **_uuid(question),
        "status": "ok",
        "balance": account.balance,
        "equity": account.equity,
        "margin": account.margin,
        "free_margin": account.margin_free,
        "margin_level": account.margin_level,
        "currency": account.currency,
        "timestamp": _iso(now),
    }


def _synced(question: Question, reply: Snapshot) -> dict[str, Any]:
    account, magic = reply.account, reply.magic
    mine = [p for p in reply.positions if p.magic == magic]
    halts = _in_force(reply.halts, frozenset({magic}))
    answer: dict[str, Any] = {
        **_uuid(question),
        "status": "OK",
        "account": {
            "login": reply.identity.login,
            "server": reply.identity.server,
            "balance": account.balance,
            "equity": account.equity,
            "margin_free": account.margin_free,
            "margin_used": account.margin,
            "margin_level": account.margin_level,
            "leverage": account.leverage,
        },
        "positions": [
            {
                "symbol": p.symbol,
                "ticket": p.ticket,
                "volume": p.volume,
                "profit": p.profit,
                "price_current": p.price_current,
                "price_open": p.price_open,
                "type": p.type,
                "time_open": p.time_msc // 1000,
                "magic": p.magic,
            }
            for p in mine
        ],
        "orders": [_plain_order(o) for o in reply.orders if o.magic == magic],
        "other_positions": len(reply.positions) - len(mine),
        "unresolved": list(reply.unresolved),
        "halts": halts,
        "message": f"{len(mine)} positions of magic {magic}",
    }
    if halts:
        answer |= {"status": "HALTED", "message": f"{answer['message']}; {_halted(halts)}"}
    if reply.unresolved:
        why = _unknown_fate(reply.unresolved)
        answer |= {"status": "UNRESOLVED", "error": "UNRESOLVED", "message": why}
        answer |= {"error_code": "UNRESOLVED", "error_msg": why}
    return _told_or_left_out(answer)


def _positions(
    question: Question, reply: Snapshot, magics: frozenset[int], unresolved: Sequence[str], now: float
) -> dict[str, Any]:
    def ours(item: Position | Order) -> bool:
        return (not magics or item.magic in magics) and question.symbol in (None, item.symbol)

    mine = [p for p in reply.positions if ours(p)]
    beside: dict[str, Any] = {
        "positions": [_plain_position(p) for p in mine],
        "orders": [_plain_order(o) for o in reply.orders if ours(o)],
        "unresolved": list(unresolved),
        "halts": _in_force(reply.halts, magics),
    }
    if unresolved and not mine:
        raise _Untold("UNRESOLVED", _unknown_fate(unresolved), **_told_or_left_out(beside))
    beside = _told_or_left_out(beside)
    if not question.command:
        return {**_uuid(question), "status": "ok", **beside, "timestamp": _iso(now)}
    if len({p.type for p in mine}) > 1:
        raise _Untold(
            "LONG_AND_SHORT",
            f"{len(mine)} positions in {question.symbol}, long and short, are not one; read `positions`",
            **beside,
        )
    return {**_uuid(question), "code": 200, "position": _as_one(mine), **beside}


def _told_or_left_out(answer: dict[str, Any]) -> dict[str, Any]:
    """While something is unresolved no list is sent empty: what is not known is not none."""
    if not answer["unresolved"]:
        return answer
    return {key: value for key, value in answer.items() if value or key not in ("positions", "orders")}


def _as_one(mine: list[Position]) -> dict[str, Any]:
    """Positions of one symbol and side as one: ticket of the oldest, volume and profit together, opened at
    the average price.
    """
    if not mine:
        return {}
    oldest = min(mine, key=lambda p: (p.time_msc, p.ticket))
    volume = math.fsum(p.volume for p in mine)
    return {
        **_plain_position(oldest),
        "volume": round(volume, 8),
        "open_price": round(math.fsum(p.price_open * p.volume for p in mine) / volume, 8),
        "profit": round(math.fsum(p.profit for p in mine), 8),
    }


def _plain_position(p: Position) -> dict[str, Any]:
    return {
        "ticket": p.ticket,
        "symbol": p.symbol,
        "type": p.type,
        "volume": p.volume,
        "open_price": p.price_open,
        "current_price": p.price_current,
        "profit": p.profit,
        "magic": p.magic,
    }


def _plain_order(o: Order) -> dict[str, Any]:
    """A working order; `volume` is what is not yet filled."""
    return {
        "ticket": o.ticket,
        "symbol": o.symbol,
        "type": o.type,
        "volume": o.volume_current,
        "volume_initial": o.volume_initial,
        "price_open": o.price_open,
        "sl": o.sl,
        "tp": o.tp,
        "time_setup": o.time_setup_msc // 1000,
        "magic": o.magic,
    }


def _in_force(halts: Sequence[HaltInfo], magics: frozenset[int]) -> list[dict[str, Any]]:
    """The halts that concern these magic numbers (none: any); magic 0 is the fleet's."""
    return [
        {"magic": halt.magic, "reason": halt.reason, "client": halt.client}
        for halt in halts
        if not magics or halt.magic in (0, *magics)
    ]


def _halted(halts: list[dict[str, Any]]) -> str:
    return "; ".join(f"order flow is halted by {halt['client']}: {halt['reason']}" for halt in halts)


def _unknown_fate(unresolved: Sequence[str]) -> str:
    shown = ", ".join(unresolved[:3]) + (" and others" if len(unresolved) > 3 else "")
    return (
        f"the fate of {shown} is not known, so there may be positions that do not show yet; ask again, or "
        "look at the broker and declare it (`mt5crs resolve`)"
    )


def _order(question: Question, reply: OrderResult, now: float, took_s: float) -> dict[str, Any]:
    if reply.outcome not in ("FILLED", "PARTIAL", "PLACED", "CANCELED"):
        _not_done(reply)
    about: dict[str, Any] = {"volume": reply.volume, "partial": reply.outcome == "PARTIAL"}
    if reply.volume_requested:  # a CLOSE of all of it names none
        about["volume_requested"] = reply.volume_requested
    if question.command:
        status = {"status": reply.outcome}
        return {**_uuid(question), "code": 200, "order_id": reply.order, **status, **about}
    answer = {
        **_uuid(question),
        # What is filled in part is filled: these clients take any other word for "nothing was executed".
        "status": "FILLED" if reply.outcome == "PARTIAL" else reply.outcome,
        "ticket": reply.position_ticket or reply.order,
        "execution_time": _iso(now),
        "latency_ms": round(took_s * 1000, 3),
    }
    if question.action == "CANCEL":
        return {**answer, "ticket": reply.order}
    if question.action == "CLOSE":
        return {**answer, "ticket": question.ticket, "close_price": reply.price, **about}
    return {**answer, "symbol": question.symbol, "price": reply.price, **about}


def _not_done(reply: OrderResult) -> NoReturn:
    code = reply.outcome if reply.outcome in ("UNRESOLVED", "DRY_RUN") else str(reply.retcode)
    raise _Untold(code, f"{reply.outcome}: {reply.message}")


def quote(tick: Tick) -> dict[str, Any]:
    """A quote with every key that subscribers read: `time` in milliseconds and `timestamp` in seconds, both
    of the broker's clock; `price` is the bid, as in a terminal's chart.
    """
    return {
        "type": "TICK",
        "symbol": tick.symbol,
        "bid": tick.bid,
        "ask": tick.ask,
        "price": tick.bid,
        "time": tick.time_msc,
        "timestamp": tick.time_msc / 1000,
    }


def _command_code(code: str) -> int:
    if code in ("BUSY", "UNRESOLVED"):
        return 504
    return 500 if code in ("INTERNAL", "BROKER", "NOT_READY", "LONG_AND_SHORT") else 400


def _iso(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).isoformat(timespec="milliseconds")
