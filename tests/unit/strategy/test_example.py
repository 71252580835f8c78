"""The example strategy over gateway core, reconciler and a terminal whose lists are late."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.broker.sim.faults import Faults
from mt5crs.broker.sim.terminal import Showing
from mt5crs.client.published import PublishedState
from mt5crs.protocol.events import trade_topic
from mt5crs.reconciler.compare import compare, deals_wanted_from
from mt5crs.reconciler.model import evidence_of
from mt5crs.strategy.api import OrderError
from mt5crs.strategy.example import PingPong
from mt5crs.strategy.trading import LiveTrading
from tests.unit.test_fleet_machine import LOGIN, MAGIC, Fleet, LineClient

VOLUME, POSITIONS, STEPS = 0.1, 1, 60


class Feed:
    """The reconciler's published state; it looks only now and then."""

    def __init__(self, world: Fleet, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self.state: PublishedState | None = None
        self.update(0)

    def unfit(self) -> str | None:
        """Why nothing may be traded on the state."""
        assert self.state is not None
        return None if self.state.state == "ready" else "not ready"

    def update(self, _timeout_s: float) -> None:
        """Let the world go on a little; the reconciler may look."""
        world = self._world
        world.now += self._chance.choice([5, 50, 300])
        keeper = world.strategies["a"].keeper
        keeper.feed()
        keeper.renew()
        world.order_manager.look()
        world.order_manager.resolve_all()
        if self.state is None or self._chance.random() < 0.5:
            self._reconcile()

    def _reconcile(self) -> None:
        world = self._world
        local = world.store.load()
        since = 0 if local is None else deals_wanted_from(local)
        snapshot = LineClient(world, "reconciler").snapshot(MAGIC, history_since_msc=since)
        found = compare(local, evidence_of(snapshot, MAGIC))
        world.store.save(found.state, found.events)
        self.state = PublishedState(
            state="unknown" if found.discrepancies else "ready", reason="", login=LOGIN, magic=MAGIC,
            digest="", stream=snapshot.stream, seq=snapshot.seqs.get(trade_topic(MAGIC), 0),
            broker_time_msc=snapshot.time_msc, synced_at=1.0, external_positions=0,
            unresolved=tuple(snapshot.unresolved), positions=found.state.positions, orders=(),
        )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("lag_ms", [0, 60, 150, 1000, 5000])
@pytest.mark.parametrize("late", ["positions", "deals", "all"])
def test_it_never_has_more_open_than_it_is_told_to(seed: int, lag_ms: int, late: str) -> None:
    lists = ["positions", "orders", "history", "deals"] if late == "all" else [late]
    world, chance = Fleet(), random.Random(seed)  # noqa: S311
    most = trades = 0
    try:
        world.take_lease("a", [])
        feed: Any = Feed(world, chance)
        showing = Showing(**{f"{name}_lag_ms": lag_ms for name in lists})
        world.broker.command(Command(do="faults", faults=Faults(terminal=showing)))
        settings: Any = SimpleNamespace(
            symbol="EURUSD", volume=VOLUME, order_timeout_s=60.0, magic_number=MAGIC
        )
        trading = LiveTrading(settings, LineClient(world, "strategy"), world.strategies["a"].adapter, feed)
        strategy = PingPong({"positions": POSITIONS, "hold_s": 0})
        for _ in range(STEPS):
            feed.update(0)
            if feed.unfit() is not None:
                continue
            world.take_lease("a", [])
            try:
                strategy.on_timer(trading)
            except OrderError:
                continue
            trades += 1
            volume = sum(p.volume for p in world.broker._store.positions() if p.magic == MAGIC)
            most = max(most, round(volume / VOLUME))
    finally:
        world.teardown()
    assert most == POSITIONS
    assert trades >= 2
