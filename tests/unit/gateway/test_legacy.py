"""The second entry: plain JSON clients, in the shapes they send and expect."""

import contextlib
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt5crs.gateway import legacy_answer, legacy_format
from mt5crs.gateway.access import ClientsFileError, parse
from mt5crs.gateway.legacy_format import CommandOrder, LegacyError, Question, check_signature
from mt5crs.protocol import requests
from mt5crs.protocol.codec import encode
from mt5crs.protocol.replies import Error
from tests.unit.gateway.existing_clients import Door, Plain, heard, needs_addresses, open_message
from tests.unit.gateway.running import Running, eventually

pytestmark = needs_addresses


def test_door_is_shut_by_default(gateway: Running) -> None:
    closed = Plain(gateway, "old", "127.0.0.1", 1)  # type: ignore[arg-type]
    assert closed.ask(b"PING", 600) is None


def test_unlisted_address_gets_nothing(door: Door) -> None:
    assert Plain(door, "nobody", "127.0.3.1", 1).ask(b"PING", 800) is None


def test_reading_shapes(plain: Plain) -> None:
    assert plain.ask(b"PING:EURUSD:123").startswith(b"PONG:")
    opened = plain.ask(open_message())
    assert opened["status"] == "FILLED"
    synced = plain.ask({"action": "SYNC_ALL", "magic_number": plain.magic, "timestamp": 1})
    assert synced["status"] == "OK"
    assert {"balance", "equity", "margin_free", "margin_used", "margin_level", "leverage"} <= set(
        synced["account"]
    )
    (position,) = synced["positions"]
    assert {
        "symbol", "ticket", "volume", "profit", "price_current", "price_open", "type", "time_open",
    } <= set(position)  # fmt: skip
    assert position["ticket"] == opened["ticket"]
    ping = plain.ask({"uuid": "u1", "action": "PING", "timestamp": 1})
    assert (ping["uuid"], ping["status"], ping["ready"]) == ("u1", "ok", True)
    account = plain.ask({"uuid": "u2", "action": "GET_ACCOUNT"})
    assert {"balance", "equity", "margin", "free_margin", "margin_level", "currency"} <= set(account)
    found = plain.ask({"uuid": "u3", "action": "GET_POSITIONS", "symbol": "EURUSD"})
    assert [p["ticket"] for p in found["positions"]] == [opened["ticket"]]
    assert plain.ask({"uuid": "u4", "action": "GET_POSITIONS", "symbol": "XAUUSD"})["positions"] == []
    assert plain.ask({"command": "PING"})["status"] == "ONLINE"
    assert plain.ask({"command": "GET_BALANCE"})["code"] == 200
    held = plain.ask({"command": "GET_POSITION", "symbol": "EURUSD"})
    assert held["position"]["ticket"] == opened["ticket"]


def test_same_uuid_same_answer_and_close(plain: Plain) -> None:
    message = open_message()
    first, second = plain.ask(message), plain.ask(message)
    assert first["status"] == second["status"] == "FILLED"
    assert first["ticket"] == second["ticket"]
    assert len(plain.positions_at_the_broker()) == 1
    closed = plain.ask({"uuid": "c-1", "action": "close", "ticket": first["ticket"]})
    assert (closed["status"], closed["ticket"], closed["volume"]) == ("FILLED", first["ticket"], 0.1)
    assert plain.positions_at_the_broker() == []


@pytest.mark.parametrize("spelt", [str.lower, str.title, str.upper])
def test_words_are_understood_in_any_case(plain: Plain, spelt: Callable[[str], str]) -> None:
    """Action, command, type and side; symbols and names stay as they are written."""
    opened = plain.ask(open_message(action=spelt("OPEN"), type=spelt("SELL")))
    assert opened["status"] == "FILLED", opened
    terms = {
        "symbol": "EURUSD",
        "side": spelt("SELL"),
        "type": spelt("MARKET"),
        "volume": 0.1,
        "timestamp": 1,
    }
    assert plain.ask({"command": spelt("ORDER"), "order": terms})["code"] == 200
    for message in ({"action": spelt("GET_POSITIONS"), "uuid": "u"}, {"action": spelt("SYNC_ALL")}):
        told = plain.ask(message)
        assert [(p["symbol"], p["type"]) for p in told["positions"]] == [("EURUSD", "SELL")] * 2
    assert plain.ask({"action": spelt("GET_POSITIONS"), "uuid": "u", "symbol": "eurusd"}).get("error")


def test_trades_get_the_filling_that_the_symbol_offers(plain: Plain) -> None:
    """Existing clients name none, and a close has none: XAUUSD takes FOK only."""
    opened = plain.ask(open_message(symbol="XAUUSD", price=0, sl=0, tp=0))
    assert opened["status"] == "FILLED", opened
    closed = plain.ask({"uuid": "c-1", "action": "CLOSE", "ticket": opened["ticket"]})
    assert closed["status"] == "FILLED", closed
    terms = {"symbol": "XAUUSD", "side": "BUY", "type": "MARKET", "volume": 0.01, "timestamp": "1"}
    assert plain.ask({"command": "ORDER", "order": terms})["code"] == 200


def test_a_message_repeated_too_late_is_told_what_became_of_it(plain: Plain) -> None:
    """A refusal that only the moment explains would call rejected what was executed."""
    message = open_message(age_s=4.0)
    first = plain.ask(message)
    assert first["status"] == "FILLED"
    stale = {**message, "risk_signature": open_message(age_s=60)["risk_signature"]}
    assert plain.ask(stale)["ticket"] == first["ticket"]
    new = plain.successor()
    eventually(lambda: not isinstance(new.ask(requests.LeaseAcquire, instance="n", ttl_ms=60_000), Error), 20)
    for signature in (message["risk_signature"], open_message()["risk_signature"]):
        again = plain.ask({**message, "risk_signature": signature})
        assert (again["status"], again.get("ticket")) == ("FILLED", first["ticket"])
    assert plain.ask(open_message())["error_code"] == "LEASE_HELD"
    assert len(plain.positions_at_the_broker()) == 1


@pytest.mark.parametrize(
    ("signature", "good"),
    [
        ("RISK_PASS:abc:2024-01-01T00:00:00Z", True),
        ("RISK_PASS:abc:2024-01-01T00:00:00", True),
        ("RISK_PASS:abc:2024-01-01T02:00:05+02:00", True),
        ("RISK_PASS:abc:2023-12-31T23:59:55+00:00", True),
        ("RISK_PASS:abc:2023-12-31T23:59:54.9+00:00", False),
        ("RISK_PASS:abc:2024-01-01T00:00:05.1+00:00", False),
        ("RISK_PASS::2024-01-01T00:00:00Z", False),
        ("RISK_FAIL:abc:2024-01-01T00:00:00Z", False),
        ("RISK_PASS:abc:yesterday", False),
        ("RISK_PASS", False),
    ],
)
def test_a_risk_signature_is_fresh_for_five_seconds(signature: str, good: bool) -> None:
    now = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc).timestamp()
    with contextlib.nullcontext() if good else pytest.raises(LegacyError, match="risk_signature"):
        check_signature(signature, now)


def test_command_order_repeated_is_one_order(plain: Plain) -> None:
    order = {
        "symbol": "EURUSD",
        "side": "BUY",
        "type": "MARKET",
        "volume": 0.1,
        "timestamp": "2024-01-01T00:00:00",
    }
    first, second = (
        plain.ask({"command": "ORDER", "order": order}),
        plain.ask({"command": "ORDER", "order": order}),
    )
    assert first["code"] == 200
    assert first == second
    assert len(plain.positions_at_the_broker()) == 1
    del order["timestamp"]
    assert plain.ask({"command": "ORDER", "order": order})["code"] == 400


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"volume": -1}, "BAD_FIELD"),
        ({"volume": "much"}, "BAD_FIELD"),
        ({"volume": 100.0}, "LIMIT"),
        ({"symbol": "GBPUSD"}, "LIMIT"),
        ({"magic": 999}, "BAD_FIELD"),
        ({"risk_signature": ""}, "BAD_FIELD"),
        ({"age_s": 60}, "BAD_FIELD"),
        ({"ticket": -1}, "BAD_FIELD"),
    ],
)
def test_refused_orders_keep_uuid_code_and_shape_and_leave_no_lease(
    plain: Plain, changes: dict[str, Any], code: str
) -> None:
    message = open_message(**changes)
    answer = plain.ask(message)
    assert (answer["uuid"], answer["status"]) == (message["uuid"], "REJECTED")
    assert answer["error_code"] == answer["error"] == code
    assert answer["error_msg"] == answer["message"]
    assert plain.positions_at_the_broker() == []
    plain.successor().lease()


def test_a_refused_order_does_not_prolong_the_lease_of_the_one_before(plain: Plain) -> None:
    assert plain.ask(open_message())["status"] == "FILLED"
    new = plain.successor()
    first = new.ask(requests.LeaseAcquire, instance="n", ttl_ms=1000)
    plain.ask(open_message(volume=100.0))
    second = new.ask(requests.LeaseAcquire, instance="n", ttl_ms=1000)
    assert (first.code, second.code) == ("LEASE_HELD", "LEASE_HELD")
    assert second.retry_ms <= first.retry_ms


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "no object"),
        (b"null", "no object"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"action": "NOPE"}', "unknown action"),
        (b'{"action": "OPEN", "uuid": "\\ud800"}', "truncated"),
        (b'{"action": "SYNC_ALL", "magic_number": 1}', "is not yours"),
        ([b'{"action": "SYNC_ALL"}', b""], "one frame"),
    ],
)
def test_nonsense_gets_the_error_shape(plain: Plain, text: Any, why: str) -> None:
    answer = plain.ask(text)
    assert answer["status"] == "ERROR"
    assert why in answer["message"].lower()
    assert answer["error"] in ("BAD_FIELD", "BAD_MESSAGE")
    assert not {"account", "positions"} & set(answer), "empty ones would be read as none"


def test_a_key_that_comes_twice_is_refused_with_its_uuid(plain: Plain) -> None:
    text = json.dumps(open_message(uuid="u-twice"))[:-1] + ', "volume": 5.0}'
    answer = plain.ask(text.encode())
    assert (answer["uuid"], answer["status"], answer["error_code"]) == ("u-twice", "REJECTED", "BAD_FIELD")
    assert "`volume`" in answer["message"] or "'volume' comes twice" in answer["message"]
    assert plain.positions_at_the_broker() == []


def test_magic_0_or_none_is_the_clients_only_one(plain: Plain) -> None:
    assert plain.ask(open_message(magic=0))["status"] == "FILLED"
    assert plain.ask(open_message(magic=None))["status"] == "FILLED"
    for message in ({"action": "sync_all", "magic_number": 0}, {"action": "SYNC_ALL"}):
        assert len(plain.ask(message)["positions"]) == 2
    assert [p.magic for p in plain.positions_at_the_broker()] == [plain.magic] * 2


def test_magic_0_of_a_client_with_several_is_refused(door: Door) -> None:
    plain = door.newcomer()
    for magics in ([plain.magic, 1], []):
        door.legacy[plain.name] |= {"permissions": ["observe"], "magics": magics}
        before = door.log().count("clients.loaded")
        door.write_clients()
        eventually(lambda seen=before: door.log().count("clients.loaded") > seen)
        answer = plain.ask({"action": "SYNC_ALL", "magic_number": 0})
        assert answer["status"] == "ERROR"
        assert "name one" in answer["message"]
    refused = plain.ask(open_message(magic=plain.magic))
    assert (refused["status"], refused["error_code"]) == ("REJECTED", "FORBIDDEN")
    assert plain.positions_at_the_broker() == []


def test_working_orders_show_and_can_be_cancelled(plain: Plain) -> None:
    order = {"symbol": "EURUSD", "side": "BUY", "type": "LIMIT", "volume": 0.2, "price": 0.5, "timestamp": 1}
    placed = [
        plain.ask({"command": "ORDER", "order": {**order, "timestamp": number}})["order_id"]
        for number in range(2)
    ]
    synced = plain.ask({"action": "SYNC_ALL"})
    assert sorted(o["ticket"] for o in synced["orders"]) == sorted(placed)
    assert {(o["type"], o["volume"]) for o in synced["orders"]} == {("BUY_LIMIT", 0.2)}
    for message in ({"action": "GET_POSITIONS"}, {"command": "GET_POSITION", "symbol": "EURUSD"}):
        assert len(plain.ask(message)["orders"]) == 2
    first = plain.ask({"uuid": "c-1", "action": "cancel", "ticket": placed[0]})
    assert (first["status"], first["ticket"]) == ("CANCELED", placed[0])
    second = plain.ask({"command": "CANCEL", "order_id": placed[1], "timestamp": 1})
    assert (second["code"], second["order_id"], second["status"]) == (200, placed[1], "CANCELED")
    assert plain.ask({"action": "SYNC_ALL"})["orders"] == []
    again = plain.ask({"uuid": "c-2", "action": "CANCEL", "ticket": placed[0]})
    assert (again["status"], again["error"]) == ("REJECTED", "UNKNOWN_ORDER")


def test_old_and_new_program_cannot_both_write(plain: Plain) -> None:
    new = plain.successor()
    new.lease()
    answer = plain.ask(open_message())
    assert (answer["status"], answer["error_code"]) == ("REJECTED", "LEASE_HELD")
    new.ask(requests.LeaseRelease, instance="run-1", lease_epoch=new.epoch)
    assert plain.ask(open_message())["status"] == "FILLED"
    held = new.ask(requests.LeaseAcquire, instance="run-1", ttl_ms=1000)
    assert isinstance(held, Error)
    assert held.code == "LEASE_HELD"


def test_removed_address_is_shut_out(door: Door) -> None:
    gone = door.newcomer()
    assert gone.ask(b"PING") is not None
    del door.legacy[gone.name]
    door.write_clients()
    eventually(lambda: '"revoked":1' in door.log())
    assert gone.ask(b"PING", 800) is None


def test_quotes_for_each_way_of_subscribing(plain: Plain) -> None:
    """A terminal's expert sends one frame and its clients take everything; others subscribe to a symbol."""
    (one,) = heard(plain, [b""])
    topic, body = heard(plain, [b"EURUSD"])
    assert topic == b"EURUSD"
    for quote in (json.loads(one), json.loads(body)):
        assert (quote["type"], quote["symbol"]) == ("TICK", "EURUSD")
        assert quote["ask"] > quote["bid"] == quote["price"]
        assert quote["time"] == pytest.approx(quote["timestamp"] * 1000)
        assert quote["time"] > 1_500_000_000_000, "milliseconds"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0", "not an address"),
        ("old-inf", "not an address"),
        ("10.0.0.0/24", "not an address"),
        (" 10.0.0.5", "not an address"),
        ("0.0.0.0", "no address of a single host"),  # noqa: S104
        ("255.255.255.255", "no address of a single host"),
        ("224.0.0.1", "no address of a single host"),
        ("ff02::1", "no address of a single host"),
        ("::ffff:10.0.0.5", "write it as 10.0.0.5"),
    ],
)
def test_addresses_of_the_door_are_checked(tmp_path: Path, address: str, why: str) -> None:
    legacy = {"old": {"address": address, "permissions": ["observe"], "magics": []}}
    text = json.dumps({"clients": {}, "limits": {}, "legacy": legacy})
    with pytest.raises(ClientsFileError, match=why):
        parse(text.encode(), "clients.json")


def test_a_clients_file_with_a_name_twice_is_refused() -> None:
    """The last one would win, and the other client be gone without a word."""
    one = b'"old": {"address": "10.0.0.5", "permissions": ["observe"], "magics": []}'
    with pytest.raises(ClientsFileError, match="'old' comes twice"):
        parse(b'{"clients": {}, "limits": {}, "legacy": {%s, %s}}' % (one, one), "clients.json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
_LIKELY = st.sampled_from(
    ["OPEN", "close", "CANCEL", "SYNC_ALL", "GET_POSITIONS", "ORDER", "GET_POSITION", "BUY", "LIMIT", "u-1"]
)
_ORDER = st.dictionaries(st.sampled_from(CommandOrder.__struct_fields__), _JSON | _LIKELY | st.just(0.5))


@given(
    message=st.dictionaries(
        st.sampled_from(Question.__struct_fields__), _JSON | _LIKELY | st.just(1) | _ORDER, max_size=8
    ),
    magics=st.frozensets(st.integers(1, 3), max_size=2),
)
@settings(max_examples=200)
def test_any_object_is_a_request_or_a_refusal_that_can_be_sent(
    message: dict[str, Any], magics: frozenset[int]
) -> None:
    """An exception of another kind would end the gateway."""
    question = None
    try:
        question = legacy_format.parse(json.dumps(message).encode())
        encode(legacy_format.to_request(question, "old", magics))
        legacy_format.check_signature(question.risk_signature, 1_700_000_000.0)
    except LegacyError as error:
        answer = legacy_answer.failure(question or error.question, "BAD_FIELD", str(error), 0.0)
        assert json.loads(msgspec.json.encode(answer))["error"] == "BAD_FIELD"
