"""Encoded replies and the waker between the threads."""

import threading

import msgspec

from mt5crs.gateway.frames import ReplyEncoder
from mt5crs.gateway.waker import Waker
from mt5crs.protocol.codec import decode_reply, encode
from mt5crs.protocol.records import Account, Identity, Position
from mt5crs.protocol.replies import Snapshot


def position(identifier: int, price: float = 1.1) -> Position:
    """An open position."""
    return Position(
        identifier=identifier,
        ticket=identifier,
        symbol="EURUSD",
        type="BUY",
        magic=7,
        volume=0.1,
        price_open=1.1,
        price_current=price,
        sl=0.0,
        tp=0.0,
        profit=0.0,
        swap=0.0,
        time_msc=1,
        time_update_msc=1,
        reason=0,
        comment="",
    )


def snapshot(positions: list[Position], request_id: str = "a") -> Snapshot:
    """A snapshot of these positions."""
    return Snapshot(
        v=1,
        id=request_id,
        magic=7,
        whole_account=False,
        stream="s",
        seqs={},
        time_msc=1,
        identity=Identity(
            login=1,
            server="s",
            trade_mode="DEMO",
            margin_mode="HEDGING",
            currency="USD",
            connected=True,
            trade_allowed=True,
        ),
        account=Account(
            balance=1.0,
            equity=1.0,
            profit=0.0,
            margin=0.0,
            margin_free=1.0,
            margin_level=0.0,
            leverage=1,
            currency="USD",
        ),
        positions=positions,
        orders=[],
        deals=[],
        closed_orders=[],
        history_complete=True,
        unresolved=[],
        halts=[],
        digest="d",
    )


def test_a_snapshot_is_the_same_bytes_however_often_its_positions_were_encoded() -> None:
    """Another list, equal or not, is encoded anew; the rest of the reply always is."""
    encoder = ReplyEncoder()
    first, second = [position(1), position(2)], [position(1, price=1.2)]
    for reply in (
        snapshot([]),
        snapshot(first),
        snapshot(first, "b"),
        snapshot(second),
        snapshot(list(first)),
        snapshot(first),
        snapshot([]),
    ):
        frame = encoder(reply)
        assert frame == encode(reply)
        assert decode_reply(frame) == reply
    other = msgspec.structs.replace(snapshot(second), digest="changed")
    assert encoder(other) == encode(other)


def test_a_bell_wakes_and_remembers() -> None:
    """A ring before listening counts, many count once, and without one listening ends by itself."""
    waker = Waker(timeout_s=0.01)
    try:
        assert not waker.wait()
        for _ in range(100_000):  # far more than the system keeps: ringing never blocks
            waker.wake()
        while waker.wait():
            pass
        waker.wake()
        assert waker.wait()
    finally:
        waker.close()


def test_a_bell_wakes_a_thread_that_waits() -> None:
    """Long before its time is up."""
    waker, heard = Waker(timeout_s=30), []
    waiting = threading.Thread(target=lambda: heard.append(waker.wait()), daemon=True)
    try:
        waiting.start()
        waker.wake()
        waiting.join(10)
        assert heard == [True]
    finally:
        waker.close()
