"""`mt5crs standby` and the standing-by strategy, with real processes and a strategy that trades."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mt5crs.local_fleet.rehearsal import MAGIC, Fleet, Service, free_ports
from mt5crs.protocol.replies import StatusState
from mt5crs.protocol.requests import Status
from tests.unit.reconciler.conftest import fleet

__all__ = ["fleet"]

LOSSY = """
import sys, msgspec
from mt5crs.protocol.digest import state_digest
from mt5crs.reconciler import __main__, service
honest = service.Reconciler._view
def lossy(self, state, reason):
    view = honest(self, state, reason)
    kept = (view.positions or ())[1:]
    return msgspec.structs.replace(view, positions=kept, digest=state_digest(kept, view.orders, view.magic))
service.Reconciler._view = lossy
sys.exit(__main__.main())
"""
"""A release that loses the first position from what it publishes."""


@contextmanager
def standing_by(fleet: Fleet, service: Service, *program: str, **changes: object) -> Iterator[int]:
    """Another process of a service with its own record, socket and port, as the standby unit starts it."""
    port = free_ports(1)[0]
    environment = fleet.environment(service) | {
        "METRICS_PORT": str(port),
        "STATE_DIR": str(fleet.directory / "standby"),
    }
    if service == "reconciler":
        environment["RECONCILER_SOCKET"] = str(fleet.directory / "standby.sock")
    environment |= {name: str(value) for name, value in changes.items()}
    process = subprocess.Popen(
        [sys.executable, *program], env=environment, stdin=subprocess.DEVNULL, cwd=fleet.directory
    )
    try:
        yield port
        assert process.poll() is None, "it ended by itself"
    finally:
        process.kill()
        process.wait(10)


def ask(service: str, running: str, candidate: str, timeout_s: int = 15) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "mt5crs", "standby", service, "--timeout", str(timeout_s)]
    command += ["--running", running, "--candidate", candidate]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


def trading(fleet: Fleet) -> None:
    fleet.settings["strategy"] = {
        "TICK_INTERVAL_S": 0.1,
        "STRATEGY_OPTIONS": '{"positions": 3, "hold_s": 0.2}',
    }
    for service in ("gateway", "reconciler", "strategy"):
        fleet.start_ready(service)
    fleet.wait(lambda: len(fleet.state().positions or ()) > 1, "open positions")


def test_reconcilers_are_compared_while_the_strategy_trades(fleet: Fleet) -> None:
    trading(fleet)
    candidate = str(fleet.directory / "standby.sock")
    with standing_by(fleet, "reconciler", "-m", "mt5crs.reconciler"):
        before = fleet.state().seq
        status, answer = ask("reconciler", fleet.socket_path, candidate)
        assert (status, answer["equal"]) == (0, True), answer
        assert answer["digest_running"] == answer["digest_standby"] != ""
        fleet.wait(lambda: fleet.state().seq > before, "trades meanwhile")
    with standing_by(fleet, "reconciler", "-c", LOSSY):
        status, answer = ask("reconciler", fleet.socket_path, candidate)
    assert (status, answer["equal"]) == (1, False), answer
    assert answer["digest_running"] != answer["digest_standby"]
    assert any("is held by the running one only" in line for line in answer["differences"]), answer
    status, answer = ask("reconciler", fleet.socket_path, candidate, timeout_s=1)
    assert (status, answer["equal"]) == (75, None)
    assert "the standby one has said nothing" in answer["reason"]


def test_a_strategy_that_stands_by_sees_the_same_and_touches_nothing(fleet: Fleet) -> None:
    trading(fleet)
    with fleet.client() as client:
        epoch = client.call(Status, StatusState, magic=MAGIC).leases[0].epoch
    running = f"127.0.0.1:{fleet.metrics_ports['strategy']}"
    with standing_by(fleet, "strategy", "-m", "mt5crs.strategy.standby") as port:
        status, answer = ask("strategy", running, f"127.0.0.1:{port}")
        assert (status, answer["equal"]) == (0, True), answer
    with standing_by(fleet, "strategy", "-m", "mt5crs.strategy.standby", MAGIC_NUMBER=MAGIC + 1) as port:
        status, answer = ask("strategy", running, f"127.0.0.1:{port}")
        assert status == 1, answer
        assert answer["differences"] == [
            f"magic number: the running one has {MAGIC}, the standby one {MAGIC + 1}"
        ]
    with fleet.client() as client:
        leases = client.call(Status, StatusState, magic=MAGIC).leases
    assert [(lease.magic, lease.epoch) for lease in leases] == [(MAGIC, epoch)], "the standby took a lease"
    assert not (fleet.directory / "standby").exists(), "it keeps no journal"


def test_a_strategy_that_the_gateway_does_not_know_never_counts_as_equal(fleet: Fleet) -> None:
    trading(fleet)
    stranger = fleet.secrets["ops"]  # a key that is listed, but not under this name
    with standing_by(fleet, "strategy", "-m", "mt5crs.strategy.standby", CLIENT_SECRET_KEY=stranger) as port:
        status, answer = ask(
            "strategy", f"127.0.0.1:{fleet.metrics_ports['strategy']}", f"127.0.0.1:{port}", 2
        )
    assert (status, answer["equal"]) == (75, None), answer
    assert "the gateway does not answer this strategy" in answer["reason"]


def test_nothing_in_the_standing_by_strategy_can_trade() -> None:
    """The program does not even load what a lease or an order takes."""
    script = "import sys, mt5crs.strategy.standby; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(done.stdout.split())
    assert "mt5crs.strategy.statefeed" in loaded
    assert not loaded & {f"mt5crs.strategy.{name}" for name in ("lease", "execution", "trading", "journal")}
