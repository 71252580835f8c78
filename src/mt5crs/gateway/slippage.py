"""Whether an order was filled worse than its bound allows. Used by the terminal's thread."""

from collections.abc import Callable

from mt5crs.broker.interface import Broker, BrokerError
from mt5crs.protocol import requests as ask
from mt5crs.protocol.replies import OrderResult
from mt5crs.settings.gateway import Limits

from . import risk
from .phases import Phases


class Slippage:
    """Measures it by the price that the submission is recorded with, and tells of it."""

    def __init__(
        self,
        broker: Broker,
        limits: Callable[[], dict[int, Limits]],
        phases: Phases | None,
        note: Callable[..., None],
    ) -> None:
        self._broker = broker
        self._limits = limits
        self._phases = phases
        self._note = note

    def slipped(self, request: ask.OrderSend, answer: OrderResult) -> bool:
        """Whether a market order was filled worse than its bound allows; it counts as a failure then."""
        limits = self._limits().get(request.magic)
        if limits is None or not answer.volume:
            return False
        try:
            spec = self._broker.symbol(request.symbol)
        except BrokerError as error:
            self._note("slippage.unknown", client_order_id=request.client_order_id, error=str(error))
            return False
        points = risk.slipped_points(request, answer.price, spec.point) if spec else None
        if self._phases is not None:
            limits = self._phases.tightened(request.magic, limits)
        bound = risk.slippage_points(request.max_slippage_points, limits)
        if points is None or bound is None or points <= bound + 1e-6:
            return False
        self._note(
            "order.slipped",
            magic=request.magic,
            client_order_id=request.client_order_id,
            points=round(points, 1),
            bound=bound,
        )
        return True
