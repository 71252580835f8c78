"""The clients file while the gateway runs: read again when it changes, so a revocation needs no restart."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from .access import Access, ClientsFileError, Peer, load
from .metrics import GatewayMetrics
from .selftest import SELF

WRONG_ADDRESS = "wrong address for the key of"
BARRED = "barred for a while: its connection was ended for what it did"
_BARRED_S = 5.0
"""Else it would be back at once, and every connection and refusal takes the gateway's time."""


class Clients:
    """Keeps the last usable clients file. `access` may be read by any thread."""

    def __init__(
        self,
        path: Path,
        own_key: str,
        metrics: GatewayMetrics,
        note: Callable[..., None],
        revoked: Callable[[], None],
    ) -> None:
        """Load. Raises ClientsFileError. `revoked` is called when a client has lost its key or address."""
        self._path = path
        self._own_key = own_key
        self._metrics = metrics
        self._note = note
        self._revoked = revoked
        self._barred: dict[str, float] = {}
        self._reading = threading.Lock()
        self._stamp = _stamp(path)
        self._access = self._with_self(load(path))

    def access(self) -> Access:
        """Clients, limits and plain clients as of the last good file."""
        return self._access

    def bar(self, key: str) -> None:
        """Let a key not connect anew for some seconds. Operators are never shut out: they halt."""
        peer = self._access.by_key.get(key)
        if peer is not None and "administer" not in peer.permissions and key != self._own_key:
            self._barred[key] = time.monotonic() + _BARRED_S

    def objection(self, key: str, address: str) -> str:
        """Why a public key (hex) may not connect from an address; empty if it may."""
        peer = self._access.by_key.get(key)
        if peer is None:
            return "unknown key"
        if time.monotonic() < self._barred.get(key, 0.0):
            return BARRED
        return "" if peer.may_come_from(address) else f"{WRONG_ADDRESS} {peer.name}"

    def known_address(self, address: str) -> bool:
        """Whether a source address may use the legacy adapter."""
        return address in self._access.legacy

    def reload_if_changed(self, *, force: bool = False) -> None:
        """Look at the file; take it if it changed and is good, else keep what is in force and say so.

        From any thread: one after the other, or an older version could come after a newer one.
        """
        with self._reading:
            self._reload_if_changed(force=force)

    def _reload_if_changed(self, *, force: bool) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp and not force:
            return
        try:
            fresh = self._with_self(load(self._path))
        except ClientsFileError as error:
            self._metrics.clients_file_errors.inc()
            self._note("clients.unusable", error=str(error), in_force="the previous clients file")
            # What could not be read (no descriptor left, say) is tried again; what is wrong is not.
            if not isinstance(error.__cause__, OSError):
                self._stamp = stamp
            return
        self._stamp = stamp
        if fresh.serial < self._access.serial:
            self._metrics.clients_file_errors.inc()
            older = f"version {fresh.serial} is older than the one in force ({self._access.serial})"
            self._note("clients.unusable", error=older, in_force="the previous clients file")
            return
        gone = {*self._access.by_key, *self._access.legacy} - {*fresh.by_key, *fresh.legacy}
        gone |= {key for key, peer in fresh.by_key.items() if self._moved(key, peer)}
        self._access = fresh
        self._note("clients.loaded", clients=len(fresh.by_key) - 1, serial=fresh.serial, revoked=len(gone))
        if gone:
            self._revoked()

    def _moved(self, key: str, peer: Peer) -> bool:
        """Whether a key is accepted from other addresses than before: whoever is connected is judged anew."""
        before = self._access.by_key.get(key)
        return before is not None and before.sources != peer.sources

    def _with_self(self, access: Access) -> Access:
        own = Peer(name=SELF, permissions=frozenset({"observe"}), magics=frozenset())
        return msgspec.structs.replace(access, by_key={**access.by_key, self._own_key: own})


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when the file, or the link that leads to it, is replaced."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)
