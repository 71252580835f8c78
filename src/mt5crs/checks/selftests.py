# ruff: noqa: PT009, PT027  (unittest on purpose: hosts have no pytest)
"""Unit tests that travel with the product, so that an installed host can be audited without a test runner.

They cover the rules on which safety rests; the full suite lives in the repository.
"""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from mt5crs.client.subscription import Sequence
from mt5crs.protocol.codec import ProtocolError, decode_reply, decode_request, encode
from mt5crs.protocol.digest import state_digest
from mt5crs.protocol.events import HEARTBEAT_TOPIC, Heartbeat, PositionClosedEvent, trade_topic
from mt5crs.protocol.records import Deal, Position
from mt5crs.protocol.requests import Ping
from mt5crs.reconciler.compare import compare, count_strikes, struck_out
from mt5crs.reconciler.model import Evidence
from mt5crs.reconciler.store import Store
from mt5crs.settings.envfile import parse
from mt5crs.settings.schema import SettingsError
from mt5crs.strategy.journal import IntentJournal
from mt5crs.strategy.reference import Leverage, NotReferenceDataError, ReferenceCache

_MAGIC = 202401
_TOPIC = trade_topic(_MAGIC)


def _position(volume: float) -> Position:
    return Position(
        identifier=1,
        ticket=1,
        symbol="EURUSD",
        type="BUY",
        magic=_MAGIC,
        volume=volume,
        price_open=1.1,
        price_current=1.1,
        sl=0.0,
        tp=0.0,
        profit=0.0,
        swap=0.0,
        time_msc=1,
        time_update_msc=1,
        reason=0,
        comment="",
    )


def _deal(volume: float) -> Deal:
    return Deal(
        ticket=10,
        order=11,
        position_id=1,
        symbol="EURUSD",
        type="BUY",
        entry="IN",
        magic=_MAGIC,
        volume=volume,
        price=1.1,
        commission=0.0,
        fee=0.0,
        swap=0.0,
        profit=0.0,
        time_msc=1_000_000,
        reason=0,
        comment="",
    )


def _evidence(volume: float, *deals: Deal) -> Evidence:
    return Evidence(
        login=1,
        magic=_MAGIC,
        time_msc=1_000_000,
        positions=(_position(volume),),
        orders=(),
        deals=deals,
        closed_orders=(),
        external=(),
        unresolved=(),
    )


class ReconcileTests(unittest.TestCase):
    """A position changes by deals only."""

    def test_a_deal_explains_a_change(self) -> None:
        """100 in the record, 150 at the broker, a deal of 50 between."""
        done = compare(compare(None, _evidence(1.0)).state, _evidence(1.5, _deal(0.5)))
        self.assertEqual(done.discrepancies, ())
        self.assertEqual(done.state.positions[0].volume, 1.5)

    def test_nothing_explains_a_change(self) -> None:
        """The same without a deal lasts, and halts at the third sight."""
        found = compare(compare(None, _evidence(1.0)).state, _evidence(1.5)).discrepancies
        strikes: dict[str, int] = {}
        for expected in ([], [], ["position:1"]):
            strikes = count_strikes(strikes, found)
            self.assertEqual(struck_out(strikes), expected)

    def test_comparing_again_is_silent(self) -> None:
        """Same books, no new events."""
        done = compare(compare(None, _evidence(1.0)).state, _evidence(1.5, _deal(0.5)))
        self.assertEqual(compare(done.state, _evidence(1.5, _deal(0.5))).events, ())

    def test_record_survives(self) -> None:
        """Saved and loaded, the state is the same and no event is recorded twice."""
        done = compare(None, _evidence(1.0))
        with tempfile.TemporaryDirectory() as directory:
            store = Store(Path(directory), _MAGIC)
            self.assertEqual(len(store.save(done.state, done.events)), 1)
            self.assertEqual(store.save(done.state, done.events), [])
            self.assertEqual(store.load(), done.state)
            store.close()


class SequenceTests(unittest.TestCase):
    """Missing events are noticed."""

    def test_gap(self) -> None:
        """Event 1, then 3."""
        sequence = Sequence([_TOPIC])
        sequence.reset("s", {_TOPIC: 0})
        for number, missed in ((1, False), (3, True)):
            event = PositionClosedEvent(v=1, stream="s", seq=number, magic=_MAGIC, identifier=1)
            self.assertEqual(sequence.accept(_TOPIC, event) is not None, missed)

    def test_lost_last_event(self) -> None:
        """Only the heartbeat knows of event 2."""
        sequence = Sequence([_TOPIC])
        sequence.reset("s", {_TOPIC: 1})
        beat = Heartbeat(
            v=1, stream="s", seq=9, time_msc=1, interval_ms=1000, state="ready", seqs={_TOPIC: 2}
        )
        self.assertIsNotNone(sequence.accept(HEARTBEAT_TOPIC, beat))


class ProtocolTests(unittest.TestCase):
    """The wire is read strictly."""

    def test_round_trip(self) -> None:
        """A request comes back as it was."""
        ping = Ping(v=1, id="1", client="audit", magic=0)
        self.assertEqual(decode_request(encode(ping)), ping)

    def test_nonsense_is_refused(self) -> None:
        """Bytes that are no message."""
        with self.assertRaises(ProtocolError):
            decode_reply(b'{"status":"OK"}')

    def test_digest_ignores_order_and_quotes(self) -> None:
        """Two snapshots of the same positions have one digest."""
        self.assertEqual(
            state_digest([_position(1.0)], [], _MAGIC), state_digest([_position(1.0)], [], _MAGIC)
        )
        self.assertNotEqual(
            state_digest([_position(1.0)], [], _MAGIC), state_digest([_position(1.1)], [], _MAGIC)
        )


class StrategyTests(unittest.TestCase):
    """Orders are on record before they are sent; caches hold reference data only."""

    def test_intent_is_open_until_settled(self) -> None:
        """An intent without an answer has to be asked for."""
        with tempfile.TemporaryDirectory() as directory:
            journal = IntentJournal(Path(directory))
            journal.open_intent("a", _MAGIC, "OrderSend", {})
            self.assertEqual(journal.unsettled(), ["a"])
            journal.settle("a", "done", "FILLED")
            self.assertEqual(journal.unsettled(), [])
            journal.close()

    def test_cache_refuses_positions(self) -> None:
        """A position is not reference data."""
        cache = ReferenceCache()
        self.assertEqual(cache.get("account", Leverage, lambda: Leverage(100)).value, 100)
        with self.assertRaises(NotReferenceDataError):
            cache.get("x", Position, lambda: _position(1.0))  # type: ignore[type-var]


class SettingsTests(unittest.TestCase):
    """`.env` files mean one thing only."""

    def test_quotes_and_doubles(self) -> None:
        """A value set twice is an error."""
        self.assertEqual(parse("A='1'\nB=2\n"), {"A": "1", "B": "2"})
        with self.assertRaises(SettingsError):
            parse("A=1\nA=2\n")


def run() -> unittest.TestResult:
    """Run them all, silently."""
    cases = (ReconcileTests, SequenceTests, ProtocolTests, StrategyTests, SettingsTests)
    loader = unittest.defaultTestLoader
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
    result = unittest.TestResult()
    suite.run(result)
    return result
