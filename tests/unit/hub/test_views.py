"""What is shown of a gateway: what is not known is null, never nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mt5crs.hub import views
from mt5crs.hub.listener import Known
from mt5crs.hub.picture import Picture
from mt5crs.hub.told import Told
from mt5crs.hub.views import Trader
from mt5crs.hub.watch import Seen
from mt5crs.protocol.events import OrderEvent, PositionClosedEvent
from mt5crs.protocol.records import GuardInfo, HaltInfo, Identity, Order, Position
from mt5crs.protocol.replies import PhaseState, Snapshot, StatusState
from mt5crs.settings.gateway import Limits
from tests.unit.hub.test_store import MONEY

MAGIC = 202401
IDENTITY = Identity(
    login=7,
    server="s",
    trade_mode="DEMO",
    margin_mode="HEDGING",
    currency="USD",
    connected=True,
    trade_allowed=True,
)
POSITION = Position(
    identifier=2**63,
    ticket=5,
    symbol="EURUSD",
    type="BUY",
    magic=MAGIC,
    volume=0.25,
    price_open=1.1,
    price_current=float("nan"),
    sl=0.0,
    tp=0.0,
    profit=-3.0,
    swap=0.0,
    time_msc=1,
    time_update_msc=1,
    reason=0,
    comment="<b>",
)
ORDER = Order(
    ticket=9,
    symbol="EURUSD",
    type="BUY_LIMIT",
    state="PLACED",
    magic=MAGIC,
    position_id=0,
    volume_initial=0.1,
    volume_current=0.1,
    price_open=1.0,
    sl=0.0,
    tp=0.0,
    time_setup_msc=1,
    time_done_msc=0,
    expiration_msc=0,
    reason=0,
    comment="",
)
SNAPSHOT = Snapshot(
    v=1,
    id="1",
    magic=0,
    whole_account=True,
    stream="s",
    seqs={},
    time_msc=86_400_000 * 20_000 + 5,
    identity=IDENTITY,
    account=MONEY,
    positions=[POSITION],
    orders=[ORDER],
    deals=[],
    closed_orders=[],
    history_complete=True,
    unresolved=[],
    halts=[HaltInfo(magic=0, reason="news", client="ops", since_msc=3)],
    digest="",
)
PHASE = PhaseState(
    v=1,
    id="1",
    magic=MAGIC,
    account="7@s",
    enforced=True,
    profile="live_safe_atomic_v1",
    phase=1,
    trading="ACTIVE",
    why="promoted",
    serial=2,
    expires_in_ms=60_000,
    obstacle="",
    facts=[],
    acts=[],
)
GUARD = GuardInfo(
    magic=MAGIC, dry_run=False, unresolved=["a"], consecutive_failures=2, breaker_open=True, daily_profit=-1.5
)
LIMITS = Limits(
    dry_run=False, symbols=["EURUSD"], max_order_volume=0.1, max_position_volume=1.0, max_daily_loss=500.0
)


def known(**changes: Any) -> Known:
    status = StatusState(
        v=1,
        id="1",
        version="0.1.0",
        protocol_min=1,
        protocol_max=1,
        stream="s",
        uptime_ms=5000,
        state="ready",
        reason="",
        identity=IDENTITY,
        queue_length=0,
        queue_limit=9,
        leases=[],
        halts=[],
        guards=[GUARD],
    )
    made = Known(
        state="listening",
        reason="",
        since=0.0,
        heard_at=99.0,
        synced_at=90.0,
        gateway_state="ready",
        stream="s",
        picture=Picture(SNAPSHOT, 90.0),
        status=status,
        status_at=95.0,
        phases={MAGIC: PHASE},
    )
    return msgspec.structs.replace(made, **changes)


def shown(of: Known) -> dict[str, Any]:
    return views.gateway(
        "gtw-01",
        of,
        {MAGIC: Trader("inf-01", LIMITS)},
        now=100.0,
        today=(1.0, 2),
        today_from_msc=0,
        gaps=[],
        first_heard=1.0,
        history_from_msc=0,
    )


def gauges(view: dict[str, Any]) -> dict[str, tuple[float | None, float]]:
    return {each["name"]: (each["used"], each["most"]) for each in view["magics"][0]["gauges"]}


def test_what_is_known_is_shown_with_the_limits_that_it_uses() -> None:
    view = shown(known())
    assert (view["listener"]["event_age_s"], view["account"]["age_s"], view["up_s"]) == (1.0, 10.0, 5.0)
    assert view["halts"] == [
        {"magic": "0", "reason": "news", "client": "ops", "since_msc": 3, "scope": "fleet"}
    ]
    (position,) = view["positions"]
    assert (position["identifier"], position["price_current"]) == (str(2**63), None)
    magic = view["magics"][0]
    assert (magic["host"], magic["breaker_open"], magic["unresolved"]) == ("inf-01", True, ["a"])
    assert (magic["phase"]["title"], magic["phase"]["expires_in_s"]) == ("micro", 60.0)
    assert gauges(view) == {
        "open volume, lots": (0.25, 1.0),
        "loss of the day": (1.5, 500.0),
        "loss of the day, phase": (1.5, 3.0),
        "failures in a row, phase": (2, 3),
        "margin, phase (USD)": (None, 20.0),
    }


def test_a_gateway_that_is_not_heard_keeps_its_books_and_nothing_of_now() -> None:
    view = shown(known(state="silent", gateway_state=None, status=None, phases={}))
    assert (view["current"], view["state"], view["halts"], view["version"]) == (False, None, None, None)
    assert len(view["positions"]) == 1
    assert view["magics"][0]["phase"] is None
    assert gauges(view) == {"open volume, lots": (None, 1.0), "loss of the day": (None, 500.0)}


def test_of_a_gateway_that_was_never_heard_nothing_is_known() -> None:
    nothing = {"heard_at": None, "synced_at": None, "picture": None, "status": None, "phases": {}}
    view = shown(known(state="unreachable", gateway_state=None, **nothing))
    for name in ("positions", "positions_in_all", "orders", "account", "halts", "state", "read_age_s"):
        assert view[name] is None, name
    assert view["listener"]["event_age_s"] is None


def test_money_of_another_currency_is_not_held_against_a_phase() -> None:
    euros = msgspec.structs.replace(SNAPSHOT, account=msgspec.structs.replace(MONEY, currency="EUR"))
    view = shown(known(picture=Picture(euros, 90.0)))
    assert gauges(view)["loss of the day, phase"] == (None, 3.0)


def test_a_profile_of_another_release_has_no_limits_here() -> None:
    view = shown(known(phases={MAGIC: msgspec.structs.replace(PHASE, profile="live_other_v9")}))
    assert view["magics"][0]["phase"]["limits"] is None


@pytest.mark.parametrize("state", ["CANCELED", "FILLED", "REJECTED", "EXPIRED"])
def test_events_change_the_picture(state: Any) -> None:
    picture = Picture(SNAPSHOT, 90.0)
    ended = msgspec.structs.replace(ORDER, state=state)
    picture.take(OrderEvent(v=1, stream="s", seq=1, order=ended), 91.0)
    picture.take(PositionClosedEvent(v=1, stream="s", seq=2, magic=MAGIC, identifier=2**63), 91.0)
    assert (picture.orders, picture.positions) == ({}, {})
    partly = msgspec.structs.replace(ORDER, state="PARTIAL", volume_current=0.05)
    picture.take(OrderEvent(v=1, stream="s", seq=3, order=partly), 92.0)
    assert picture.orders[9].volume_current == 0.05


def test_a_long_list_is_cut_and_counted() -> None:
    many = [msgspec.structs.replace(POSITION, identifier=n) for n in range(views.MOST_ROWS + 5)]
    view = shown(known(picture=Picture(msgspec.structs.replace(SNAPSHOT, positions=many), 90.0)))
    assert (len(view["positions"]), view["positions_in_all"]) == (views.MOST_ROWS, views.MOST_ROWS + 5)


def test_deployments_are_told_from_the_file_and_what_is_not_known_is_said(tmp_path: Path) -> None:
    path = tmp_path / "deployments.json"
    told = Told(path, "deployments", "none was recorded")
    assert (told.now()["known"], told.now()["deployments"]) == (False, None)
    path.write_text(json.dumps({"deployments": [{"id": "one", "sentence": "\x1b[2J"}]}))
    assert told.now()["deployments"] == [{"id": "one", "sentence": "\\x1b[2J"}]
    path.write_text("{")
    assert "the next one writes it anew" in told.now()["reason"]
    path.write_text(json.dumps({"deployments": []}))
    assert told.now() == {"known": True, "reason": "", "deployments": []}


def test_a_backup_that_prometheus_never_heard_of_is_not_known() -> None:
    assert views.backups(Seen())["known"] is False
    assert views.backups(Seen(reason="", backups={"taken": 5.0})) == {
        "known": True,
        "reason": "",
        "taken": 5.0,
        "proven": None,
    }
