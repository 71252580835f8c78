"""What stands between a magic number and trading, as its gateway and its strategy say. Changes nothing.

`look` asks a gateway, `strategy_of` a host; what follows from it is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.report import table
from mt5crs.phases.profile import named
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import HaltInfo, PhaseAct

WITHDRAWN = "withdrawn: "
"""How the reason begins of what `mt5crs withdraw` does: no start lifts it, a person gives trading back."""
_GIVEN_BACK = ("active", "set", "override")
_BY_ITSELF = ("demoted", "gateway")
REASON_LENGTH = (3, 256)
"""Least and most characters of a reason, as gateways take it."""


@dataclass(frozen=True)
class Said:
    """What a gateway said of a magic number at one moment."""

    magic: int
    status: replies.StatusState
    phase: replies.PhaseState
    books: replies.Snapshot

    @property
    def halts(self) -> list[HaltInfo]:
        """Halts in force that concern it."""
        return [halt for halt in self.status.halts if halt.magic in (0, self.magic)]

    @property
    def order(self) -> tuple[object, ...]:
        """What a start shows before it acts: if that changes meanwhile, somebody else has acted."""
        return (self.halts, self.phase.profile, self.phase.serial, self.phase.trading, self.phase.why)

    @property
    def reducing(self) -> bool:
        """Whether it may only reduce. Under a halt its gateway says nothing else, so its acts tell."""
        if self.phase.trading != "HALTED":
            return self.phase.trading == "REDUCING"
        for act in self.phase.acts:
            # One that the gateway demoted for a loss may only reduce as well.
            if act.magic == self.magic and (act.act == "reducing" or (act.act, act.by) == _BY_ITSELF):
                return True
            if act.magic == self.magic and act.act == "active":
                return False
        return False

    @property
    def only_checked(self) -> bool:
        """Whether its orders are checked and never sent."""
        dry = any(guard.dry_run for guard in self.status.guards if guard.magic == self.magic)
        return dry or (self.phase.enforced and named(self.phase.profile).dry_run)


def look(client: GatewayClient, magic: int) -> Said:
    """Ask a gateway. Raises GatewayError."""
    return Said(
        magic,
        client.call(requests.Status, replies.StatusState, magic=magic),
        client.call(requests.PhaseQuery, replies.PhaseState, magic=magic),
        client.snapshot(magic, history_since_msc=None, whole_account=False),
    )


def withdrawn(acts: Sequence[PhaseAct], magic: int) -> PhaseAct | None:
    """The withdrawal that nobody has taken back. acts: newest first."""
    for act in acts:
        if act.magic == magic and act.act in _GIVEN_BACK and act.by != "gateway":
            return None
        if act.magic == magic and act.reason.startswith(WITHDRAWN):
            return act
    return None


def forbids(said: Said) -> Iterator[str]:
    """What keeps a magic number from being started, and what a person would have to do."""
    magic, status = said.magic, said.status
    if status.state != "ready":
        yield f"the gateway is {status.state}: {status.reason}; see `mt5crs … preflight`"
    for halt in status.halts:
        if halt.magic == 0:
            yield (
                f"everything is halted by {halt.client}: {halt.reason}; "
                "`mt5crs … resume --reason …` lifts that, when the reason is gone"
            )
    taken = withdrawn(said.phase.acts, magic)
    if taken is not None:
        yield (
            f"trading was {taken.reason} ({taken.by}); give it back first: "
            f"`mt5crs … phase activate --magic {magic} --reason …`"
            + (", or a new record with `phase promote`" if said.phase.enforced else "")
        )
    guards = [guard for guard in status.guards if guard.magic == magic]
    if not guards:
        yield f"{magic} has no limits at this gateway, so it may not trade; set fleet_limits, then deploy"
    for name in (name for guard in guards for name in guard.unresolved):
        yield f"the fate of order {name} is not known; see `mt5crs … orders`, then `resolve`"
    if said.phase.obstacle:
        yield f"no order is possible: {said.phase.obstacle}"


def lifts(said: Said) -> Iterator[str]:
    """What a start takes away, in the order in which it does."""
    if said.reducing:
        yield f"it may only reduce: {said.phase.why}"
    for halt in said.status.halts:
        if halt.magic == said.magic:
            yield f"halt by {halt.client}: {halt.reason}"
    if any(guard.breaker_open for guard in said.status.guards if guard.magic == said.magic):
        yield "circuit breaker is open"


def awaits(said: Said) -> Iterator[str]:
    """What is still to come until an order of it would be taken."""
    yield from forbids(said)
    yield from (f"its gateway still says: {one}" for one in lifts(said))
    if not any(lease.magic == said.magic and lease.remaining_ms > 0 for lease in said.status.leases):
        yield "no program holds its lease"


def text(said: Said, limits: Mapping[str, Any] | None) -> str:
    """Phase, limits, halts and books, for whoever decides. limits: those of the inventory, by name."""
    state, books, magic = said.phase, said.books, said.magic
    rows = _phase_rows(state)
    told = ", ".join(f"{name} {value}" for name, value in (limits or {}).items() if value is not None)
    rows.append(("limits of the inventory", told or "none"))
    rows.append(
        ("orders", "are only checked, none is sent" if said.only_checked else "are sent to the broker")
    )
    identity = said.status.identity
    rows.append(
        ("account", f"{identity.login} at {identity.server}, {identity.trade_mode}" if identity else "?")
    )
    halts = [f"{halt.magic or 'everything'} by {halt.client}: {halt.reason}" for halt in said.halts]
    rows.append(("halts", "; ".join(halts) or "none"))
    rows.append(("only reducing", "yes" if said.reducing else "no"))
    rows += [("position", f"{p.symbol} {p.type} {p.volume:g}, profit {p.profit:g}") for p in books.positions]
    rows += [("working order", f"{o.symbol} {o.type} {o.volume_current:g}") for o in books.orders]
    rows.append(("open", f"{len(books.positions)} positions, {len(books.orders)} working orders"))
    return table((f"{magic}", ""), rows)


def _phase_rows(state: replies.PhaseState) -> list[tuple[str, str]]:
    if not state.enforced:
        return [("phase", "none: this gateway uses no phases")]
    profile = named(state.profile)
    limits = profile.limits
    left = "" if state.expires_in_ms is None else f", for {state.expires_in_ms / 86_400_000:.1f} days more"
    profit = limits.min_expected_profit_percent
    told = (
        f"a trade {limits.trade_size:g} {profile.currency}",
        f"all together {limits.position_limit:g}",
        f"a day's loss {'any' if limits.daily_loss is None else f'{limits.daily_loss:g}'}",
        f"profit expected {'any' if profit is None else f'{profit:g} %'}",
        f"{limits.max_orders_per_minute} orders a minute",
        f"{limits.max_instruments} instruments",
        f"slippage {limits.max_slippage_points} points",
        f"{limits.max_consecutive_failures} failures in a row",
    )
    return [
        ("phase", f"{state.phase}, {state.profile} ({profile.title}){left}"),
        ("limits of the phase", ", ".join(told)),
    ]
