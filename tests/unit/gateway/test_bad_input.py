"""Absurd contents through the real socket: a typed error that names the field, a counter, no state change."""

from typing import Any

import msgspec
import pytest

from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.running import MAGIC, Caller, Running

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"volume": -0.1}, "BAD_FIELD", "volume"),
        ({"volume": 0.0}, "BAD_FIELD", "volume"),
        ({"volume": NAN}, "BAD_FIELD", "volume"),
        ({"volume": INFINITY}, "BAD_FIELD", "volume"),
        ({"volume": 1e300}, "BAD_FIELD", "volume"),
        ({"volume": "0.1"}, "BAD_FIELD", "volume"),
        ({"volume": None}, "BAD_FIELD", "volume"),
        ({"price": NAN}, "BAD_FIELD", "price"),
        ({"price": -1.0}, "BAD_FIELD", "price"),
        ({"sl": NAN}, "BAD_FIELD", "sl"),
        ({"tp": INFINITY}, "BAD_FIELD", "tp"),
        ({"max_slippage_points": -1}, "BAD_FIELD", "max_slippage_points"),
        ({"expiration_msc": -1}, "BAD_FIELD", "expiration_msc"),
        ({"lease_epoch": 0}, "BAD_FIELD", "lease_epoch"),
        ({"valid_ms": 10**9}, "BAD_FIELD", "valid_ms"),
        ({"magic": -1}, "BAD_FIELD", "magic"),
        ({"magic": 2**63}, "BAD_FIELD", "magic"),
        ({"symbol": "EURUSD\x00"}, "BAD_FIELD", "symbol"),
        ({"side": "HOLD"}, "BAD_FIELD", "side"),
        ({"client_order_id": "a" * 65}, "BAD_FIELD", "client_order_id"),
        ({"surprise": 1}, "BAD_FIELD", "surprise"),
        ({"v": 2}, "BAD_VERSION", "v"),
        ({"kind": "ORDER_SENT"}, "UNKNOWN_KIND", "kind"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_absurd_field_is_named_and_nothing_happens(
    bad_input: tuple[Running, Caller], changes: dict[str, Any], code: str, field: str
) -> None:
    gateway, trader = bad_input
    counter = f'mt5crs_gateway_refused_total{{reason="{code}"}}'
    before = gateway.metric(counter)
    message = {
        "kind": "ORDER_SEND",
        "v": 1,
        "id": "bad",
        "client": "strategy",
        "magic": MAGIC,
        **trader.terms(),
        **changes,
    }
    reply = trader.raw([msgspec.msgpack.encode(message)])
    assert isinstance(reply, Error)
    assert (reply.code, reply.field, reply.id) == (code, field, "bad")
    assert reply.message
    assert reply.remedy
    assert gateway.metric(counter) == before + 1
    assert (gateway.books("positions"), gateway.books("orders")) == ([], [])


@pytest.mark.parametrize("missing", ["volume", "lease_epoch", "client_order_id", "price", "magic"])
def test_a_missing_key_is_never_defaulted(bad_input: tuple[Running, Caller], missing: str) -> None:
    gateway, trader = bad_input
    message = {"kind": "ORDER_SEND", "v": 1, "id": "bad", "client": "strategy", "magic": MAGIC}
    message |= trader.terms()
    del message[missing]
    reply = trader.raw([msgspec.msgpack.encode(message)])
    assert isinstance(reply, Error)
    assert (reply.code, reply.field) == ("BAD_FIELD", missing)
    assert gateway.books("positions") == []


def test_volume_finer_than_the_symbols_step_is_the_brokers_refusal(
    bad_input: tuple[Running, Caller],
) -> None:
    gateway, trader = bad_input
    reply = trader.order(volume=0.015)
    assert isinstance(reply, OrderResult)
    assert (reply.outcome, reply.retcode) == ("REJECTED", 10014)
    assert gateway.books("positions") == []


@pytest.mark.parametrize(
    "change", [{"volume": 0.2}, {"side": "SELL"}, {"symbol": "XAUUSD"}, {"sl": 0.9}, {"filling": "FOK"}]
)
def test_an_id_with_other_content_is_refused_and_the_first_answer_stays(
    gateway: Running, trader: Caller, change: dict[str, Any]
) -> None:
    first = trader.order(client_order_id="once")
    other = trader.order(client_order_id="once", **change)
    assert isinstance(other, Error)
    assert (other.code, other.field) == ("DUPLICATE_ID", "client_order_id")
    again = trader.order(client_order_id="once")
    assert isinstance(first, OrderResult)
    assert isinstance(again, OrderResult)
    assert (again.order, again.replayed) == (first.order, True)
    assert len(gateway.books("positions")) == 1


def test_an_order_id_cannot_become_a_close(gateway: Running, trader: Caller) -> None:
    first = trader.order(client_order_id="once")
    assert isinstance(first, OrderResult)
    other = trader.close_position(first.position, client_order_id="once")
    assert isinstance(other, Error)
    assert other.code == "DUPLICATE_ID"
    assert len(gateway.books("positions")) == 1


def test_another_magic_is_refused_whatever_the_order(gateway: Running, trader: Caller) -> None:
    reply = trader.ask(requests.OrderSend, **{**trader.terms(), "magic": 202402})
    assert isinstance(reply, Error)
    assert (reply.code, reply.field) == ("FORBIDDEN", "magic")
    assert gateway.books("positions") == []
