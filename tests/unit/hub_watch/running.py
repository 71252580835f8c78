"""The watcher as it runs on a host, with a Hub, a gateway and a receiver that the test plays."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODULES = Path(__file__).resolve().parents[3] / "templates" / "monitoring"
TOKEN = "canary-7f3a"


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


class Receiver:
    """Takes posts. answers: what the next ones are answered (a status, or how many seconds none comes)."""

    def __init__(self, *answers: int | float) -> None:
        self.answers, self.asked = list(answers), 0
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.posts: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked += 1
                receiver.posts.append(({name.lower(): text for name, text in self.headers.items()}, content))
                answer = receiver.answers.pop(0) if receiver.answers else 200
                if isinstance(answer, float):
                    time.sleep(answer)
                    return
                if answer == 200:
                    receiver.headers.append(dict(self.headers))
                    receiver.taken.append(json.loads(content))
                self.send_response(answer)
                if answer == 302:
                    self.send_header("Location", self.path + "&again")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://ops:{TOKEN}@127.0.0.1:{self._server.server_port}/hook?token={TOKEN}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self) -> list[tuple[str, str]]:
        """(alert, status) of all that was taken, in order."""
        return [
            (alert["labels"]["alertname"], alert["status"]) for post in self.taken for alert in post["alerts"]
        ]


class Watcher:
    """`python3 -m hub_watch` here, quick: it looks ten times a second and waits for less than a second."""

    def __init__(self, directory: Path, url: str, gateway: int, silence_s: float, secret: str) -> None:
        self.port = free_port()
        self._environment = {
            "ADDRESS": "127.0.0.1",
            "PORT": str(self.port),
            "HUB": "hub-01",
            "HUB_ADDRESS": "127.0.0.1",
            "WATCHER": "inf-01",
            "ENVIRONMENT": "lab",
            "GATEWAYS": json.dumps([["127.0.0.1", gateway]]),
            "SILENCE_S": str(silence_s),
            "LOOK_S": "0.05",
            "URL": url,
            "SECRET": secret,
            "STATE_DIRECTORY": str(directory),
            "PATH": os.environ["PATH"],
        }
        self._log = directory / "log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-B", "-E", "-s", "-m", "hub_watch"],
                cwd=MODULES,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        until(lambda: self._answers(), lambda: self.log)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)

    def scrape(self, agent: str = "Prometheus/2.42.0") -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/metrics", headers={"User-Agent": agent}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return str(answer.read().decode())

    def sign(self) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/alive", b'{"alerts": []}', 5) as answer:
            return bytes(answer.read())

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@contextlib.contextmanager
def watching(
    directory: Path,
    receiver: Receiver,
    *,
    gateway: int | None = None,
    silence_s: float = 0.3,
    secret: str = "",
) -> Iterator[Watcher]:
    """A watcher whose gateway answers (it refuses: that is an answer), unless it is another one."""
    watcher = Watcher(directory, receiver.url, gateway or free_port(), silence_s, secret)
    try:
        yield watcher
        assert TOKEN not in watcher.log
        assert not [each for each in secret.split() if each in watcher.log]
    finally:
        watcher.process.kill()
        watcher.process.wait(10)
        receiver.close()


def until(holds: Callable[[], object], seen: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait for a condition; what was seen last is told when it does not come."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, seen()
        time.sleep(0.02)


@contextlib.contextmanager
def a_hub(watcher: Watcher) -> Iterator[None]:
    """Prometheus scrapes and Alertmanager sends signs, as long as it lasts."""
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(OSError):
                watcher.scrape()
                watcher.sign()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)
