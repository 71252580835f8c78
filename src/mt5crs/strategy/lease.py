"""The right to trade: acquired before the first order, renewed by a thread, given up before it can expire."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mt5crs.client.errors import GatewayError, RefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.protocol import replies, requests
from mt5crs.service.elapsed import elapsed_s
from mt5crs.service.logs import Log

_RELEASED = "released"


class LeaseKeeper:
    """Holds one lease. The gateway counts from when it hears us, we from before we spoke: ours ends first.

    The renewing thread could outlive a hung main loop; therefore the owner calls `feed` from that loop, and
    one that has not fed for `ttl_s` gets no renewal.
    """

    def __init__(
        self,
        client: GatewayClient,
        log: Log,
        *,
        magic: int,
        instance: str,
        ttl_s: float,
        margin_s: float,
        clock: Callable[[], float] = elapsed_s,
    ) -> None:
        """`client` belongs to this keeper's thread alone."""
        self._client = client
        self._log = log
        self._magic = magic
        self._instance = instance
        self._ttl_s = ttl_s
        self._margin_s = margin_s
        self._clock = clock
        self._lock = threading.RLock()
        self._grant = (0, 0.0)
        self._fed = clock()
        self._wanted = False
        self._stop = threading.Event()
        self.reason = "the lease was never acquired"
        self._thread = threading.Thread(target=self._renew_for_ever, name="lease", daemon=True)
        self._begin()

    def _begin(self) -> None:
        self._thread.start()

    @property
    def epoch(self) -> int | None:
        """The epoch to send orders under, or None when the lease may have expired."""
        epoch, until = self._grant  # one read: the renewing thread may hold the lock for a whole time-out
        return epoch if epoch and self._clock() < until else None

    def feed(self) -> None:
        """The main loop lives."""
        self._fed = self._clock()

    def acquire(self, *, fresh_epoch: bool) -> bool:
        """Try once to get the lease; False (with `reason` set) when it is not to be had now.

        fresh_epoch: whatever was sent before must be void from now on, so a lease that is still ours is given
        back first, and the new epoch fences off everything under the old one.
        """
        with self._lock:
            try:
                lease = self._acquire_once()
                if fresh_epoch:
                    self._client.once(
                        requests.LeaseRelease,
                        replies.Lease,
                        timeout_s=self._timeout_s,
                        magic=self._magic,
                        instance=self._instance,
                        lease_epoch=lease.epoch,
                    )
                    self._grant = (0, 0.0)
                    lease = self._acquire_once()
            except GatewayError as error:
                self._lose(f"no lease for magic {self._magic}: {error}")
                return False
            self._wanted = True
            self.reason = ""
            self._log.info("lease.acquired", epoch=lease.epoch, ttl_s=self._ttl_s)
            return True

    def lost(self, reason: str) -> None:
        """The gateway said that our epoch is stale: stop at once, without waiting for a renewal."""
        self._lose(reason)

    def release(self) -> None:
        """Stop renewing and give the lease back, as far as the gateway can be reached."""
        self._stop.set()
        self._thread.join(self._ttl_s)
        with self._lock:
            epoch, _ = self._grant
            if epoch:
                try:
                    self._client.once(
                        requests.LeaseRelease,
                        replies.Lease,
                        timeout_s=min(1.0, self._timeout_s),
                        magic=self._magic,
                        instance=self._instance,
                        lease_epoch=epoch,
                    )
                except GatewayError as error:
                    self._log.warning("lease.release_failed", error=str(error))
            self._lose(_RELEASED)
            self._client.close()

    @property
    def _timeout_s(self) -> float:
        return self._ttl_s / 4

    def _acquire_once(self) -> replies.Lease:
        began = self._clock()
        lease = self._client.once(
            requests.LeaseAcquire,
            replies.Lease,
            timeout_s=self._timeout_s,
            magic=self._magic,
            instance=self._instance,
            ttl_ms=int(self._ttl_s * 1000),
        )
        self._take(lease, began)
        return lease

    def _take(self, lease: replies.Lease, began: float) -> None:
        self._grant = (lease.epoch, began + lease.ttl_ms / 1000 - self._margin_s)

    def _lose(self, reason: str) -> None:
        epoch, _ = self._grant
        self._grant, self._wanted, self.reason = (0, 0.0), False, reason
        if epoch and reason != _RELEASED:
            self._log.warning("lease.lost", epoch=epoch, reason=reason)

    def _renew_for_ever(self) -> None:
        while not self._stop.wait(self._ttl_s / 4):
            with self._lock:
                if self._wanted:
                    self._renew()

    def _renew(self) -> None:
        now = self._clock()
        epoch, until = self._grant
        if now - self._fed > self._ttl_s:
            self._lose("the strategy's main loop hangs")
            return
        try:
            lease = self._client.once(
                requests.LeaseRenew,
                replies.Lease,
                timeout_s=self._timeout_s,
                magic=self._magic,
                instance=self._instance,
                lease_epoch=epoch,
                ttl_ms=int(self._ttl_s * 1000),
            )
        except RefusedError as error:
            if error.reply.code == "FENCED":
                self._lose(str(error))
                return
            self._log.warning("lease.renew_failed", error=str(error))
        except GatewayError as error:
            self._log.warning("lease.renew_failed", error=str(error))
        else:
            if self._wanted:  # not lost meanwhile
                self._take(lease, now)
            return
        if self._clock() >= until:
            self._lose("it could not be renewed in time")
