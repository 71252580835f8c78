"""The local socket, the metrics and the durable record of the reconciler."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mt5crs.client.published import PublishedState, StateReader, StateUnavailableError, read_state
from mt5crs.reconciler.compare import compare
from mt5crs.reconciler.model import Event
from mt5crs.reconciler.publisher import Publisher
from mt5crs.reconciler.store import Store
from mt5crs.service.database import BrokenError, UnusableError
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.settings.schema import SettingsError
from tests.unit.reconciler.books import LOGIN, MAGIC, evidence, position


def state(count: int = 1, digest: str = "d") -> PublishedState:
    return PublishedState(
        state="ready",
        reason="",
        login=LOGIN,
        magic=MAGIC,
        digest=digest,
        stream="s",
        seq=1,
        broker_time_msc=1,
        synced_at=1.0,
        external_positions=0,
        unresolved=(),
        positions=tuple(position(n, 0.1) for n in range(1, count + 1)),
        orders=(),
    )


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    made = Publisher(str(tmp_path / "state.sock"), state())
    yield made
    made.close()


def test_a_reader_gets_the_state_at_once_and_every_change(publisher: Publisher, tmp_path: Path) -> None:
    path = str(tmp_path / "state.sock")
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o660
    reader = StateReader(path)
    first = reader.read(2)
    assert first is not None
    assert len(first.positions or ()) == 1
    publisher.publish(state(3, "e"))
    for _ in range(20):
        latest = reader.read(2)
        if latest is not None and latest.digest == "e":
            break
    assert latest is not None
    assert len(latest.positions or ()) == 3
    reader.close()


def test_a_sign_of_life_keeps_the_positions_known(publisher: Publisher, tmp_path: Path) -> None:
    reader = StateReader(str(tmp_path / "state.sock"))
    for _ in range(3):
        latest = reader.read(3)
        assert latest is not None
        assert latest.positions is not None
    reader.close()


def test_ten_thousand_positions_reach_a_reader(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(state(10_000))
    assert len(read_state(str(tmp_path / "state.sock"), 10).positions or ()) == 10_000


def test_a_reader_that_does_not_read_does_not_stop_the_others(publisher: Publisher, tmp_path: Path) -> None:
    path = str(tmp_path / "state.sock")
    stuck = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stuck.connect(path)
    publisher.publish(state(20_000))
    assert len(read_state(path, 10).positions or ()) == 20_000
    stuck.close()


def test_the_end_of_the_reconciler_is_seen(publisher: Publisher, tmp_path: Path) -> None:
    path = str(tmp_path / "state.sock")
    reader = StateReader(path)
    reader.read(2)
    publisher.close()
    with pytest.raises(StateUnavailableError):
        _read_to_the_end(reader)
    with pytest.raises(StateUnavailableError, match="no reconciler"):
        read_state(path)


def _read_to_the_end(reader: StateReader) -> None:
    for _ in range(5):
        reader.read(2)


def test_nonsense_on_the_socket_is_no_state(tmp_path: Path) -> None:
    path = str(tmp_path / "state.sock")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(1)
    reader = StateReader(path)
    peer, _ = server.accept()
    peer.sendall(b'{"state":"ready"}\n')
    with pytest.raises(StateUnavailableError, match="no reconciler state"):
        reader.read(2)
    for each in (peer, server):
        each.close()
    reader.close()


def test_record_and_events_survive_and_repeat_nothing(tmp_path: Path) -> None:
    done = compare(None, evidence([position(1, 0.5)]))
    store = Store(tmp_path, MAGIC)
    assert store.load() is None
    assert [event.id for event in store.save(done.state, done.events)] == ["position-recovered:1"]
    store.close()
    again = Store(tmp_path, MAGIC)
    assert again.load() == done.state
    assert again.save(done.state, done.events) == []
    assert [event.id for event in again.events()] == ["position-recovered:1"]
    again.close()


def test_another_magic_number_has_its_own_record(tmp_path: Path) -> None:
    done = compare(None, evidence([position(1, 0.5)]))
    store = Store(tmp_path, MAGIC)
    store.save(done.state, done.events)
    store.close()
    other = Store(tmp_path, MAGIC + 1)
    assert other.load() is None
    other.close()


def test_an_unusable_directory_names_the_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SettingsError, match="STATE_DIR"):
        Store(blocked, MAGIC)


def test_a_full_disk_and_a_damaged_file_are_named_with_a_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path, MAGIC)
    store._db.execute(f"PRAGMA max_page_count={store._db.execute('PRAGMA page_count').fetchone()[0]}")
    events = [Event(f"e{number}", "note", "x" * 200) for number in range(200)]
    local = compare(None, evidence(positions=[position(1, 0.1)])).state
    with pytest.raises(UnusableError, match=r"reconciler\.db cannot be used .*full.*free space"):
        store.save(local, events)
    store._db.execute("PRAGMA max_page_count=1000000")
    assert len(store.save(local, events)) == 200  # nothing of the attempt was kept
    store._db.execute("UPDATE state SET body = x'00'")
    with pytest.raises(BrokenError, match=r"reconciler\.db is damaged"):
        store.load()
    store.close()


def test_metrics_are_in_the_exposition_format() -> None:
    registry = Registry()
    counter = registry.counter("a_total", "Help.", ("why",))
    counter.inc('quo"te\n')
    registry.gauge("b", "Help.").set(1.5)
    histogram = registry.histogram("c_seconds", "Help.", (), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    text = registry.render()
    assert '\na_total{why="quo\\"te\\n"} 1\n' in text
    assert "\nb 1.5\n" in text
    for part in ('le="0.1"} 2', 'le="1"} 3', 'le="+Inf"} 4', "c_seconds_count 4"):
        assert part in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(ValueError, match="twice"):
        registry.gauge("b", "Help.")
    with pytest.raises(ValueError, match="cannot fall"):
        counter.inc("x", by=-1)


def test_logs_are_json_lines_above_the_level() -> None:
    import io
    import json

    stream = io.StringIO()
    log = Log("x", "WARNING", stream)
    log.info("quiet")
    log.error("loud", number=1, path=Path("/a"))
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["event"], record["number"], record["path"]) == ("ERROR", "loud", 1, "/a")
    with pytest.raises(ValueError, match="unknown"):
        Log("x", "LOUD")
