"""Halts magic numbers at their gateways, with a key that may do nothing else; a thread for each gateway."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from mt5crs.client.connection import Peer
from mt5crs.client.errors import GatewayError
from mt5crs.client.gateway import GatewayClient, Patience
from mt5crs.hub.figures import Figures
from mt5crs.hub.halt_policy import Wanted
from mt5crs.hub.store import Store
from mt5crs.protocol import curve, replies, requests
from mt5crs.service.bounded import BoundedNotes
from mt5crs.service.database import UnusableError
from mt5crs.service.logs import Log

Outcome = Literal["due", "halted", "already", "impossible"]
_PATIENCE = Patience(timeout_s=2.0, attempts=1, pause_s=0.0)
_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_MOST_DUE = 10_000


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """What was wanted, and what became of it. Unix time; `detail` says why it is still due, or impossible."""

    wanted: Wanted
    at: float
    outcome: Outcome = "due"
    done: float | None = None
    detail: str = ""

    def plain(self) -> dict[str, Any]:
        """As it is kept and shown."""
        return {
            "id": self.wanted.id,
            "at": self.at,
            "gateway": self.wanted.gateway,
            "magic": str(self.wanted.magic),
            "by": self.wanted.by,
            "reason": self.wanted.reason,
            "outcome": self.outcome,
            "done": self.done,
            "detail": self.detail,
        }


def _of(kept: Mapping[str, Any]) -> Halt:
    wanted = Wanted(
        id=kept["id"],
        gateway=kept["gateway"],
        magic=int(kept["magic"]),
        by=kept["by"],
        reason=kept["reason"],
    )
    return Halt(
        wanted=wanted, at=kept["at"], outcome=kept["outcome"], done=kept["done"], detail=kept["detail"]
    )


class Halting:
    """`want` from any thread. What is due stays so until the gateway has answered, over restarts too."""

    def __init__(
        self,
        peers: Mapping[str, Peer],
        store: Store,
        figures: Figures,
        log: Log,
        *,
        context: curve.Context,
        halted: Callable[[str, int], bool],
        told: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`halted(gateway, magic)`: whether a halt of it is known to be in force. `told(gateway)` is called
        after each outcome. Raises UnusableError.
        """
        self._peers, self._store, self._figures, self._log = dict(peers), store, figures, log
        self._context, self._halted, self._told, self._clock = context, halted, told, clock
        self._note = BoundedNotes(log.warning)
        self._lock = threading.Lock()
        self._known: set[str] = set()
        """Causes that were acted on, also where the disk did not take it."""
        self._due: dict[str, dict[str, Halt]] = {name: {} for name in self._peers}
        self._wakers = {name: threading.Event() for name in self._peers}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        for kept in store.halts(_MOST_DUE, due=True):
            self._queue(_of(kept))

    def close(self) -> bool:
        """End; whether every thread has."""
        self._stopping.set()
        for waker in self._wakers.values():
            waker.set()
        for thread in list(self._threads.values()):
            thread.join(5.0)
        return not any(thread.is_alive() for thread in self._threads.values())

    def want(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Have halts put in force; those of a cause that was acted on are left out. Returns what is new."""
        new = []
        for each in wanted:
            with self._lock:
                if each.id in self._known or self._seen(each.id):
                    continue
                self._known.add(each.id)
            new.append(each)
            halt = Halt(wanted=each, at=self._clock())
            if each.gateway not in self._peers:
                told = f"there is no key to halt {each.gateway} with; deploy gateway and Hub"
                self._keep(msgspec.structs.replace(halt, outcome="impossible", detail=told))
                continue
            self._keep(halt)  # a disk that is full delays no halt
            self._queue(halt)
        return new

    def forget(self, causes: Iterable[str]) -> None:
        """Keep in memory only these causes; the store has them all."""
        with self._lock:
            due = {cause for of in self._due.values() for cause in of}
            self._known &= {*causes, *due}

    @property
    def due(self) -> int:
        """How many halts no gateway has answered yet."""
        with self._lock:
            return sum(map(len, self._due.values()))

    def _seen(self, cause: str) -> bool:
        try:
            return self._store.has_halt(cause)
        except UnusableError:
            return False  # halted once too often rather than not at all

    def _queue(self, halt: Halt) -> None:
        name = halt.wanted.gateway
        if name not in self._due:
            return
        with self._lock:
            self._due[name][halt.wanted.id] = halt
            if name not in self._threads:
                thread = threading.Thread(target=self._run, args=(name,), name=f"halting-{name}", daemon=True)
                self._threads[name] = thread
                thread.start()
        self._wakers[name].set()

    # ---- one gateway ----

    def _run(self, name: str) -> None:
        failed = 0
        with GatewayClient(self._peers[name], _PATIENCE, context=self._context) as client:
            while not self._stopping.is_set():
                self._wakers[name].clear()
                with self._lock:
                    due = list(self._due[name].values())
                if not due:
                    failed = 0
                    self._wakers[name].wait()
                    continue
                in_force: set[int] = set()
                over = [self._once(client, halt, in_force) for halt in due]
                if all(over):
                    continue
                self._wakers[name].wait(_AGAIN_S[min(failed, len(_AGAIN_S) - 1)])
                failed += 1

    def _once(self, client: GatewayClient, halt: Halt, in_force: set[int]) -> bool:
        """Whether it is over. A halt that is in force already is no second one.

        in_force: magic numbers that the gateway has just said to be halted, 0 for all.
        """
        wanted = halt.wanted
        if self._halted(wanted.gateway, wanted.magic) or in_force & {0, wanted.magic}:
            return self._end(halt, "already", "")
        try:
            answer = client.call(
                requests.Halt, replies.HaltState, magic=wanted.magic, scope="MAGIC", reason=wanted.reason
            )
        except GatewayError as error:
            # A refusal, too, is asked about again: a key that is not deployed yet is, a moment later; and a
            # halt that is in force, but not on the gateway's disk, has to be repeated.
            return self._still(halt, str(error))
        in_force.update(each.magic for each in answer.halts)
        ours = any(
            each.magic == wanted.magic
            and (each.client, each.reason) == (client.peer.client_name, wanted.reason)
            for each in answer.halts
        )
        return self._end(halt, "halted" if ours else "already", "")

    def _still(self, halt: Halt, why: str) -> bool:
        if halt.detail != why:
            changed = msgspec.structs.replace(halt, detail=why[:500])
            with self._lock:
                self._due[halt.wanted.gateway][halt.wanted.id] = changed
            self._keep(changed)
        self._note(
            f"halt {halt.wanted.gateway}",
            "halt.not_yet",
            gateway=halt.wanted.gateway,
            magic=halt.wanted.magic,
            reason=why,
        )
        return False

    def _end(self, halt: Halt, outcome: Outcome, detail: str) -> bool:
        done = msgspec.structs.replace(halt, outcome=outcome, done=self._clock(), detail=detail)
        with self._lock:
            self._due[halt.wanted.gateway].pop(halt.wanted.id, None)
        self._keep(done)
        self._told(halt.wanted.gateway)
        return True

    def _keep(self, halt: Halt) -> None:
        """Record who, why and what became of it; the gateway has its own record."""
        if halt.outcome != "due":
            self._figures.halts.inc(halt.outcome)
        self._log.warning("halt", **{**halt.plain(), "cause": halt.wanted.id})
        try:
            self._store.keep_halt(halt.plain())
        except UnusableError as error:
            self._note("halt.not_kept", "halt.not_kept", reason=str(error))
