"""`python -m tests.bench.bench_hub`: the Hub's service with 40 gateways and 10 000 trades.

One gateway with the simulated broker stands for all: it is listened to under 40 names.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.protocol.replies import OrderResult
from tests.unit.gateway.running import Caller, Running, eventually, running

GATEWAYS, TRADES = 40, 125
PATHS = ("/", "/api/fleet", "/api/trades?last=30", "/api/trades?limit=10000", "/api/alerts/state")


def main() -> None:
    """Start both, measure, print."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        (directory / "gateway").mkdir()
        with running(directory / "gateway", CONNECTIONS_PER_ADDRESS="512") as gateway:
            trader = gateway.client("strategy")
            trader.lease()
            for _ in range(TRADES):
                traded(trader)
            (port,) = free_ports(1)
            hub = subprocess.Popen(
                [sys.executable, "-m", "mt5crs.hub"], env=environment(gateway, port, directory)
            )
            try:
                measure(hub.pid, port, trader)
            finally:
                hub.terminate()
                hub.wait(20)


def environment(gateway: Running, port: int, directory: Path) -> dict[str, str]:
    """Settings of the Hub."""
    names = [f"gtw-{number:02}" for number in range(1, GATEWAYS + 1)]
    return {
        **os.environ,
        "GATEWAYS": json.dumps(dict.fromkeys(names, "127.0.0.1")),
        "GATEWAY_PORTS": json.dumps(dict.fromkeys(names, gateway.port)),
        "GATEWAY_PUB_PORTS": json.dumps(dict.fromkeys(names, gateway.pub_port)),
        "GATEWAY_PUBLIC_KEYS": json.dumps(dict.fromkeys(names, gateway.public)),
        "CLIENT_NAME": "watcher",
        "CLIENT_SECRET_KEY": gateway.secrets["watcher"],
        "HTTP_PORT": str(port),
        "STATE_DIR": str(directory / "hub"),
        "LOG_LEVEL": "ERROR",
    }


def traded(trader: Caller) -> OrderResult:
    """One position opened and closed."""
    opened = trader.order()
    assert isinstance(opened, OrderResult), opened
    trader.close_position(opened.position)
    return opened


def measure(pid: int, port: int, trader: Caller) -> None:
    """Everything, printed line by line."""
    began = time.monotonic()
    eventually(lambda: listened(port) == GATEWAYS, 60)
    print(f"{GATEWAYS} gateways listened to after {time.monotonic() - began:.1f} s")
    print(f"{len(json.loads(got(port, '/api/trades?limit=10000'))['trades'])} trades")
    for path in PATHS:
        times = []
        for _ in range(9):
            began = time.monotonic()
            size = len(got(port, path))
            times.append((time.monotonic() - began) * 1000)
        print(f"{path}: median {median(times):.0f} ms, worst {max(times):.0f} ms, {size} bytes")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as feed:
        feed.sendall(b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        delays = [delay(feed, trader) for _ in range(10)]
        print(f"order to reader: median {median(delays):.2f} s, worst {max(delays):.2f} s")
        used = cpu_s(pid)
        time.sleep(10)
        print(f"processor: {(cpu_s(pid) - used) * 10:.1f} % of a core")
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    print(f"memory: {pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.1f} MB")


def delay(feed: socket.socket, trader: Caller) -> float:
    """Seconds from sending an order until its deal, and a gateway's books, are read from the feed."""
    began = time.monotonic()
    opened = trader.order()
    assert isinstance(opened, OrderResult), opened
    heard = b""
    while b'"order":"%d"' % opened.order not in heard or b"event: gateway" not in heard:
        heard += feed.recv(1 << 20)
    took = time.monotonic() - began
    trader.close_position(opened.position)
    quiet = time.monotonic() + 1.5
    while time.monotonic() < quiet:  # what the closing tells belongs to no measurement
        feed.recv(1 << 20)
    return took


def listened(port: int) -> int:
    """How many gateways the Hub listens to; 0 while it does not answer."""
    try:
        states = json.loads(got(port, "/health"))["gateways"].values()
    except OSError:
        return 0
    return sum(state == "listening" for state in states)


def got(port: int, path: str) -> bytes:
    """Body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    figures = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(figures[11]) + int(figures[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
