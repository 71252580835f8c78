"""The health command of the monitoring part against real HTTP servers."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

READY = Path(__file__).resolve().parents[3] / "templates" / "monitoring" / "ready.py"


@contextmanager
def server(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"x" * 100_000)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/-/ready"
        http.shutdown()


def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def ready(*urls: str, proxy: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(READY), *urls],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"http_proxy": proxy},
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 75), (404, 1), (500, 1)])
def test_one_server(status: int, expected: int) -> None:
    with server(status) as url:
        code, output = ready(url)
    assert code == expected
    assert (url in output) == (expected != 0)


def test_nobody_listens() -> None:
    url = closed_port()
    code, output = ready(url)
    assert code == 1
    assert f"{url} does not answer" in output


def test_unhealthy_counts_more_than_starting() -> None:
    with server(503) as starting, server(200) as good:
        assert ready(good, starting)[0] == 75
        assert ready(good, starting, closed_port())[0] == 1


def test_a_proxy_of_the_environment_is_not_used() -> None:
    with server(200) as url:
        assert ready(url, proxy=closed_port())[0] == 0
