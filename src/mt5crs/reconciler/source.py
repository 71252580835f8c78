"""Where evidence comes from: a gateway of protocol v1, or one that speaks only the legacy format."""

from __future__ import annotations

from typing import Protocol

import msgspec

from mt5crs.client.errors import GatewayError, RefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.protocol import replies, requests
from mt5crs.protocol.events import trade_topic
from mt5crs.protocol.fields import MAX_HISTORY
from mt5crs.protocol.records import Deal, HaltInfo, Order
from mt5crs.reconciler.compare import deals_wanted_from, first_deals_wanted_from
from mt5crs.reconciler.evidence import flaws
from mt5crs.reconciler.model import Evidence, LocalState, evidence_of


class InconsistentSnapshotError(GatewayError):
    """A reply that is well-formed but contradicts itself or what we expect; it is not evidence."""


class Reading(msgspec.Struct, frozen=True):
    """Evidence and its place in the event stream."""

    evidence: Evidence
    stream: str
    seqs: dict[str, int]
    halts: tuple[HaltInfo, ...]
    doubt: str = ""
    """What of the evidence is only assumed, for the reason of the published state."""


class Source(Protocol):
    """Something that can be asked for evidence."""

    def read(self, local: LocalState | None, attempts: int | None = None) -> Reading:
        """Ask for everything since the record. Raises GatewayError."""

    def ping(self) -> None:
        """Prove that the peer answers. Raises GatewayError."""

    def close(self) -> None:
        """Close connections."""


class V1Source:
    """SYNC_ALL of protocol v1: whole account, with history since the record."""

    def __init__(self, client: GatewayClient, magic: int, expected_login: int) -> None:
        self._client = client
        self._magic = magic
        self._login = expected_login
        self._symbols: set[str] = set()

    @property
    def topic(self) -> str:
        """Topic of the events that change the evidence."""
        return trade_topic(self._magic)

    def read(self, local: LocalState | None, attempts: int | None = None) -> Reading:
        """One consistent, checked snapshot; `attempts` overrides the configured number.

        Raises GatewayError (InconsistentSnapshotError when the answer cannot be believed).
        """
        if local is None:
            # The history must reach back from the broker's clock, which only a first answer tells.
            since = first_deals_wanted_from(self._snapshot(None, attempts).time_msc)
        else:
            since = deals_wanted_from(local)
        snapshot = self._snapshot(since, attempts)
        evidence = evidence_of(snapshot, self._magic)
        if not snapshot.history_complete:
            deals, closed = self._page_history(since)
            evidence = msgspec.structs.replace(evidence, deals=deals, closed_orders=closed)
        self._know_symbols(evidence)
        return Reading(evidence, snapshot.stream, snapshot.seqs, tuple(snapshot.halts))

    def ping(self) -> None:
        """PING once."""
        patience = self._client.patience
        self._client.once(requests.Ping, replies.Pong, timeout_s=patience.timeout_s, magic=self._magic)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _snapshot(self, since: int | None, attempts: int | None) -> replies.Snapshot:
        patience = self._client.patience
        if attempts is not None:
            patience = msgspec.structs.replace(patience, attempts=attempts)
        snapshot = self._client.call(
            requests.SyncAll,
            replies.Snapshot,
            magic=self._magic,
            patience=patience,
            whole_account=True,
            history_since_msc=since,
        )
        found = flaws(snapshot, self._magic, self._login)
        if found:
            raise InconsistentSnapshotError("the gateway's SYNC_ALL cannot be believed: " + "; ".join(found))
        return snapshot

    def _page_history(self, since: int) -> tuple[tuple[Deal, ...], tuple[Order, ...]]:
        """All of a history that does not fit one reply, of this magic number."""
        deals: dict[int, Deal] = {}
        closed: dict[int, Order] = {}
        while True:
            page = self._client.call(
                requests.HistoryQuery,
                replies.HistoryState,
                magic=self._magic,
                since_msc=since,
                limit=MAX_HISTORY,
            )
            before = len(deals) + len(closed)
            deals.update((deal.ticket, deal) for deal in page.deals)
            closed.update((order.ticket, order) for order in page.closed_orders)
            if page.complete:
                return tuple(deals.values()), tuple(closed.values())
            times = [deal.time_msc for deal in page.deals] + [o.time_done_msc for o in page.closed_orders]
            if len(deals) + len(closed) == before or not times:
                raise InconsistentSnapshotError(
                    f"the history since {since} does not advance beyond {MAX_HISTORY} deals of one instant"
                )
            since = max(since, max(times))

    def _know_symbols(self, evidence: Evidence) -> None:
        """A position in a symbol the broker does not have means that the reply is not to be trusted."""
        used = {p.symbol for p in evidence.positions} | {o.symbol for o in evidence.orders}
        for symbol in sorted(used - self._symbols):
            try:
                self._client.call(requests.SymbolQuery, replies.SymbolReply, magic=self._magic, symbol=symbol)
            except RefusedError as error:
                if error.reply.code != "UNKNOWN_SYMBOL":
                    raise
                raise InconsistentSnapshotError(
                    f"the gateway reports a position or order in {symbol}, which its broker does not know"
                ) from error
            self._symbols.add(symbol)
