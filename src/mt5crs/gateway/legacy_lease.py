"""The leases that the legacy adapter takes for its clients, which know of none.

One for each order; after an order that was carried out it lasts on, so that no other program gets between two
orders of the client. An order that was refused leaves nothing behind.
"""

import threading
from collections.abc import Callable

from msgspec import Struct

from mt5crs.protocol.replies import Error, OrderResult, Reply
from mt5crs.service.elapsed import elapsed_s

from .control import Control
from .refusal import Refusal

_TTL_MS = 10_000
_INSTANCE = "legacy-door"


class LegacyLease(Struct, eq=False):
    """The lease of one order."""

    magic: int
    client: str
    epoch: int
    answered: bool = False


class LegacyLeases:
    """Thread-safe: orders are answered by the thread that answers them."""

    def __init__(
        self,
        control: Control,
        note: Callable[..., None],
        monotonic: Callable[[], float] = elapsed_s,
    ) -> None:
        self._control = control
        self._note = note
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._under_way: dict[int, int] = {}
        self._kept_until: dict[int, float] = {}

    def take(self, magic: int, client: str) -> LegacyLease:
        """The lease of a magic number for one order. Raises Refusal as `Control.acquire`."""
        with self._lock:
            epoch = self._control.acquire(magic, client, _INSTANCE, _TTL_MS)
            self._under_way[magic] = self._under_way.get(magic, 0) + 1
            return LegacyLease(magic, client, epoch)

    def answered(self, lease: LegacyLease, reply: Reply, *, never_done: bool) -> None:
        """The order has been answered. `never_done`: it never got to the terminal.

        One that the terminal still works on (BUSY) is over with its second, true answer.
        """
        with self._lock:
            if lease.answered or (isinstance(reply, Error) and reply.code == "BUSY" and not never_done):
                return
            lease.answered = True
            magic, now = lease.magic, self._monotonic()
            self._under_way[magic] -= 1
            if _carried_out(reply):
                self._kept_until[magic] = now + _TTL_MS / 1000
            if not self._under_way[magic]:
                self._give_back(lease, int((self._kept_until.get(magic, now) - now) * 1000))

    def _give_back(self, lease: LegacyLease, left_ms: int) -> None:
        """Leave the client what its last carried out order gave it."""
        about = (lease.magic, lease.client, _INSTANCE, lease.epoch)
        try:
            if left_ms > 0:
                self._control.renew(*about, left_ms)
            else:
                self._control.release(*about)
        except Refusal as refusal:  # it has run out by itself, or does so soon
            self._note("legacy.lease", magic=lease.magic, client=lease.client, error=str(refusal))


def _carried_out(reply: Reply) -> bool:
    """Whether the client traded just now, or may have."""
    if isinstance(reply, OrderResult):
        return reply.outcome != "REJECTED" and not reply.replayed
    return isinstance(reply, Error) and reply.code == "INTERNAL"
