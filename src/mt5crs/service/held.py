"""Listening sockets that systemd keeps while the service restarts (its file descriptor store, sd_notify(3)).

The port stays open from one process to the next: who connects meanwhile waits in the kernel's queue and is
served by the new one. `systemctl stop` empties the store, so a stopped service listens nowhere and no client
can start it, which a socket unit would do.

The unit switches it on by HOLD_SOCKETS_FOR, the peers it lets in (IPAddressAllow=). systemd filters a socket
as the unit was when the socket was made; so sockets made for other peers are given up, not taken over: only
then is there a moment without a listener, and who connects in it is refused and tries again.

While a deployment that moves a port or the address is not confirmed, the unit also says where the service
listened before it (FORMERLY_AT, as the unit of then wrote LISTENS_AT): peers that have not been told yet are
served there.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from mt5crs.service import notify

_FIRST_FD = 3
_BACKLOG = 128
_PREFIX = "held-"


class HeldSockets:
    """What was passed on to this process, and what it leaves to the next one. One object per process."""

    def __init__(self) -> None:
        """Take over what systemd passes (LISTEN_FDS)."""
        self._peers = os.environ.get("HOLD_SOCKETS_FOR")
        formerly = os.environ.get("FORMERLY_AT", "")
        self._formerly, self._formerly_on = _ports(formerly), _addresses(formerly)
        self._passed = _passed_on()

    def tcp(self, address: str, port: int) -> socket.socket | None:
        """The listening socket for an address: passed on, else made and left to systemd; None: make your own.

        Raises OSError when it cannot be made.
        """
        if not port:
            return None
        family, kind, _, _, wanted = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        name = self._name(family.name, *map(str, wanted[:2]))
        found = self._take(name, lambda each: each.family == family and each.getsockname()[:2] == wanted[:2])
        if found is not None or self._peers is None:
            return found
        self._make_way(port)
        made = socket.socket(family, kind)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind(wanted)
            made.listen(_BACKLOG)
        except OSError:
            made.close()
            raise
        return _keep(made, name)

    def _make_way(self, port: int) -> None:
        """Stop listening at a port on what was made for other peers, or at another address.

        systemd has a copy, so closing ours would leave the port taken until it has closed its own.
        """
        for entry in list(self._passed):
            name, each = entry
            if name.startswith(_PREFIX) and each.family != socket.AF_UNIX and each.getsockname()[1] == port:
                self._passed.remove(entry)
                each.shutdown(socket.SHUT_RDWR)
                each.close()
                notify.forget(name)

    def former(
        self, name: str, address: str, now: Collection[int], on: str = "address"
    ) -> tuple[str, int] | None:
        """Where was listened under this name before a change that still waits; None: nowhere, or in use.

        `address`, `now`: address and ports of today, which are taken already. `on`: what the former address
        is called.
        """
        port, where = self._formerly.get(name, 0), self._formerly_on.get(on, address)
        return None if not port or (where == address and port in now) else (where, port)

    def unix(self, path: str, mode: int) -> tuple[socket.socket, bool]:
        """The listening socket at a path of the file system, and whether it outlives this process.

        One that was passed on counts only while the very file it was bound to is there; any other file of
        that name is replaced. Raises OSError when it cannot be made.
        """
        found = self._take(self._name(path, _file_of(path)), lambda each: each.getsockname() == path)
        if found is not None:
            return found, True
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)
            made.bind(path)
            Path(path).chmod(mode)
            made.listen(_BACKLOG)
        except OSError:
            made.close()
            raise
        if self._peers is None:
            return made, False
        return _keep(made, self._name(path, _file_of(path))), True

    def drop_unclaimed(self) -> None:
        """Give up what was passed on and not asked for (an old port, other peers), once all else listens."""
        for name, each in self._passed:
            each.close()
            if name.startswith(_PREFIX):
                notify.forget(name)
        self._passed.clear()

    def _name(self, *what: str) -> str:
        """Every socket has a name of its own: systemd forgets them by name."""
        text = "|".join([self._peers or "", *what])
        return _PREFIX + hashlib.sha256(text.encode()).hexdigest()[:24]

    def _take(self, name: str, is_it: Callable[[socket.socket], bool]) -> socket.socket | None:
        """One of ours by its name; one that a socket unit passes by where it listens."""
        for entry in self._passed:
            if entry[0] == name or (not entry[0].startswith(_PREFIX) and is_it(entry[1])):
                self._passed.remove(entry)
                return entry[1]
        return None


def _ports(text: str) -> dict[str, int]:
    """`requests:5555 events:5556` by name; what is no port is none."""
    pairs = (word.partition(":") for word in text.split())
    return {name: int(port) for name, _, port in pairs if port.isdecimal()}


def _addresses(text: str) -> dict[str, str]:
    """`address:10.0.0.1 requests:5555` by name, of those that are addresses."""
    pairs = (word.partition(":") for word in text.split())
    return {name: address for name, _, address in pairs if name.endswith("address") and address}


def _passed_on() -> list[tuple[str, socket.socket]]:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0") or 0)
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    os.environ.pop("LISTEN_PID", None)
    passed = []
    for number, fd in enumerate(range(_FIRST_FD, _FIRST_FD + count)):
        os.set_inheritable(fd, False)
        each = socket.socket(fileno=fd)
        each.setblocking(False)
        passed.append((names[number] if number < len(names) else "", each))
    return passed


def _keep(made: socket.socket, name: str) -> socket.socket:
    # Never wait in accept(): a connection may be gone again before it is reached.
    made.setblocking(False)
    notify.store(made.fileno(), name)
    return made


def _file_of(path: str) -> str:
    try:
        return str(Path(path).stat().st_ino)
    except OSError:
        return ""
