"""What a strategy may not do, refused where Python tells of it, and told: a line in the log and a figure.

The kernel refuses as well, also what is not Python: other processes (`processes.py`), and by the unit other
addresses, ports and writing. There a strategy sees an error without a reason; here it is told which and why.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mt5crs
from mt5crs.service.logs import Log
from mt5crs.service.metrics import Registry
from mt5crs.strategy.limits import Broken

PROCESSES = {
    "subprocess.Popen": "starts a program",
    "os.system": "starts a program",
    "os.exec": "starts a program",
    "os.posix_spawn": "starts a program",
    "os.fork": "forks",
    "os.forkpty": "forks",
}
"""Audit event → what the strategy does."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DEPLOYED = Path("/opt/mt5crs")
STOPPED = "mt5crs.strategy.stopped"
"""The program that a strategy's process becomes when it is ended; the one that may be started."""
_OURS, _PYTHON = (str(Path(str(module.__file__)).parent) for module in (mt5crs, os))
_MOST_TOLD = 100
_REMEDY = {
    "process": "do it in the strategy's own process, or outside the host",
    "network": "leave it out, or name the address in strategy_allowed_hosts",
    "write": "what was deployed never changes: write into the working directory",
}


class RefusedError(PermissionError):
    """The strategy tried something that it may not; one that lets it pass is stopped for it."""

    def __init__(self, found: Broken) -> None:
        super().__init__(f"a strategy may not do this: {found}")
        self.found = found


class Refusals:
    """Refuses what does not belong in a strategy, from the moment it is begun to the end of the process."""

    def __init__(
        self,
        log: Log,
        registry: Registry,
        *,
        allowed_hosts: Iterable[str] = (),
        sockets: Iterable[str] = (),
        port: int = 0,
        deployed: Path = DEPLOYED,
    ) -> None:
        """sockets: local ones that this process may use. port: the only one that it may listen on."""
        self._log = log
        self._count = registry.counter(
            "mt5crs_strategy_refused_total", "Acts of the strategy that were refused.", ("what",)
        )
        for what in _REMEDY:
            self._count.inc(what, by=0)
        self._networks = [ipaddress.ip_network(host, strict=False) for host in allowed_hosts]
        self._sockets = {*sockets, os.environ.get("NOTIFY_SOCKET", "")}
        self._port = port
        self._deployed = f"{deployed}{os.sep}"
        self._told: set[str] = set()

    def begin(self) -> None:
        """Refuse from now on; a hook of Python's cannot be taken away again."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in PROCESSES:
            if event == "os.exec" and STOPPED in arguments[1]:
                return
            self._refuse("process", PROCESSES[event])
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and isinstance(path, (str, bytes)):
                real = os.path.realpath(os.fsdecode(path))
                if real.startswith(self._deployed):
                    self._refuse("write", f"writes {real}")
        elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            self._reaches(*arguments[:2])
        elif event == "socket.bind":
            found, address = arguments
            if found.family != socket.AF_UNIX and address[1] != self._port:
                self._refuse("network", f"listens on port {address[1]}")
        elif event == "socket.getaddrinfo" and not self._networks and not _is_address(arguments[0]):
            self._refuse("network", f"looks up the name {arguments[0]!r}")

    def _reaches(self, found: socket.socket, address: Any) -> None:
        if address is None or not hasattr(found, "family"):
            return  # it is connected already
        if found.family == getattr(socket, "AF_UNIX", None):
            name = os.fsdecode(address)
            known = {*self._sockets, *(f"\0{each[1:]}" for each in self._sockets if each.startswith("@"))}
            if name not in known:
                self._refuse("network", f"connects to {name}")
        elif found.family in (socket.AF_INET, socket.AF_INET6) and not self._allowed(str(address[0])):
            self._refuse("network", f"connects to {address[0]}")

    def _allowed(self, host: str) -> bool:
        if not _is_address(host):
            return bool(self._networks)  # a name: which address it has is for the kernel to judge
        return any(ipaddress.ip_address(host) in network for network in self._networks)

    def _refuse(self, what: str, act: str) -> None:
        self._count.inc(what)
        frames = [frame for frame in traceback.extract_stack() if not _of_others(frame.filename)]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        found = Broken(what, f"it {act} ({where})", _REMEDY[what])
        if found.cause not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(found.cause)
            self._log.error("strategy.refused", what=what, cause=found.cause, remedy=found.remedy)
        raise RefusedError(found)


def _is_address(host: object) -> bool:
    try:
        ipaddress.ip_address(str(host))
    except ValueError:
        return False
    return True


def _of_others(file: str) -> bool:
    """Whether it is Python's own file, or one of ours."""
    if file.startswith("<frozen"):
        return True
    return file.startswith(_OURS) or (file.startswith(_PYTHON) and "-packages" not in file)
