"""A limit that cannot be computed is not kept: the order is refused, and says what is missing."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import pytest

from mt5crs.gateway import risk
from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.counter import Counter
from tests.unit.gateway.test_limits import filled

NO_TICK_VALUE = {"tick_value": "zero"}
NAN_TICK_VALUE = {"tick_value": "nan"}
NO_PRICES = {"no_prices": ["EURUSD"]}


def cannot(reply: OrderResult | Error) -> tuple[str, str]:
    """Field and message of a refusal that a repetition may escape."""
    assert isinstance(reply, Error), reply
    assert (reply.code, reply.final) == ("LIMIT", False)
    assert reply.remedy
    return reply.field, reply.message


@pytest.mark.parametrize("limit", ["max_order_value", "max_position_value"])
@pytest.mark.parametrize(
    ("knobs", "missing"),
    [(NO_TICK_VALUE, "tick_value"), (NAN_TICK_VALUE, "tick_value"), (NO_PRICES, "ask")],
    ids=["tick_value-0", "tick_value-nan", "no-prices"],
)
def test_a_value_limit_holds_when_the_value_is_not_known(
    tmp_path: Path, limit: str, knobs: dict[str, Any], missing: str
) -> None:
    counter = Counter(tmp_path, **{limit: 1000.0})
    counter.showing(**knobs)
    field, message = cannot(counter.order(volume=5.0))
    assert field == limit
    assert f"{missing} of EURUSD is" in message
    assert counter.broker._store.positions() == []


@pytest.mark.parametrize("knobs", [NO_TICK_VALUE, NAN_TICK_VALUE])
def test_what_no_limit_needs_need_not_be_known(tmp_path: Path, knobs: dict[str, Any]) -> None:
    counter = Counter(tmp_path)
    counter.showing(**knobs)
    filled(counter.order())


def test_slippage_is_not_unbounded_without_a_quote(tmp_path: Path) -> None:
    counter = Counter(tmp_path, max_slippage_points=10)
    counter.showing(**NO_PRICES)
    for price in (None, 1.1):
        field, message = cannot(counter.order(price=price))
        assert field == "max_slippage_points"
        assert "no quote" in message
    assert counter.broker._store.positions() == []


@pytest.mark.parametrize("day", [math.nan, None])
def test_the_daily_loss_limit_holds_when_the_days_result_is_not_known(
    tmp_path: Path, day: float | None
) -> None:
    counter = Counter(tmp_path, max_daily_loss=1000.0)
    shown = counter.order_manager._account._results
    results = shown.today
    shown.today = lambda books: (  # type: ignore[method-assign]
        dict.fromkeys(results(books), day) if day is not None else {}
    )
    assert cannot(counter.order())[0] == "max_daily_loss"
    assert counter.order_manager.guards()[0].daily_profit is None


@pytest.mark.parametrize("figure", [math.nan, math.inf])
@pytest.mark.parametrize("bound", [1.0, math.nan])
def test_what_is_no_number_is_within_no_bound(figure: float, bound: float) -> None:
    with pytest.raises(Refusal, match="cannot be checked"):
        risk.require_within("limit", figure, bound, "it", "do not")


def test_limits_are_compared_in_one_place() -> None:
    """`figure > limit` lets through what is no number."""
    tree = ast.parse(Path(risk.__file__).read_text())
    compared = [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Gt | ast.GtE) for op in node.ops)
        and "limits.max_consecutive_failures" not in ast.unparse(node)  # whole numbers, counted here
    ]
    assert compared == []
