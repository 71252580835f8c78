"""Return codes of MetaTrader 5's trade server and what each says about the order's fate."""

PLACED = 10008
DONE = 10009
DONE_PARTIAL = 10010
FROZEN = 10029
REQUOTE = 10004

NAMES = {
    REQUOTE: "requote",
    10006: "request rejected",
    10007: "request cancelled by trader",
    PLACED: "order placed",
    DONE: "done",
    DONE_PARTIAL: "done in part",
    10011: "request processing error",
    10012: "request timed out",
    10013: "invalid request",
    10014: "invalid volume",
    10015: "invalid price",
    10016: "invalid stops",
    10017: "trade disabled",
    10018: "market closed",
    10019: "not enough money",
    10020: "prices changed",
    10021: "no quotes",
    10022: "invalid expiration",
    10023: "order state changed",
    10024: "too many requests",
    10025: "no changes",
    10026: "auto-trading disabled by server",
    10027: "auto-trading disabled by terminal",
    10028: "request locked for processing",
    FROZEN: "order or position frozen",
    10030: "invalid filling type",
    10031: "no connection to the trade server",
    10032: "only for live accounts",
    10033: "limit of pending orders reached",
    10034: "volume limit of the symbol reached",
    10035: "invalid order type",
    10036: "position already closed",
    10038: "close volume exceeds position",
    10039: "close order exists already",
    10040: "limit of open positions reached",
    10041: "cancel request rejected",
    10042: "only long positions allowed",
    10043: "only short positions allowed",
    10044: "only closing allowed",
    10045: "only closing by FIFO allowed",
    10046: "opposite positions prohibited",
}

_REFUSED = frozenset({10004, 10006, 10030, *range(10013, 10028), *range(10032, 10047)})


def name(retcode: int) -> str:
    """What a return code means, in words."""
    return NAMES.get(retcode, f"unknown return code {retcode}")


def certainly_not_executed(retcode: int, *, change: bool = False) -> bool:
    """Whether the server refused the request for sure. `change`: it cancels or changes an order, or closes a
    position.

    Such a request is refused for sure by FROZEN too (the order, or a stop, is too near to the market).

    Everything else but DONE (10007, 10008, 10010, 10011, 10012, 10028, 10029, 10031, unknown codes, no
    result at all) may have been executed: the broker's books decide.
    """
    return retcode in _REFUSED or (change and retcode == FROZEN)
