import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt5crs.protocol import document, fields, requests
from mt5crs.protocol.codec import ProtocolError, decode_request, encode
from mt5crs.protocol.digest import state_digest
from mt5crs.protocol.identifiers import COMMENT_ID_LENGTH, comment_id
from mt5crs.protocol.records import Position
from tests.unit.orders import TERMS

GOOD: dict[str, Any] = {
    "kind": "ORDER_SEND",
    "v": 1,
    "id": "r1",
    "client": "c",
    "magic": 1,
    **TERMS,
    "client_order_id": "o1",
    "lease_epoch": 1,
    "valid_ms": 1000,
}


TYPED = ("BAD_MESSAGE", "BAD_FIELD", "BAD_VERSION", "UNKNOWN_KIND", "good")


def verdict(frame: bytes) -> str:
    """Code of the typed error, or "good" for a request of this version; anything else raises."""
    try:
        request = decode_request(frame)
    except ProtocolError as error:
        return error.code
    return "good" if isinstance(request, requests.Request) and request.v == fields.VERSION else "wrong"


def refusal(message: Any) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_request(msgspec.msgpack.encode(message))
    return caught.value


def test_round_trip() -> None:
    request = decode_request(msgspec.msgpack.encode(GOOD))
    assert decode_request(encode(request)) == request


def test_what_older_clients_do_not_know_may_be_left_out_and_is_not_sent_to_older_gateways() -> None:
    plain = decode_request(msgspec.msgpack.encode(GOOD))
    assert isinstance(plain, requests.OrderSend)
    assert plain.expected_profit is None
    assert "expected_profit" not in msgspec.msgpack.decode(encode(plain))
    worth = decode_request(msgspec.msgpack.encode({**GOOD, "expected_profit": 1.5}))
    assert msgspec.msgpack.decode(encode(worth))["expected_profit"] == 1.5
    assert refusal({**GOOD, "expected_profit": float("nan")}).field == "expected_profit"


@pytest.mark.parametrize("key", [key for key in GOOD if key not in ("kind", "v")])
def test_missing_key_is_never_defaulted(key: str) -> None:
    error = refusal({k: v for k, v in GOOD.items() if k != key})
    assert (error.code, error.field) == ("BAD_FIELD", key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("volume", float("nan")),
        ("volume", float("inf")),
        ("volume", -1.0),
        ("volume", 0),
        ("volume", 1e300),
        ("volume", "1"),
        ("price", float("nan")),
        ("price", -1.0),
        ("magic", -1),
        ("magic", 2**64 - 1),
        ("magic", 1.5),
        ("side", "HOLD"),
        ("symbol", ""),
        ("symbol", "EUR\nUSD"),
        ("symbol", "x" * 65),
        ("client_order_id", "x" * 65),
        ("client_order_id", "a b"),
        ("client_order_id", "a\n"),
        ("lease_epoch", 0),
        ("valid_ms", 10**9),
        ("id", None),
    ],
)
def test_bad_value_is_refused_by_field(key: str, value: object) -> None:
    error = refusal({**GOOD, key: value})
    assert (error.code, error.field) == ("BAD_FIELD", key)


def test_unknown_field_version_and_kind() -> None:
    error = refusal({**GOOD, "leverage": 5})
    assert (error.code, error.field, error.request_id) == ("BAD_FIELD", "leverage", "r1")
    assert refusal({**GOOD, "v": 2}).code == "BAD_VERSION"
    assert (
        refusal({"kind": "PING", "v": 3, "id": "x", "client": "c", "magic": 0, "new": 1}).code
        == "BAD_VERSION"
    )
    assert refusal({**GOOD, "kind": "ORDER_SENT"}).code == "UNKNOWN_KIND"
    assert refusal([1, 2]).code == "BAD_MESSAGE"


def test_oversized() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_request(b"x" * (fields.MAX_REQUEST_BYTES + 1))
    assert caught.value.code == "TOO_LARGE"


@settings(max_examples=400)
@given(st.binary(max_size=400))
def test_random_frames_give_typed_errors(frame: bytes) -> None:
    assert verdict(frame) in TYPED


@settings(max_examples=400)
@given(st.data())
def test_mutated_frames_give_typed_errors(data: st.DataObject) -> None:
    frame = bytearray(msgspec.msgpack.encode(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    assert verdict(bytes(frame)) in TYPED


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    with pytest.raises(ProtocolError):
        decode_request(b"\x91" * 60_000)


def test_comment_id_fits_every_broker() -> None:
    names = {comment_id(magic, f"order-{n}") for magic in (1, 2) for n in range(500)}
    assert len(names) == 1000
    assert {len(name) for name in names} == {COMMENT_ID_LENGTH}


def position(**changes: Any) -> Position:
    base: dict[str, Any] = {
        "identifier": 5, "ticket": 5, "symbol": "EURUSD", "type": "BUY", "magic": 1, "volume": 0.1,
        "price_open": 1.1, "price_current": 1.2, "sl": 0.0, "tp": 0.0, "profit": 1.0, "swap": 0.0,
        "time_msc": 1, "time_update_msc": 1, "reason": 3, "comment": "",
    }  # fmt: skip
    return Position(**{**base, **changes})


def test_digest_ignores_the_market_and_other_magics_and_order() -> None:
    one, two = position(), position(identifier=6, ticket=6)
    base = state_digest([one, two], [], 1)
    assert base == state_digest([two, position(price_current=9, profit=-5.0, ticket=77)], [], 1)
    assert base == state_digest([one, two, position(identifier=9, magic=2)], [], 1)
    for change in ({"volume": 0.2}, {"type": "SELL"}, {"sl": 1.0}, {"price_open": 1.10001}):
        assert base != state_digest([position(**change), two], [], 1)
    assert base != state_digest([one], [], 1)
    assert base != state_digest([one, two], [], 2)


def test_documentation_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "protocol.md"
    assert page.read_text() == document.document(), "run `python -m mt5crs.protocol.document`"


def test_import_is_light() -> None:
    code = (
        # What was there before (the interpreter's own, or what measures coverage) is not brought by it.
        "import sys; before = set(sys.modules); import mt5crs.protocol.codec, mt5crs.protocol.digest; "
        "heavy = ('zmq', 'mt5crs.gateway', 'mt5crs.broker', 'sqlite3', 'asyncio'); "
        "print([m for m in heavy if m in sys.modules and m not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
