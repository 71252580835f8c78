"""`mt5crs phoenix`: kill -9 with open positions, then compare what came back with the broker's books."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from mt5crs.client.errors import GatewayError
from mt5crs.client.published import StateUnavailableError
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet, RehearsalError, Service
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import Report, exit_status, show
from mt5crs.protocol.replies import OrderResult, Snapshot, StatusState
from mt5crs.protocol.requests import OrderResolve, Status

ORDER: tuple[Service, ...] = ("reconciler", "strategy", "gateway")
_BUSY = {"TICK_INTERVAL_S": 0.05, "STRATEGY_OPTIONS": '{"positions": 4, "hold_s": 0.2}'}
"""A strategy that opens and closes all the time and always has something open."""
_RECOVERY_S = 30.0
_EQUAL_S = 10.0


class PhoenixError(Exception):
    """Something did not come back as it was."""


_FAILURES = (PhoenixError, RehearsalError, GatewayError)


def lost_positions(before: Snapshot, after: Snapshot) -> list[int]:
    """Positions that are gone without a deal that closed them. Pure."""
    still = {position.identifier for position in after.positions}
    closed = {deal.position_id for deal in after.deals if deal.entry != "IN"}
    return sorted(p.identifier for p in before.positions if p.identifier not in still | closed)


def doubled_orders(snapshot: Snapshot) -> list[str]:
    """Client order ids (as comments) that led to more than one order at the broker. Pure."""
    orders: dict[str, set[int]] = {}
    for deal in snapshot.deals:
        if deal.magic == snapshot.magic and deal.entry == "IN" and deal.comment:
            orders.setdefault(deal.comment, set()).add(deal.order)
    return sorted(comment for comment, tickets in orders.items() if len(tickets) > 1)


def rehearse(services: Sequence[Service], rounds: int, directory: Path) -> Report:
    """Run the test on a fleet of our own, on loopback."""
    report = Report(title="Phoenix test on real processes (loopback, simulated broker)")
    with Fleet(directory, {"strategy": _BUSY}) as fleet:
        try:
            for service in ("gateway", "reconciler", "strategy"):
                fleet.start_ready(service)
            for number in range(1, rounds + 1):
                for service in services:
                    label = f"kill -9 {service}" + (f" #{number}" if rounds > 1 else "")
                    report.run(label, lambda s=service: _round(fleet, s), _FAILURES)  # type: ignore[misc]
        except RehearsalError as error:
            report.add("start", "FAIL", str(error))
        report.figures["orders"] = dict(Counter(_outcomes(fleet)))
    return report


def _round(fleet: Fleet, service: Service) -> str:
    """Kill one service while positions are open; say how it came back."""
    fleet.wait(lambda: _books(fleet).positions, "an open position", _RECOVERY_S)
    before = _books(fleet)
    fleet.kill(service)
    began = time.monotonic()
    fleet.start(service)
    fleet.wait_healthy("gateway", _RECOVERY_S)
    cut_off = declare_cut_off(fleet)
    for each in ("reconciler", "strategy"):
        fleet.wait_healthy(each, _RECOVERY_S)
    seconds = time.monotonic() - began
    fleet.wait(lambda: _equal(fleet), "the reconciler's state equal to the broker's", _EQUAL_S)
    done = len(before.deals)
    fleet.wait(lambda: len(_books(fleet).deals) > done, "a new deal after the crash", _RECOVERY_S)
    after = _books(fleet)
    lost, doubled = lost_positions(before, after), doubled_orders(after)
    if lost or doubled:
        raise PhoenixError(f"lost positions {lost}, doubled orders {doubled}")
    said = (
        f"{len(before.positions)} open positions, trading again after {seconds:.2f} s, none lost or doubled"
    )
    return f"{said}; {cut_off} cut off on its way to the broker, declared not executed" if cut_off else said


def declare_cut_off(fleet: Fleet) -> int:
    """Do the operator's part: what a kill cut off between the gateway's journal and the broker is unresolved.

    The gateway refuses while the broker's books show it. Returns how many were declared. Raises GatewayError.
    """
    with fleet.client("ops") as client:
        guards = client.call(Status, StatusState, magic=MAGIC).guards
        waiting = [(guard.magic, order) for guard in guards for order in guard.unresolved]
        answers = [
            client.call(
                OrderResolve, OrderResult, magic=magic, client_order_id=order, reason="phoenix test: cut off"
            )
            for magic, order in waiting
        ]
    return sum(answer.evidence == "operator" for answer in answers)


def _books(fleet: Fleet) -> Snapshot:
    with fleet.client() as client:
        return client.snapshot(MAGIC, history_since_msc=0)


def _equal(fleet: Fleet) -> bool:
    try:
        with fleet.client() as client:
            theirs = client.snapshot(MAGIC, history_since_msc=None).digest
        state = fleet.state()
    except (GatewayError, StateUnavailableError):
        return False
    return state.state == "ready" and state.digest == theirs


def _outcomes(fleet: Fleet) -> list[str]:
    try:
        with fleet.client() as client:
            deals = client.snapshot(MAGIC, history_since_msc=0).deals
    except GatewayError:
        return []
    return [f"deal {deal.entry}" for deal in deals if deal.magic == MAGIC]


class Remote:
    """A host reached over SSH with the commands given; runs `mt5crs` there."""

    def __init__(self, ssh: Sequence[str], target: str) -> None:
        self._prefix = [*ssh, target]
        self.target = target

    def run(self, *command: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command as root. Raises PhoenixError when SSH itself fails."""
        try:
            done = subprocess.run(
                [*self._prefix, "sudo", "-n", shlex.join(command)],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PhoenixError(f"{self.target} cannot be reached: {error}") from error
        if done.returncode == 255:
            raise PhoenixError(f"{self.target}: {done.stderr.strip()}; check the SSH options and host keys")
        return done

    def mt5crs(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the installed `mt5crs` of a service."""
        return self.run(f"/opt/mt5crs/{service}/current/venv/bin/mt5crs", *arguments)

    def pid(self, service: str) -> str:
        """Main process id of a unit, "0" when it does not run."""
        unit = f"mt5crs-{service}.service"
        return self.run("systemctl", "show", "-P", "MainPID", unit).stdout.strip()


def on_hosts(targets: Sequence[tuple[str, Remote]], inf: Remote) -> Report:
    """Kill the units of (service, host) one after the other; `inf` compares state with the broker."""
    report = Report(title="Phoenix test on hosts (kill -9, systemd starts again)")
    for service, host in targets:
        report.run(
            f"kill -9 {service} on {host.target}",
            lambda service=service, host=host: _host_round(service, host, inf),  # type: ignore[misc]
            (PhoenixError,),
        )
    return report


def _host_round(service: str, host: Remote, inf: Remote) -> str:
    env = "/opt/mt5crs/reconciler/current/.env"
    before = _host_positions(inf, env)
    if not before:
        raise PhoenixError("no position is open: the test would show nothing; let a strategy trade first")
    old = host.pid(service)
    if old in ("", "0"):
        raise PhoenixError(f"mt5crs-{service} does not run on {host.target}; start it first")
    host.run("kill", "-KILL", old)
    began = time.monotonic()
    deadline = began + _RECOVERY_S
    while True:
        healthy = host.pid(service) not in (old, "", "0") and (
            host.mt5crs(
                service, "health", service, "--env-file", f"/opt/mt5crs/{service}/current/.env"
            ).returncode
            == 0
        )
        layer9 = _layer9(inf, env) if healthy else "not healthy yet"
        if healthy and layer9 == "PASS":
            break
        if time.monotonic() > deadline:
            raise PhoenixError(f"not recovered within {_RECOVERY_S:g} s: {layer9}")
        time.sleep(0.5)
    return f"{len(before)} open positions, state equals the broker's after {time.monotonic() - began:.1f} s"


def _host_positions(inf: Remote, env: str) -> list[object]:
    done = inf.mt5crs("reconciler", "positions", "--json", "--env-file", env)
    if done.returncode != 0:
        raise PhoenixError(f"the broker's positions cannot be read on {inf.target}: {done.stderr.strip()}")
    positions = json.loads(done.stdout)["positions"]
    return positions if isinstance(positions, list) else []


def _layer9(inf: Remote, env: str) -> str:
    done = inf.mt5crs("reconciler", "link", "--json", "--env-file", env)
    try:
        last = json.loads(done.stdout)["findings"][-1]
    except (ValueError, LookupError):
        return done.stderr.strip() or "no answer from mt5crs link"
    return "PASS" if last["verdict"] == "PASS" else str(last["detail"])


@click.command()
@click.option(
    "--service",
    "services",
    multiple=True,
    type=click.Choice(ORDER),
    help="Kill only this service (repeatable); default all, one after the other.",
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--inf", help="SSH target of an Inf node: run on real hosts instead of loopback.")
@click.option("--gateway", help="SSH target of the gateway's host (with --inf).")
@click.option(
    "--ssh", default="ssh -o BatchMode=yes -o ConnectTimeout=5", show_default=True, help="SSH command to use."
)
@json_option
def phoenix(
    services: tuple[Service, ...], rounds: int, inf: str | None, gateway: str | None, ssh: str, as_json: bool
) -> None:
    """Crash reconciler, strategy and gateway with open positions and show that nothing is lost or doubled.

    Without --inf it starts a complete fleet of its own on loopback. With --inf (and --gateway) it kills the
    units of running hosts: only do that to a lab or staging fleet.
    """
    chosen = services or ORDER
    if inf is not None:
        node = Remote(shlex.split(ssh), inf)
        if gateway is None and "gateway" in services:
            raise click.UsageError("--service gateway needs --gateway, the SSH target of its host")
        hosts = {"gateway": Remote(shlex.split(ssh), gateway) if gateway else None}
        targets = [(name, hosts.get(name, node)) for name in chosen]
        report = on_hosts([(name, host) for name, host in targets * rounds if host is not None], node)
    else:
        if gateway is not None:
            raise click.UsageError("--gateway goes with --inf")
        with tempfile.TemporaryDirectory(prefix="mt5crs-phoenix-") as directory:
            report = rehearse(chosen, rounds, Path(directory))
    show(report, as_json=as_json)
    raise SystemExit(exit_status(report))
