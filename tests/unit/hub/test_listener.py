"""A listener without its thread: which events it takes, which it misses, and what it then does."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from mt5crs.client.connection import Peer
from mt5crs.client.errors import GatewaySilentError
from mt5crs.hub.figures import Figures
from mt5crs.hub.listener import Listener, Pace
from mt5crs.hub.store import Store
from mt5crs.protocol.curve import new_keypair
from mt5crs.protocol.events import DealEvent, Heartbeat, trade_topic
from mt5crs.protocol.records import Deal
from mt5crs.service.logs import Log
from tests.unit.hub.test_store import BOUNDS, NOW_MSC, deal
from tests.unit.hub.test_views import MAGIC, SNAPSHOT

TOPIC = trade_topic(MAGIC)
PACE = Pace(recheck_s=60, status_s=60, silence_s=5, sample_s=10, first_history_days=30)


class Books:
    """Answers SYNC_ALL with what the broker has."""

    def __init__(self) -> None:
        self.deals: list[Deal] = []
        self.seqs: dict[str, int] = {}
        self.stream = "s"
        self.silent = False
        self.asked: list[int | None] = []

    def snapshot(self, _magic: int, *, history_since_msc: int | None) -> Any:
        if self.silent:
            raise GatewaySilentError("no answer")
        self.asked.append(history_since_msc)
        deals = self.deals if history_since_msc is not None else []
        return msgspec.structs.replace(
            SNAPSHOT, deals=list(deals), seqs=dict(self.seqs), stream=self.stream, time_msc=NOW_MSC
        )

    def close(self) -> None:
        """Nothing."""


class Heard:
    """The listener, its books and its store, at a time that the test sets."""

    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.books = Books()
        self.store = Store(directory, BOUNDS)
        peer = Peer(
            host="127.0.0.1", port=1, pub_port=2, server_key="", client_name="c", secret_key=new_keypair()[1]
        )
        self.listener = Listener(
            "gtw-01",
            peer,
            PACE,
            self.store,
            Figures(),
            Log("hub", stream=io.StringIO()),
            context=zmq.Context.instance(),
            told=lambda *_: None,
            clock=lambda: self.now,
        )
        self.listener._client = self.books  # type: ignore[assignment]

    def hear(self, seq: int, ticket: int) -> None:
        event = DealEvent(v=1, stream=self.books.stream, seq=seq, deal=deal(ticket))
        self.listener._take([(TOPIC, event)])

    def beat(self, seq: int, stream: str = "s") -> None:
        seqs = {TOPIC: seq}
        event = Heartbeat(v=1, stream=stream, seq=1, time_msc=1, interval_ms=1000, state="ready", seqs=seqs)
        self.listener._take([("heartbeat", event)])

    @property
    def kept(self) -> list[str]:
        found = self.store.trades(since_msc=0, after=0, limit=99, newest=False, gateway=None, magic=None)
        return [trade["ticket"] for trade in found]

    @property
    def gaps(self) -> list[str]:
        return [gap["reason"] for gap in self.store.gaps("gtw-01", 99)]


@pytest.fixture
def heard(tmp_path: Path) -> Heard:
    made = Heard(tmp_path)
    made.listener._sync()
    assert made.listener.known().state == "listening"
    return made


def test_events_in_order_leave_no_gap(heard: Heard) -> None:
    heard.hear(1, 11)
    heard.hear(2, 12)
    heard.beat(2)
    assert (heard.kept, heard.gaps, heard.listener._need) == (["11", "12"], [], None)


def test_a_missing_number_is_noticed_and_read_from_the_books(heard: Heard) -> None:
    heard.hear(1, 11)
    heard.now = 1010.0
    heard.hear(3, 13)  # 2 was lost
    assert heard.listener._need == f"events 2 to 2 of {TOPIC} were lost"
    heard.hear(4, 14)  # the snapshot that is due has it
    heard.books.deals = [deal(each) for each in (11, 12, 13, 14)]
    heard.books.seqs = {TOPIC: 4}
    heard.now = 1011.0
    heard.listener._sync()
    assert sorted(heard.kept) == ["11", "12", "13", "14"]
    assert heard.gaps == [f"events 2 to 2 of {TOPIC} were lost"]
    assert heard.store.gaps("gtw-01", 1)[0]["since"] == 1000.0
    heard.hear(4, 14)
    heard.hear(5, 15)
    assert len(heard.gaps) == 1


def test_a_lost_last_event_is_noticed_by_the_heartbeat_also_of_a_new_magic_number(heard: Heard) -> None:
    heard.beat(1)
    assert heard.listener._need == f"the last events of {TOPIC} were lost"


def test_another_run_of_the_gateway_is_a_gap(heard: Heard) -> None:
    heard.beat(0, stream="other")
    assert str(heard.listener._need).startswith("gateway restarted")


def test_no_answer_is_unknown_and_asked_again(heard: Heard) -> None:
    heard.beat(0)
    assert heard.listener.known().gateway_state == "ready"
    heard.books.silent = True
    heard.listener._sync()
    known = heard.listener.known()
    assert (known.state, known.reason, known.gateway_state) == ("unreachable", "no answer", None)
    heard.now = 1030.0
    heard.books.silent = False
    heard.listener._sync()
    assert heard.listener.known().state == "listening"
    assert heard.gaps == ["no answer"]


def test_only_what_is_new_is_asked_for_and_a_clock_set_back_hides_nothing(heard: Heard) -> None:
    day = 86_400_000
    assert heard.books.asked == [None, NOW_MSC - 30 * day]
    heard.books.deals = [deal(1, time_msc=NOW_MSC - 5_000)]
    heard.listener._sync()
    heard.listener._sync()
    assert heard.books.asked[-1] == NOW_MSC - 5_000 - 600_000
    heard.books.deals = [deal(2, time_msc=NOW_MSC + 5 * day)]
    heard.listener._sync()
    heard.listener._sync()
    assert heard.books.asked[-1] == NOW_MSC - 600_000
