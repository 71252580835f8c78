"""The program itself over real HTTP: a Hub that dies and comes back, receivers that do not take posts."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hub_watch import posting

from .running import TOKEN, Receiver, a_hub, until, watching

SILENT, BACK = ("Mt5crsHubSilent", "firing"), ("Mt5crsHubSilent", "resolved")


def test_a_hub_that_dies_is_told_once_and_once_that_it_is_back(tmp_path: Path) -> None:
    receiver = Receiver()
    with watching(tmp_path, receiver, silence_s=0.5) as watcher:
        with a_hub(watcher):
            until(lambda: "the Hub is well" in watcher.log, lambda: watcher.log)
        until(lambda: receiver.told() == [SILENT], lambda: watcher.log)
        assert 'mt5crs_hub_watch_state{state="silent"} 1' in watcher.scrape("curl")
        with a_hub(watcher):
            until(lambda: BACK in receiver.told(), lambda: watcher.log)
            assert 'mt5crs_hub_watch_posts_total{outcome="accepted"} 2' in watcher.scrape()
    assert receiver.told() == [SILENT, BACK]
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert receiver.headers[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(("lives", "missing"), [("scrape", "no sign of life"), ("sign", "no figures")])
def test_half_a_hub_is_a_silent_one(tmp_path: Path, lives: str, missing: str) -> None:
    receiver = Receiver()
    with watching(tmp_path, receiver) as watcher:
        until(lambda: (getattr(watcher, lives)(), receiver.taken)[1], lambda: watcher.log)
        summary = receiver.taken[0]["alerts"][0]["annotations"]["summary"]
    assert missing in summary
    assert " and " not in summary


def test_without_a_network_of_its_own_it_says_that_it_does_not_know(tmp_path: Path) -> None:
    receiver = Receiver()
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # its queue is full with two: the next connection gets no answer
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with watching(tmp_path, receiver, gateway=full.getsockname()[1]) as watcher:
            until(lambda: receiver.told() == [("Mt5crsHubUnseen", "firing")], lambda: watcher.log)
        for one in waiting:
            one.close()


def test_what_is_not_taken_is_posted_again_until_it_is(tmp_path: Path) -> None:
    receiver = Receiver(500, 302)
    with watching(tmp_path, receiver) as watcher:
        until(lambda: receiver.asked == 1, lambda: watcher.log)
        until(lambda: "mt5crs_hub_watch_untold 1" in watcher.scrape("curl"), lambda: watcher.log)
        until(lambda: receiver.told() == [SILENT], lambda: watcher.log)
        assert "answers 500; again in 2 s" in watcher.log
        assert "redirections are not followed" in watcher.log
        assert "mt5crs_hub_watch_untold 0" in watcher.scrape("curl")
    assert receiver.asked == 3


def test_what_was_told_is_known_after_a_restart(tmp_path: Path) -> None:
    receiver = Receiver()
    with watching(tmp_path, receiver) as watcher:
        until(lambda: receiver.told() == [SILENT], lambda: watcher.log)
        until(lambda: "told that the Hub is silent" in watcher.log, lambda: watcher.log)
        assert watcher.stop() == 0
        watcher.start()
        until(lambda: watcher.log.count("the Hub is silent: ") == 2, lambda: watcher.log)
        with a_hub(watcher):
            until(lambda: BACK in receiver.told(), lambda: watcher.log)
    assert receiver.told() == [SILENT, BACK]


def test_a_damaged_memory_is_said_and_told_anew(tmp_path: Path) -> None:
    (tmp_path / "told.json").write_text('{"verdict": "silent", "began": 1e999, "at": 0}')
    receiver = Receiver()
    with watching(tmp_path, receiver) as watcher:
        assert "cannot be read" in watcher.log
        until(lambda: receiver.told() == [SILENT], lambda: watcher.log)


def test_only_prometheus_counts_and_other_paths_do_not_exist(tmp_path: Path) -> None:
    receiver = Receiver()
    with watching(tmp_path, receiver, silence_s=3600) as watcher:
        assert watcher.sign() == b"ok"
        until(lambda: _silent(watcher.scrape("curl"), "scrape") > 0.2, lambda: watcher.log)
        watcher.scrape()
        assert _silent(watcher.scrape("curl"), "scrape") < 0.2
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{watcher.port}/", timeout=5)
        with socket.create_connection(("127.0.0.1", watcher.port), 5) as raw:
            raw.sendall(b"POST /alive HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 413")
        with socket.create_connection(("127.0.0.1", watcher.port), 5) as raw:
            raw.sendall(b"\xff\r\n\r\n")
            assert raw.recv(100) == b""
        assert watcher.scrape()


def _silent(figures: str, of: str) -> float:
    line = next(
        line
        for line in figures.splitlines()
        if line.startswith(f'mt5crs_hub_watch_silent_seconds{{of="{of}"')
    )
    return float(line.split()[-1])


@pytest.mark.parametrize(
    ("answer", "every_s", "problem"),
    [
        (b"", 0.0, "no HTTP"),
        (b"HTTP/1.1 ", 0.02, "gave no answer within 0.3 s"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 0.0, "no HTTP"),
        (b"x" * 100_000, 0.0, "no HTTP"),
        (b"HTTP/1.1 204 No Content\r\n", 0.0, None),
    ],
)
def test_no_receiver_holds_it_up(answer: bytes, every_s: float, problem: str | None) -> None:
    """Nothing, something else, without end, or one byte after the other."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hook?token={TOKEN}"

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(answer)
                    while every_s:
                        connection.sendall(b"1")
                        time.sleep(every_s)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        found = asyncio.run(posting.post(url, {}, 0.3))
    assert time.monotonic() - began < 2
    assert (found is None) if problem is None else (found is not None and problem in found)
    assert TOKEN not in str(found)


def test_a_receiver_that_is_not_there_is_named_without_its_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = asyncio.run(posting.post(f"http://127.0.0.1:{unused.getsockname()[1]}/{TOKEN}", {}, 5))
    assert found
    assert TOKEN not in found
