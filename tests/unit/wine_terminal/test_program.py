"""Display, server and terminal are started in order, watched, and ended together.

Programs stand in for Wine's and X's. With the real ones: tests/lab/test_wine_terminal.py.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab.handle import wait_until
from mt5crs.broker.windows_programs import programs
from mt5crs.broker.wine import Wine
from mt5crs.service import exits
from mt5crs.service.logs import Log
from mt5crs.wine_terminal import program as subject
from mt5crs.wine_terminal import readiness
from mt5crs.wine_terminal.display import answers, number_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Wine runs on Linux")

PATH = "C:/Terminals/broker/terminal64.exe"
XVFB = """#!{python}
import signal, socket, sys
there = socket.socket(socket.AF_UNIX)
there.bind("\\0/tmp/.X11-unix/X" + sys.argv[1][1:])
there.listen()
signal.pause()
"""
SERVER = "#!/bin/sh\nexec sleep 600\n"
WINE = """#!/bin/bash
echo "$*" >>"$WINEPREFIX/ran"
case $1 in
wineboot.exe) ;;
cmd.exe) exec cat ;;
taskkill.exe)
    for each in /proc/[0-9]*; do
        tr '\\0' '\\n' <$each/environ 2>/dev/null | grep -qx "WINEPREFIX=$WINEPREFIX" || continue
        case $(tr '\\0' ' ' <$each/cmdline) in *terminal64.exe*600*) kill -9 ${each#/proc/} ;; esac
    done ;;
*) exec -a "$1" sleep 600 ;;
esac
"""


class Running:
    """The program on a thread, with what it starts."""

    def __init__(self, directory: Path, display: str, health: tuple[str, int], unanswered_s: float) -> None:
        for name, text in (
            ("Xvfb", XVFB.format(python=sys.executable)),
            ("wineserver64", SERVER),
            ("wine64", WINE),
        ):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        self.prefix = directory / "prefix"
        place = self.prefix / "dosdevices/c:/Terminals/broker"
        place.mkdir(parents=True)
        (place / "terminal64.exe").touch()
        wine = Wine(program=str(directory / "wine64"), python="", prefix=str(self.prefix), display=display)
        self.subject = subject.Terminal(
            subject.Wanted(
                wine=wine,
                path=PATH,
                portable=True,
                health=health,
                unanswered_s=unanswered_s,
                runtime=directory,
                xvfb=str(directory / "Xvfb"),
            ),
            Log("terminal", stream=(directory / "log").open("w", buffering=1)),
        )
        self.status: int | None = None
        self.log = directory / "log"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.status = self.subject.run()

    def terminals(self) -> list[int]:
        """Process numbers of the terminals in its prefix."""
        return [each.pid for each in programs() if each.prefix == str(self.prefix) and each.is_terminal()]

    def ran(self) -> list[str]:
        """What Wine was asked to run, in order."""
        return (self.prefix / "ran").read_text().splitlines()

    def end(self) -> None:
        self.subject.stop()
        self.ended()

    def ended(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def told() -> Iterator[dict[str, Any]]:
    """What the gateway's /health says; `port`: where."""
    content: dict[str, Any] = {"terminal": "connected"}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    content["port"] = server.server_address[1]
    yield content
    server.shutdown()
    server.server_close()


@pytest.fixture
def running(
    tmp_path: Path, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Running]:
    monkeypatch.setattr(subject, "_LOOK_S", 0.05)
    monkeypatch.setattr("mt5crs.wine_terminal.watch._FIRST_PAUSE_S", 0.2)
    display = f":{1000 + os.getpid() % 8000}"
    made = Running(tmp_path, display, ("127.0.0.1", told["port"]), getattr(request, "param", 0.0))
    yield made
    made.end()


def test_they_start_in_order_and_end_together(running: Running) -> None:
    wait_until(lambda: len(running.terminals()) == 1, 20, "the terminal")
    assert readiness.is_held(running.prefix)
    wait_until(lambda: len(running.ran()) == 4, 5, "its start")
    assert running.ran() == [
        "wineboot.exe --init",
        "cmd.exe",
        "taskkill.exe /f /im terminal64.exe",
        "C:\\Terminals\\broker\\terminal64.exe /portable",
    ]
    running.end()
    assert running.status == exits.OK
    assert running.ran()[-1] == "wineboot.exe --end-session"
    assert not running.terminals()
    assert not readiness.is_held(running.prefix)
    assert not answers(running.subject._wanted.wine.display)


def test_one_that_ended_is_started_again_beside_what_runs(running: Running) -> None:
    wait_until(lambda: len(running.terminals()) == 1, 20, "the terminal")
    (first,) = running.terminals()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: running.terminals() not in ([], [first]), 20, "another terminal")
    assert running.ran().count("wineboot.exe --init") == 1


@pytest.mark.parametrize("running", [0.3], indirect=True)
def test_one_that_does_not_answer_is_replaced(running: Running, told: dict[str, Any]) -> None:
    wait_until(lambda: len(running.terminals()) == 1, 20, "the terminal")
    (first,) = running.terminals()
    told["terminal"] = "hung"
    wait_until(lambda: running.terminals() not in ([], [first]), 20, "another terminal")
    assert "has not answered" in running.log.read_text()


@pytest.mark.parametrize("name", ["display", "wineserver", "session"])
def test_when_one_that_all_need_ends_nobody_may_use_the_prefix(running: Running, name: str) -> None:
    wait_until(lambda: len(running.terminals()) == 1, 20, "the terminal")
    running.subject._children[name].kill()
    running.ended()
    assert running.status == exits.FAILED
    assert not running.terminals()
    assert not readiness.is_held(running.prefix)
    assert f'"what":"{name}"' in running.log.read_text()


def test_a_display_of_somebody_else_is_named(tmp_path: Path, told: dict[str, Any]) -> None:
    import socket

    display = f":{9000 + os.getpid() % 900}"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0/tmp/.X11-unix/X{number_of(display)}")
        other.listen()
        made = Running(tmp_path, display, ("127.0.0.1", told["port"]), 0.0)
        made.ended()
    assert made.status == exits.FAILED
    assert f"display {display} has a server already" in made.log.read_text()
    assert not (made.prefix / "ran").exists(), "something was started in the prefix"


def test_the_key_of_a_display_is_its_owners_alone(running: Running, tmp_path: Path) -> None:
    wait_until(lambda: len(running.terminals()) == 1, 20, "the terminal")
    key = tmp_path / "xauthority"
    assert key.stat().st_mode & 0o777 == 0o600
    assert b"MIT-MAGIC-COOKIE-1" in key.read_bytes()
    assert len(key.read_bytes()) == 2 + 2 + 0 + 2 + 4 + 2 + 18 + 2 + 16
