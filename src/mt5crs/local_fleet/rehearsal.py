"""A whole fleet on loopback: gateway with simulated broker, reconciler and strategy as real processes.

The phoenix test kills them, tests and benchmarks use them. Keys are made for the occasion, ports are free
ones, everything lives in one directory, and nothing survives `close`.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mt5crs.broker.sim.inbox import ask
from mt5crs.broker.sim.symbols import CONTRACTS
from mt5crs.client.connection import Peer
from mt5crs.client.gateway import GatewayClient, Patience
from mt5crs.client.published import PublishedState, read_state
from mt5crs.probes.health import HealthCheckBrokenError, ask_health
from mt5crs.protocol.curve import new_keypair

Service = Literal["gateway", "reconciler", "strategy"]
LOGIN = 90_000_001
MAGIC = 202401
_STOP_S = 10.0
_PASSES_S = 60.0
"""What comes on a machine that is busy with other things; waiting for it costs nothing when it comes."""


class RehearsalError(Exception):
    """The rehearsal fleet did not do what was waited for; the text has the last log lines."""


_PORTS = range(20_000, 32_768)
_next_port = itertools.count(secrets.randbelow(len(_PORTS)))
_claims: deque[socket.socket] = deque()
_CLAIMED_AT_ONCE = 128


def free_ports(count: int) -> list[int]:
    """Ports that nobody on loopback uses now.

    They lie below those that Linux and Windows give to outgoing connections, of which one could take a port
    before the service that it is meant for; and a process gives each of them only once. Another process that
    is at the same numbers passes over those that this one has given lately, whose service may not have begun:
    the same numbers of UDP, which nobody else uses, are the claim.
    """
    found: list[int] = []
    while len(found) < count:
        port = _PORTS[next(_next_port) % len(_PORTS)]
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket() as trial:
                trial.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        if len(_claims) > _CLAIMED_AT_ONCE:
            _claims.popleft().close()
        found.append(port)
    return found


class Fleet:
    """Processes of one rehearsal. Use as a context manager."""

    def __init__(
        self, directory: Path, settings: Mapping[Service, Mapping[str, object]] | None = None
    ) -> None:
        """`settings`: environment by service beyond the usual. Starts nothing yet."""
        self.directory = directory
        self.settings: dict[Service, dict[str, object]] = {"gateway": {}, "reconciler": {}, "strategy": {}}
        """Environment by service beyond the usual; may be changed before a start."""
        for service, values in (settings or {}).items():
            self.settings[service].update(values)
        self.processes: dict[Service, subprocess.Popen[bytes]] = {}
        self.port, self.pub_port, *ports = free_ports(5)
        self.metrics_ports: dict[Service, int] = dict(
            zip(("gateway", "reconciler", "strategy"), ports, strict=True)
        )
        self.gateway_public, self._gateway_secret = new_keypair()
        self.secrets: dict[str, str] = {}
        clients = {}
        for name, permissions, magics in (
            ("reconciler", ["observe"], [MAGIC]),
            ("strategy", ["trade"], [MAGIC]),
            ("ops", ["observe", "administer"], []),
        ):
            public, self.secrets[name] = new_keypair()
            clients[name] = {"key": public, "permissions": permissions, "magics": magics}
        limits = {
            "dry_run": False,
            "symbols": list(CONTRACTS),
            "max_order_volume": 10.0,
            "max_position_volume": 100.0,
        }
        self.clients = {"clients": clients, "limits": {str(MAGIC): limits}}
        directory.mkdir(parents=True, exist_ok=True)
        self.write_clients()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write_clients(self) -> None:
        """Write clients.json as `self.clients` says now."""
        path = self.directory / "clients.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self.clients))
        temporary.replace(path)

    def broker(self, **command: Any) -> dict[str, Any]:
        """Act on the simulated broker behind the gateway's back (needs SIM_FAULTS=true for the gateway)."""
        return ask(self.directory / "gateway" / "sim" / "inbox", command)

    @property
    def socket_path(self) -> str:
        """The reconciler's local socket."""
        return str(self.directory / "state.sock")

    def peer(self, name: str = "ops") -> Peer:
        """Connection of one of the clients."""
        return Peer(
            host="127.0.0.1",
            port=self.port,
            pub_port=self.pub_port,
            server_key=self.gateway_public,
            client_name=name,
            secret_key=self.secrets[name],
        )

    def client(self, name: str = "ops", patience: Patience | None = None) -> GatewayClient:
        """A client of the rehearsal gateway."""
        return GatewayClient(self.peer(name), patience or Patience(2.0, 3, 0.1))

    def environment(self, service: Service) -> dict[str, str]:
        """The environment a service starts with, secrets included."""
        shared: dict[str, object] = {
            "METRICS_ADDRESS": "127.0.0.1",
            "METRICS_PORT": self.metrics_ports[service],
            "STATE_DIR": self.directory / service,
        }
        if service == "gateway":
            shared |= {
                "GATEWAY_BIND": "127.0.0.1",
                "GATEWAY_PORT": self.port,
                "GATEWAY_PUB_PORT": self.pub_port,
                "GATEWAY_SECRET_KEY": self._gateway_secret,
                "GATEWAY_BACKEND": "sim",
                "CLIENTS_FILE": self.directory / "clients.json",
                "RESOLVE_AFTER_S": "0",
                "SIM_LOGIN": LOGIN,
            }
        else:
            shared |= {
                "GATEWAY_HOST": "127.0.0.1",
                "GATEWAY_PORT": self.port,
                "GATEWAY_PUB_PORT": self.pub_port,
                "GATEWAY_PUBLIC_KEY": self.gateway_public,
                "CLIENT_NAME": service,
                "CLIENT_SECRET_KEY": self.secrets[service],
                "MAGIC_NUMBER": MAGIC,
                "EXPECTED_ACCOUNT_LOGIN": LOGIN,
                "RECONCILER_SOCKET": self.socket_path,
            }
        if service == "strategy":
            shared |= {"STRATEGY": "mt5crs.strategy.example:PingPong", "TICK_INTERVAL_S": 0.2}
        shared |= self.settings[service]
        base = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ
        }
        return base | {name: str(value) for name, value in shared.items()}

    def start(self, service: Service) -> subprocess.Popen[bytes]:
        """Start a service; does not wait for it."""
        with (self.directory / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"mt5crs.{service}"],
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        self.processes[service] = process
        return process

    def start_ready(self, service: Service, timeout_s: float = _PASSES_S) -> float:
        """Start a service and wait until it is healthy; seconds it took."""
        began = time.monotonic()
        self.start(service)
        self.wait_healthy(service, timeout_s)
        return time.monotonic() - began

    def wait_healthy(self, service: Service, timeout_s: float = _PASSES_S) -> None:
        """Wait for /health to say so. Raises RehearsalError."""
        self.wait(
            lambda: self.health(service).get("healthy") is True, f"{service} healthy", timeout_s, service
        )

    def health(self, service: Service) -> dict[str, object]:
        """Body of /health; empty when nothing answers."""
        try:
            return ask_health("127.0.0.1", self.metrics_ports[service])[1]
        except (OSError, HealthCheckBrokenError):
            return {}

    def state(self) -> PublishedState:
        """What the reconciler publishes. Raises StateUnavailableError."""
        return read_state(self.socket_path)

    def kill(self, service: Service) -> None:
        """kill -9, and wait until it is gone."""
        process = self.processes.pop(service)
        process.send_signal(signal.SIGKILL)
        process.wait(_STOP_S)

    def stop(self, service: Service) -> int:
        """SIGTERM, and the exit status."""
        process = self.processes.pop(service)
        process.terminate()
        try:
            return process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)
            raise RehearsalError(f"{service} did not stop in {_STOP_S:g} s\n{self.tail(service)}") from None

    def wait_exit(self, service: Service, timeout_s: float = _PASSES_S) -> int:
        """Exit status of a service that ends by itself."""
        process = self.processes[service]
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RehearsalError(
                f"{service} still runs after {timeout_s:g} s\n{self.tail(service)}"
            ) from None
        del self.processes[service]
        return status

    def close(self) -> None:
        """End every process that is left."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(_STOP_S)
        self.processes.clear()

    def log(self, service: Service) -> list[dict[str, Any]]:
        """Log lines of a service that are JSON."""
        path = self.directory / f"{service}.log"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def tail(self, service: Service, lines: int = 15) -> str:
        """Last lines of a service's log."""
        path = self.directory / f"{service}.log"
        return "\n".join(path.read_text(encoding="utf-8").splitlines()[-lines:]) if path.exists() else ""

    def wait(
        self,
        condition: Callable[[], object],
        what: str,
        timeout_s: float = _PASSES_S,
        service: Service | None = None,
    ) -> None:
        """Wait for a condition. Raises RehearsalError when it does not come, or when `service` dies."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            process = self.processes.get(service) if service is not None else None
            if process is not None and process.poll() is not None:
                raise RehearsalError(
                    f"{service} ended with status {process.returncode} before: {what}\n"
                    f"{self.tail(service or 'gateway')}"
                )
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self.tail(name)}" for name in self.metrics_ports)
                raise RehearsalError(f"not within {timeout_s:g} s: {what}\n{logs}")
            time.sleep(0.02)
