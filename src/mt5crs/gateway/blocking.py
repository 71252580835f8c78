"""What may not be sent while the fate of another submission is not known. Used by the terminal's thread."""

from mt5crs.broker.interface import Books
from mt5crs.protocol import requests as ask

from .preparation import Preparation
from .refusal import Refusal
from .resolution import Resolution
from .unresolved import Unresolved


class Blocking:
    """Looks once more before it refuses: the books may show by now what became of the other one."""

    def __init__(self, unresolved: Unresolved, resolution: Resolution, preparation: Preparation) -> None:
        self._unresolved = unresolved
        self._resolution = resolution
        self._preparation = preparation

    def require_settled(self, request: ask.Submission) -> None:
        """A magic number with an unresolved submission may only cancel: that cannot double anything."""
        waiting = self._unresolved.of(request.magic)
        if waiting and not isinstance(request, ask.OrderCancel):
            self._resolution.resolve_all()
            waiting = self._unresolved.of(request.magic)
        if waiting and not isinstance(request, ask.OrderCancel):
            raise Refusal(
                "UNRESOLVED",
                "magic",
                f"the fate of {', '.join(waiting[:3])} is not known; magic {request.magic} is blocked",
                "wait until the broker's books show it, or look there and declare it (ORDER_RESOLVE)",
                final=True,
            )

    def require_unrelated(self, request: ask.PositionClose, books: Books) -> None:
        """An operator may close while an order is unresolved, but for what that order may change: the same
        position, and on a netting account whatever has the same symbol. Raises Refusal UNRESOLVED.
        """
        if not self._unresolved.of(request.magic):
            return
        self._resolution.resolve_all()
        target = self._preparation.target(request, books)
        netting = books.identity.margin_mode != "HEDGING"
        for entry in self._unresolved.entries():
            other = entry.request
            if isinstance(other, ask.PositionClose):
                closed = next(
                    (p for p in books.positions if other.position in (p.identifier, p.ticket)), None
                )
                related = closed is None or closed is target or (netting and closed.symbol == target.symbol)
            else:
                related = netting and isinstance(other, ask.OrderSend) and other.symbol == target.symbol
            if related and other.magic == request.magic:
                raise Refusal(
                    "UNRESOLVED",
                    "position",
                    f"the fate of {other.client_order_id} is not known; it may change this position",
                    "wait until the broker's books show it, or look there and declare it (ORDER_RESOLVE)",
                    final=True,
                )
