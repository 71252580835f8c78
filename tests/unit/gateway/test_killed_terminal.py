"""Random histories of orders in which the terminal process is killed at any byte, or at any moment.

MT5CRS_KILLS: how many kills (200). Printed with the seed when one goes wrong.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter as Tally
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mt5crs.broker.interface import BrokerError
from mt5crs.broker.remote import RemoteBroker
from mt5crs.broker.sim.backend import Profile, SimulatedBroker
from mt5crs.gateway.control import Control
from mt5crs.gateway.journal import Journal
from mt5crs.gateway.ledger import Ledger
from mt5crs.gateway.order_manager import OrderManager
from mt5crs.gateway.refusal import Refusal
from mt5crs.gateway.stream import Stream
from mt5crs.gateway.watch import Watch
from mt5crs.protocol.identifiers import comment_id
from mt5crs.protocol.replies import Error, OrderResult
from mt5crs.protocol.requests import OrderCancel, OrderResolve, OrderSend, PositionClose, Submission
from mt5crs.settings.gateway import Limits
from tests.unit.broker.forked import Fate, Forked, forked_broker
from tests.unit.orders import TERMS, check_none_is_doubled

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")

KILLS = int(os.environ.get("MT5CRS_KILLS", "200"))
KILLS_A_HISTORY = 20
MAGIC = 7
LIMITS = Limits(dry_run=False, symbols=["EURUSD"], max_order_volume=5, max_position_volume=1000)


class History:
    """One order manager over one broker whose process is killed again and again."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.directory = directory
        self.fate = Fate()
        self.kills = 0
        self.broker: RemoteBroker = forked_broker(directory, fate=self.fate, lost=self._count)
        self.journal = Journal(directory / "journal.db", "x", durable=False)
        self.control = Control(directory / "control.db", "x", durable=False)
        stream, ledger = Stream("s", lambda _: None), Ledger(self.broker)
        self.order_manager = OrderManager(
            self.broker, self.journal, self.control, Watch(self.broker, stream, ledger), ledger, stream,
            lambda: {MAGIC: LIMITS}, 90_000_001, "Sim-Demo", lambda *_, **__: None,
            resolve_after_s=0.0,
        )  # fmt: skip
        self.broker.start()
        self.epoch = self.control.acquire(MAGIC, "c", "run", 60_000)
        self.sent: dict[str, Submission] = {}
        self.told: dict[str, list[str]] = {}

    def _count(self, *_: str) -> None:
        self.kills += 1

    def step(self) -> None:
        """One request; its process may die at a byte of any message of it, or at any moment."""
        how = self.random.choice(["reads", "writes", "moment", "not at all"])
        if how in ("reads", "writes"):
            self.fate.set(**{how: int(1200 * self.random.random() ** 2)})
        timer = threading.Timer(self.random.random() * 0.004, self._kill) if how == "moment" else None
        if timer is not None:
            timer.start()
        reply = self._ask(self.random.choice([self._order, self._order, self._close, self._cancel]))
        if timer is not None:
            timer.join()
        if reply is not None:
            self._note(*reply)
        self._recover()

    def _kill(self) -> None:
        child = cast("Forked | None", self.broker._child)
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()

    def _recover(self) -> None:
        """What the gateway's thread does: connect again, look, settle what was unknown."""
        self.fate.set()
        while True:
            try:
                if self.broker.down():
                    self.broker.start()
                self.broker.identity()
                self.order_manager.look()
                self.order_manager.resolve_all()
            except BrokerError:
                continue
            if not self.broker.down():
                return

    def _ask(self, make: Callable[[], Submission | None]) -> tuple[str, OrderResult | Error] | None:
        request = make()
        if request is None:
            return None
        self.sent[request.client_order_id] = request
        reply = self.order_manager.submit(request, lambda: 0)
        assert isinstance(reply, (OrderResult, Error))
        return request.client_order_id, reply

    def _note(self, name: str, reply: OrderResult | Error) -> None:
        self.told.setdefault(name, []).append(
            reply.outcome if isinstance(reply, OrderResult) else f"{reply.code} {reply.final}"
        )

    def _head(self) -> dict[str, Any]:
        number = len(self.sent)
        return {
            "v": 1, "id": f"m{number}", "client": "c", "magic": MAGIC, "client_order_id": f"o{number}",
            "lease_epoch": self.epoch, "valid_ms": 60_000,
        }  # fmt: skip

    def _order(self) -> Submission:
        terms = self.random.choice([{}, {"type": "LIMIT", "price": 0.5, "filling": "RETURN"}])
        return OrderSend(**{**self._head(), **TERMS, "volume": 0.01, **terms})

    def _close(self) -> Submission | None:
        positions = self._seen(lambda: self.broker.books().positions)
        if not positions:
            return None
        position = self.random.choice(positions).identifier
        return PositionClose(**self._head(), position=position, volume=None, max_slippage_points=None)

    def _cancel(self) -> Submission | None:
        orders = self._seen(lambda: self.broker.books().orders)
        return OrderCancel(**self._head(), order=self.random.choice(orders).ticket) if orders else None

    def _seen(self, look: Callable[[], list[Any]]) -> list[Any]:
        try:
            return look()
        except BrokerError:
            return []

    def settle(self) -> None:
        """A person declares what the books do not show; refused for what they do show."""
        self._recover()
        for name in self.order_manager.unresolved(MAGIC):
            head = {"v": 1, "id": "r", "client": "ops", "magic": MAGIC, "client_order_id": name}
            with contextlib.suppress(Refusal):
                self.order_manager.declare(OrderResolve(**head, reason="looked"))

    def check(self) -> None:
        """The broker's own file against everything that was answered."""
        self.broker.close()
        books = SimulatedBroker(self.directory / "sim", Profile(), durable=False)
        try:
            check_none_is_doubled(books)
            orders = Tally(o.comment for o in (*books.closed_orders(0), *books.books().orders))
        finally:
            books.close()
        for name, answers in self.told.items():
            request = self.sent[name]
            if isinstance(request, OrderCancel):
                continue
            done = orders[comment_id(MAGIC, name)]
            assert done <= 1, (name, answers)
            entry = self.journal.find(MAGIC, name)
            final = entry.answer if entry is not None else None
            outcomes = {*answers, getattr(final, "outcome", "")}
            if done:  # nothing that was done is called failed
                assert not outcomes & {"REJECTED", "REFUSED"}, (name, answers, final)
            else:  # nothing that was not done is called done
                assert not outcomes & {"FILLED", "PARTIAL", "PLACED"}, (name, answers, final)

    def close(self) -> None:
        self.broker.close()
        self.journal.close()
        self.control.close()


def test_killed_at_random_nothing_is_lost_doubled_or_called_failed(tmp_path: Path) -> None:
    kills, seed, met = 0, int(os.environ.get("MT5CRS_SEED", "1")), Tally[str]()
    while kills < KILLS:
        directory = tmp_path / str(seed)
        directory.mkdir()
        history = History(directory, seed)
        try:
            while history.kills < KILLS_A_HISTORY:
                history.step()
                if history.random.random() < 0.5:
                    history.settle()
            history.settle()
            history.check()
        except AssertionError as error:
            raise AssertionError(f"MT5CRS_SEED={seed}") from error
        finally:
            history.close()
        kills += history.kills
        met.update(answer for answers in history.told.values() for answer in answers)
        seed += 1
    assert met["FILLED"] > KILLS / 20
    assert met["UNRESOLVED"] > KILLS / 20
    print(f"{kills} kills, answers: {dict(met)}")
