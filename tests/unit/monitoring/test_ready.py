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
def server(status: int, text: str = "") -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode() + b"x" * 100_000)

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


@pytest.mark.parametrize(
    ("status", "in_force", "expected", "said"),
    [
        (200, "a", 0, ""),
        (200, "b", 1, "has other rules in force than"),
        (503, "a", 75, "answers 503"),
        (500, "a", 1, "answers 500"),
    ],
)
def test_prometheus_says_which_rules_it_has_read(
    tmp_path: Path, status: int, in_force: str, expected: int, said: str
) -> None:
    file = tmp_path / "alerts.yml"
    file.write_text(f"groups:\n        labels: {{digest: {'a' * 64}}}\n")
    with server(status, in_force * 64) as url, server(200) as good:
        code, output = ready("--rules", str(file), url.removesuffix("/-/ready"), good)
    assert (code, said in output) == (expected, True), output


def test_rules_without_a_digest_are_not_called_in_force(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yml"
    assert ready("--rules", str(file), closed_port())[0] == 1
    file.write_text("groups: []\n")
    code, output = ready("--rules", str(file), closed_port())
    assert (code, "does not say which rules it has" in output) == (1, True)
