"""Figures of the client side: start-up sync, recovery after kill -9, memory and CPU of the reconciler.

Run: `python -m tests.bench.bench_client [--quick]`. Nothing here is a test; the spread shows the noise
of the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mt5crs.client.published import StateUnavailableError
from mt5crs.local_fleet.phoenix import declare_cut_off
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet, Service, free_ports
from mt5crs.protocol import replies, requests
from tests.bench.figures import Table

TICKS = os.sysconf("SC_CLK_TCK")
LONG_ENOUGH_S = 600


def resident_mb(fleet: Fleet, service: Service) -> float:
    """Resident memory of a service in MB."""
    statm = Path(f"/proc/{fleet.processes[service].pid}/statm").read_text().split()
    return int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(fleet: Fleet, service: Service) -> float:
    """CPU seconds a service has used."""
    fields = Path(f"/proc/{fleet.processes[service].pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def ready_socket(directory: Path) -> Iterator[tuple[str, object]]:
    """A stand-in for systemd's notification socket."""
    import socket

    path = str(directory / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        yield path, listener


def until_ready(fleet: Fleet, listener: object) -> float:
    """Milliseconds from starting the process to READY=1."""
    import socket

    assert isinstance(listener, socket.socket)
    listener.settimeout(10)
    began = time.perf_counter()
    fleet.start("reconciler")
    while b"READY=1" not in listener.recv(4096):
        pass
    return (time.perf_counter() - began) * 1000


def open_positions(fleet: Fleet, count: int) -> None:
    """Trade behind the gateway's back."""
    for _ in range(count):
        fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC)


def wait_ready_and_equal(fleet: Fleet) -> None:
    """The reconciler's digest equals a fresh one of the gateway."""

    def equal() -> bool:
        try:
            state = fleet.state()
        except StateUnavailableError:
            return False
        with fleet.client() as client:
            theirs = client.snapshot(MAGIC, history_since_msc=None).digest
        return state.state == "ready" and state.digest == theirs

    fleet.wait(equal, "equality")


def startup(table: Table, directory: Path, rounds: int) -> None:
    """Process start to READY, first start and with a record, 100 positions."""
    with (
        Fleet(directory, {"gateway": {"SIM_FAULTS": "true"}}) as fleet,
        ready_socket(directory) as (path, listener),
    ):
        fleet.settings["reconciler"]["NOTIFY_SOCKET"] = path
        fleet.start_ready("gateway")
        open_positions(fleet, 100)
        times = []
        for _ in range(rounds):
            times.append(until_ready(fleet, listener))
            fleet.kill("reconciler")
        spread = f"min {min(times):.0f} max {max(times):.0f}, {rounds} starts"
        table.add(
            "reconciler start to READY, 100 positions (median)", statistics.median(times), "ms", 300, spread
        )
        sync = [
            entry["seconds"] * 1000 for entry in fleet.log("reconciler") if entry["event"] == "startup.synced"
        ]
        table.add("of that, the sync itself (median)", statistics.median(sync), "ms", 300)


def recovery(table: Table, directory: Path, rounds: int) -> None:
    """kill -9 to equal state again, by service."""
    busy = {"TICK_INTERVAL_S": 0.05, "STRATEGY_OPTIONS": '{"positions": 4, "hold_s": 0.2}'}
    with Fleet(directory, {"strategy": busy}) as fleet:
        services: tuple[Service, ...] = ("gateway", "reconciler", "strategy")
        for service in services:
            fleet.start_ready(service)
        for service in services:
            times = []
            for _ in range(rounds):
                fleet.wait(lambda: fleet.state().positions, "an open position")
                fleet.kill(service)
                began = time.perf_counter()
                fleet.start(service)
                fleet.wait_healthy(service)
                fleet.wait_healthy("gateway")
                declare_cut_off(fleet)  # what a kill cut off on its way to the broker waits for a person
                wait_ready_and_equal(fleet)
                times.append((time.perf_counter() - began) * 1000)
            spread = f"max {max(times):.0f}, {rounds} kills"
            table.add(
                f"kill -9 {service} to equal state (median)", statistics.median(times), "ms", 2000, spread
            )


def rest(table: Table, directory: Path, seconds: float) -> None:
    """Memory and CPU with 100 positions and nothing going on."""
    with Fleet(directory, {"gateway": {"SIM_FAULTS": "true"}}) as fleet:
        fleet.start_ready("gateway")
        open_positions(fleet, 100)
        fleet.start_ready("reconciler")
        fleet.settings["strategy"]["STRATEGY_OPTIONS"] = '{"hold_s": 86400}'
        fleet.settings["strategy"]["TICK_INTERVAL_S"] = 1
        fleet.start_ready("strategy")
        time.sleep(3)
        services: tuple[Service, ...] = ("reconciler", "strategy")
        before = {service: cpu_s(fleet, service) for service in services}
        time.sleep(seconds)
        for service in services:
            used = (cpu_s(fleet, service) - before[service]) / seconds * 100
            table.add(f"{service} CPU at rest", used, "%", 1, f"over {seconds:g} s")
            table.add(
                f"{service} memory at rest",
                resident_mb(fleet, service),
                "MB",
                40 if service == "reconciler" else None,
            )


def growth(table: Table, directory: Path, messages: int) -> None:
    """Memory of the reconciler while orders rain, each with its events and a sync."""
    gateway = {"SIM_FAULTS": "true", "POLL_INTERVAL_S": 0.02, "HEARTBEAT_INTERVAL_S": 0.05}
    with Fleet(directory, {"gateway": gateway}) as fleet:
        fleet.settings["reconciler"]["RECHECK_INTERVAL_S"] = 0.2
        fleet.start_ready("gateway")
        fleet.start_ready("reconciler")
        client = fleet.client("strategy")
        lease = client.call(
            requests.LeaseAcquire, replies.Lease, magic=MAGIC, instance="bench", ttl_ms=60_000
        )
        renewed, samples = time.monotonic(), [resident_mb(fleet, "reconciler")]
        for number in range(messages):
            if time.monotonic() - renewed > 10:
                renewed = time.monotonic()
                samples.append(resident_mb(fleet, "reconciler"))
                client.call(
                    requests.LeaseRenew,
                    replies.Lease,
                    magic=MAGIC,
                    instance="bench",
                    lease_epoch=lease.epoch,
                    ttl_ms=60_000,
                )
            sent = client.call(
                requests.OrderSend,
                replies.OrderResult,
                magic=MAGIC,
                symbol="EURUSD",
                side="BUY",
                type="MARKET",
                volume=0.01,
                price=None,
                sl=None,
                tp=None,
                max_slippage_points=None,
                filling="IOC",
                expiration_msc=None,
                client_order_id=f"bench-{number}",
                lease_epoch=lease.epoch,
                valid_ms=2000,
            )
            client.call(
                requests.PositionClose,
                replies.OrderResult,
                magic=MAGIC,
                client_order_id=f"bench-close-{number}",
                lease_epoch=lease.epoch,
                valid_ms=2000,
                position=sent.position_ticket,
                volume=None,
                max_slippage_points=None,
            )
        wait_ready_and_equal(fleet)
        client.close()
        half = samples[len(samples) // 2]
        note = f"start {samples[0]:.1f}, half way {half:.1f} MB; {2 * messages} orders"
        table.add(
            "reconciler memory after a rain of orders", resident_mb(fleet, "reconciler"), "MB", 40, note
        )


def messages(table: Table, directory: Path, count: int) -> None:
    """Memory of the reconciler before and after `count` heartbeats on the event socket."""
    import zmq

    from mt5crs.client.gateway import GatewayClient
    from mt5crs.protocol import curve
    from mt5crs.protocol.codec import encode
    from mt5crs.protocol.events import HEARTBEAT_TOPIC, Heartbeat

    with Fleet(directory) as fleet:
        secret = fleet.environment("gateway")["GATEWAY_SECRET_KEY"]
        (port,) = free_ports(1)
        context: curve.Context = zmq.Context()
        publisher = context.socket(zmq.PUB)
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.setsockopt(zmq.CURVE_SERVER, 1)
        publisher.setsockopt(zmq.CURVE_SECRETKEY, curve.hex_to_z85(secret, "key"))
        publisher.setsockopt(zmq.SNDHWM, 0)
        publisher.bind(f"tcp://127.0.0.1:{port}")
        fleet.settings["reconciler"] |= {"GATEWAY_PUB_PORT": port, "SILENCE_TIMEOUT_S": 9}
        fleet.start_ready("gateway")
        client: GatewayClient = fleet.client()
        stream = client.call(requests.Ping, replies.Pong, magic=MAGIC).stream
        client.close()
        fleet.start_ready("reconciler")
        beat = Heartbeat(v=1, stream=stream, seq=1, time_msc=1, interval_ms=1, state="ready", seqs={})
        frames = [HEARTBEAT_TOPIC.encode(), encode(beat)]
        sent, first = 0, 0.0
        while (heard := received(fleet)) < count:
            if sent - heard < 20_000:
                for _ in range(2_000):
                    publisher.send_multipart(frames)
                sent += 2_000
            else:
                time.sleep(0.01)
            if not first and heard > 1000:
                first = resident_mb(fleet, "reconciler")
        note = f"after the first thousand {first:.1f} MB; {received(fleet):.0f} messages heard"
        table.add("reconciler memory after many messages", resident_mb(fleet, "reconciler"), "MB", 40, note)
        publisher.close()
        context.term()


def received(fleet: Fleet) -> float:
    """Messages that the reconciler says it has heard."""
    import urllib.request

    url = f"http://127.0.0.1:{fleet.metrics_ports['reconciler']}/metrics"
    text = urllib.request.urlopen(url, timeout=5).read().decode()
    name = "mt5crs_reconciler_messages_total "
    return next(float(row.split()[1]) for row in text.splitlines() if row.startswith(name))


def trading(table: Table, directory: Path, seconds: float) -> None:
    """Memory of all three services while the strategy trades as fast as it can."""
    busy = {"TICK_INTERVAL_S": 0.02, "STRATEGY_OPTIONS": '{"positions": 4, "hold_s": 0.05}'}
    services: tuple[Service, ...] = ("gateway", "reconciler", "strategy")
    with Fleet(directory, {"strategy": busy}) as fleet:
        for service in services:
            fleet.start_ready(service)
        time.sleep(seconds / 2)  # the first half warms up
        half = {service: resident_mb(fleet, service) for service in services}
        time.sleep(seconds / 2)
        orders = sum(1 for entry in fleet.log("gateway") if entry["event"] == "order")
        for service in services:
            grown = resident_mb(fleet, service) - half[service]
            note = f"at {half[service]:.1f} MB half way; {orders} orders in {seconds:g} s"
            # A minute still fills caches; only the long run can tell growth from warming up.
            bound = 1 if seconds >= LONG_ENOUGH_S else None
            table.add(f"{service} memory growth, second half of trading", grown, "MB", bound, note)


def run(table: Table, *, quick: bool) -> None:
    """All figures of the client side."""
    with tempfile.TemporaryDirectory(prefix="mt5crs-bench-") as name:
        directory = Path(name)
        startup(table, directory / "startup", 5 if quick else 20)
        recovery(table, directory / "recovery", 3 if quick else 10)
        rest(table, directory / "rest", 10 if quick else 60)
        messages(table, directory / "messages", 50_000 if quick else 1_000_000)
        trading(table, directory / "trading", 20 if quick else LONG_ENOUGH_S)
        growth(table, directory / "growth", 400 if quick else 5000)


def main() -> None:
    """Print the figures of the client side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    run(Table(), quick=parser.parse_args().quick)


if __name__ == "__main__":
    main()
