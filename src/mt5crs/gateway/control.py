"""Leases and halts: who may write, and whether anyone may. Survives restarts, never waits for the terminal.

One lock orders everything that decides whether an order may go to the broker: a new epoch is not handed out
while an order of the older one is in the broker's hands, and a halt that has been answered lets nothing
through.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from mt5crs.protocol.fields import HaltScope
from mt5crs.protocol.records import HaltInfo, LeaseInfo
from mt5crs.service import database
from mt5crs.service.elapsed import elapsed_s

from .refusal import Refusal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (account TEXT, magic INTEGER, epoch INTEGER NOT NULL, client TEXT NOT NULL,
    instance TEXT NOT NULL, ttl_ms INTEGER NOT NULL, released INTEGER NOT NULL, PRIMARY KEY (account, magic));
CREATE TABLE IF NOT EXISTS halts (magic INTEGER PRIMARY KEY, reason TEXT NOT NULL, client TEXT NOT NULL,
    since_msc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS acts (at_msc INTEGER NOT NULL, act TEXT NOT NULL, magic INTEGER NOT NULL,
    client TEXT NOT NULL, reason TEXT NOT NULL);
"""
FLEET = 0
"""Magic number under which the halt of the whole fleet is kept."""


class _Lease(Struct, frozen=True, kw_only=True):
    epoch: int
    client: str
    instance: str
    ttl_ms: int
    expires: float
    """Monotonic seconds; 0 for a lease that was given back."""


def _halt_key(scope: HaltScope, magic: int) -> int:
    """Under what a halt is kept. Raises Refusal for a magic number that would mean the fleet."""
    if scope == "MAGIC" and magic == FLEET:
        raise Refusal(
            "BAD_FIELD",
            "magic",
            "scope MAGIC needs a magic number, and 0 is none",
            "name the magic number, or use scope FLEET",
        )
    return FLEET if scope == "FLEET" else magic


@contextmanager
def _recording(consequence: str) -> Iterator[None]:
    """Turn a failure of the disk into a Refusal INTERNAL that says what holds now."""
    try:
        yield
    except sqlite3.Error as error:
        raise Refusal(
            "INTERNAL",
            "control",
            f"leases and halts cannot be recorded ({error}); {consequence}",
            "free disk space on the gateway, then send it again",
            retry_ms=5000,
        ) from error


class Control:
    """Thread-safe."""

    def __init__(
        self,
        path: Path,
        account: str,
        *,
        monotonic: Callable[[], float] = elapsed_s,
        wall_msc: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        durable: bool = True,
    ) -> None:
        """Open or create the file. A lease held before a restart counts as held for one more TTL from now.

        Raises UnusableError.
        """
        self._db = database.opened(path, _SCHEMA, durable=durable, threads=True)
        self._account = account
        self._monotonic = monotonic
        self._wall_msc = wall_msc
        self._lock = threading.Lock()
        self._in_flight: dict[int, int] = {}
        now = monotonic()
        self._leases = {
            magic: _Lease(
                epoch=epoch,
                client=client,
                instance=instance,
                ttl_ms=ttl_ms,
                expires=0.0 if released else now + ttl_ms / 1000,
            )
            for magic, epoch, client, instance, ttl_ms, released in self._db.execute(
                "SELECT magic, epoch, client, instance, ttl_ms, released FROM leases WHERE account = ?",
                (account,),
            )
        }
        self._halts = {
            magic: HaltInfo(magic=magic, reason=reason, client=client, since_msc=since)
            for magic, reason, client, since in self._db.execute(
                "SELECT magic, reason, client, since_msc FROM halts"
            )
        }

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- leases --------------------------------------------------------------------------------------------

    def acquire(self, magic: int, client: str, instance: str, ttl_ms: int) -> int:
        """A new epoch for this instance, or its present one again. Raises Refusal LEASE_HELD or BUSY, and as
        everything that writes INTERNAL when the disk fails.
        """
        with self._lock:
            held = self._leases.get(magic)
            now = self._monotonic()
            if held is not None and now < held.expires:
                if (held.client, held.instance) != (client, instance):
                    left = int((held.expires - now) * 1000) + 1
                    raise Refusal(
                        "LEASE_HELD",
                        "magic",
                        f"magic {magic} is held by {held.client} ({held.instance}), epoch {held.epoch}",
                        "stop that program, or wait until its lease has run out",
                        retry_ms=left,
                    )
                self._extend(magic, held, ttl_ms)
                return held.epoch
            if self._in_flight.get(magic):
                raise Refusal(
                    "BUSY",
                    "magic",
                    "an order of the previous holder is still in the broker's hands",
                    "ask again; the lease moves as soon as the broker has answered",
                    retry_ms=200,
                )
            epoch = (held.epoch if held else 0) + 1
            self._store_lease(magic, epoch, client, instance, ttl_ms, released=False)
            self._leases[magic] = _Lease(
                epoch=epoch, client=client, instance=instance, ttl_ms=ttl_ms, expires=now + ttl_ms / 1000
            )
            return epoch

    def renew(self, magic: int, client: str, instance: str, epoch: int, ttl_ms: int) -> None:
        """Extend the lease. Raises Refusal FENCED."""
        with self._lock:
            held = self._current(magic, epoch)
            self._owned(held, client, instance)
            self._extend(magic, held, ttl_ms)

    def release(self, magic: int, client: str, instance: str, epoch: int) -> None:
        """Give the lease back, so that the next one need not wait. Raises Refusal FENCED."""
        with self._lock:
            held = self._current(magic, epoch)
            self._owned(held, client, instance)
            self._store_lease(magic, epoch, client, instance, held.ttl_ms, released=True)
            self._leases[magic] = msgspec.structs.replace(held, expires=0.0)

    def leases(self) -> list[LeaseInfo]:
        """All leases, the run-out ones too."""
        with self._lock:
            now = self._monotonic()
            return [
                LeaseInfo(
                    magic=magic,
                    epoch=lease.epoch,
                    client=lease.client,
                    instance=lease.instance,
                    remaining_ms=max(0, int((lease.expires - now) * 1000)),
                )
                for magic, lease in sorted(self._leases.items())
            ]

    def _current(self, magic: int, epoch: int) -> _Lease:
        held = self._leases.get(magic)
        if held is None or held.epoch != epoch:
            latest = held.epoch if held else "none"
            raise Refusal(
                "FENCED",
                "lease_epoch",
                f"epoch {epoch} of magic {magic} is not the latest one ({latest})",
                "stop: another program has the lease; acquire a new one only after a fresh snapshot",
            )
        if self._monotonic() >= held.expires:
            raise Refusal(
                "FENCED",
                "lease_epoch",
                f"the lease of magic {magic}, epoch {epoch}, has run out",
                "acquire a new lease after a fresh snapshot",
            )
        return held

    @staticmethod
    def _owned(held: _Lease, client: str, instance: str) -> None:
        if (held.client, held.instance) != (client, instance):
            raise Refusal(
                "FENCED",
                "instance",
                f"the lease belongs to {held.client} ({held.instance})",
                "only its holder may renew or release it",
            )

    def _extend(self, magic: int, held: _Lease, ttl_ms: int) -> None:
        if ttl_ms > held.ttl_ms:  # a restart must wait for the longest promise made
            self._store_lease(magic, held.epoch, held.client, held.instance, ttl_ms, released=False)
        self._leases[magic] = msgspec.structs.replace(
            held, ttl_ms=max(ttl_ms, held.ttl_ms), expires=self._monotonic() + ttl_ms / 1000
        )

    def _store_lease(
        self, magic: int, epoch: int, client: str, instance: str, ttl_ms: int, *, released: bool
    ) -> None:
        with _recording("nothing was changed"):
            self._db.execute(
                "REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)",
                (self._account, magic, epoch, client, instance, ttl_ms, int(released)),
            )

    # --- halts ---------------------------------------------------------------------------------------------

    def halt(self, scope: HaltScope, magic: int, client: str, reason: str) -> int:
        """Stop order flow, durably, before this returns. Returns how many orders the broker already has.

        Raises Refusal INTERNAL when it could not be recorded: it is in force all the same, but a restart
        would lift it, so it should be repeated.
        """
        key = _halt_key(scope, magic)
        with self._lock:
            info = HaltInfo(magic=key, reason=reason, client=client, since_msc=self._wall_msc())
            info = self._halts.setdefault(key, info)  # in force even if the disk then fails
            with _recording("the halt is in force, but a restart would lift it"):
                self._db.execute(
                    "INSERT OR IGNORE INTO halts VALUES (?, ?, ?, ?)",
                    (key, info.reason, info.client, info.since_msc),
                )
                self._act("halt", key, client, reason)
            return sum(n for m, n in self._in_flight.items() if key in (FLEET, m))

    def resume(self, scope: HaltScope, magic: int, client: str, reason: str) -> None:
        """Lift a halt, durably, before this returns. Raises Refusal."""
        key = _halt_key(scope, magic)
        with self._lock:
            with _recording("the halt stays in force"):
                self._act("resume", key, client, reason)
                self._db.execute("DELETE FROM halts WHERE magic = ?", (key,))
            self._halts.pop(key, None)

    def halts(self) -> list[HaltInfo]:
        """Halts in force."""
        if not self._halts:  # no need to wait for a lease that is being written to disk
            return []
        with self._lock:
            return [self._halts[key] for key in sorted(self._halts)]

    def _act(self, act: str, magic: int, client: str, reason: str) -> None:
        self._db.execute(
            "INSERT INTO acts VALUES (?, ?, ?, ?, ?)", (self._wall_msc(), act, magic, client, reason)
        )

    def begin_again(self, epochs: dict[int, int]) -> None:
        """Leases and halts of before are lost: no epoch may return, and a halt is in force, since nobody
        knows whether one was. `epochs`: the last that the journal knows, by magic number. Raises Refusal.
        """
        with self._lock:
            for magic, epoch in epochs.items():
                if magic not in self._leases:
                    self._store_lease(magic, epoch, "unknown", "unknown", 0, released=True)
                    self._leases[magic] = _Lease(
                        epoch=epoch, client="unknown", instance="unknown", ttl_ms=0, expires=0.0
                    )
        self.halt(
            "FLEET",
            FLEET,
            "gateway",
            "control.db was missing beside the journal: were there halts? Look, then resume",
        )

    def halt_journal_lost(self) -> None:
        """Orders of before are not known any more: one that is sent again would be executed again, and what
        is unresolved would block nothing. Raises Refusal.
        """
        self.halt(
            "FLEET",
            FLEET,
            "gateway",
            "journal.db was missing beside control.db: what was sent? Look at the books, then resume",
        )

    # --- the last check before the broker ------------------------------------------------------------------

    def check(self, magic: int, epoch: int | None) -> None:
        """Raise Refusal HALTED or FENCED if an order of this epoch may not go out now.

        `epoch` None: an operator closes or cancels. That needs no lease but a halt, so that no program trades
        the same magic number meanwhile; without one it is FORBIDDEN.
        """
        with self._lock:
            self._check(magic, epoch)

    @contextmanager
    def permit(self, magic: int, epoch: int | None) -> Iterator[None]:
        """Check, and keep the lease from moving until the block ends. Raises Refusal as `check` does."""
        with self._lock:
            self._check(magic, epoch)
            self._in_flight[magic] = self._in_flight.get(magic, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[magic] -= 1

    def _check(self, magic: int, epoch: int | None) -> None:
        if epoch is None:
            self._check_halted(magic)
            return
        for key in (FLEET, magic):
            halt = self._halts.get(key)
            if halt is not None:
                raise Refusal(
                    "HALTED",
                    "magic" if key else "",
                    f"order flow is halted by {halt.client}: {halt.reason}",
                    "resume it with a reason when the cause is gone (`mt5crs resume`)",
                    final=True,
                )
        try:
            self._current(magic, epoch)
        except Refusal as refusal:
            refusal.final = True
            raise

    def _check_halted(self, magic: int) -> None:
        if FLEET not in self._halts and magic not in self._halts:
            raise Refusal(
                "FORBIDDEN",
                "magic",
                f"magic {magic} is not halted; an operator closes and cancels only under a halt",
                "halt it first (`mt5crs halt`), so that no program trades it meanwhile",
            )
