"""Posts what Alertmanager tells to a receiver, signed; tries again, and keeps what could not be delivered."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from mt5crs.hub import signature
from mt5crs.hub.figures import Figures
from mt5crs.hub.posting import post
from mt5crs.hub.store import Store
from mt5crs.service.bounded import BoundedNotes
from mt5crs.service.database import UnusableError
from mt5crs.service.logs import Log

MOST_LETTERS, MOST_BYTES = 500, 16 * 1024 * 1024
"""Of those that wait and those that were given up; beyond it the oldest of the latter go first."""
_DEADLINE_S = 5.0
_LONGEST_WAIT_S = 60.0
_MOST_NAMED = 20


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A notification on its way, or `dead`: given up. Unix time; `reason`: why the last try failed."""

    id: str
    at: float
    body: str
    tries: int = 0
    next: float = 0.0
    dead: bool = False
    reason: str = ""

    def shown(self) -> dict[str, Any]:
        """As the interface tells of it: what it is about, not all that it says."""
        told = json.loads(self.body)
        named = [_named(each) for each in told["alerts"] if isinstance(each, dict)]
        return {
            **{name: getattr(self, name) for name in ("id", "at", "tries", "next", "dead", "reason")},
            "status": str(told.get("status", ""))[:20],
            "alerts": list(dict.fromkeys(named))[:_MOST_NAMED],
        }


class NoNotificationError(ValueError):
    """What was posted is none of Alertmanager's."""


class Webhook:
    """`take` from any thread. What waits, and what was given up, is kept over restarts."""

    def __init__(
        self,
        url: str,
        secret: str,
        tries: int,
        store: Store,
        figures: Figures,
        log: Log,
        *,
        told: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        send: Callable[[str, bytes, Mapping[str, str], float], str] = post,
    ) -> None:
        """url: the receiver; empty: there is none, and nothing is taken. tries: of each, before it is given
        up. `told()` is called when something has changed. Raises UnusableError.
        """
        self._url, self._tries = url, tries
        self._keys = signature.keys(secret) if url else []
        self._store, self._figures, self._log = store, figures, log
        self._told, self._clock, self._send = told, clock, send
        self._note = BoundedNotes(log.warning)
        self._lock = threading.Lock()
        self._letters = {each["id"]: Letter(**each) for each in store.letters()}
        self._unkept = ""
        self._accepted_at: float | None = None
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        if self._url:
            self._thread.start()

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()
        self._bell.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def on(self) -> bool:
        """Whether there is a receiver."""
        return bool(self._url)

    @property
    def dead(self) -> bool:
        """Whether its thread has ended by itself."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def take(self, body: bytes) -> None:
        """Have a notification delivered. NoNotificationError."""
        try:
            text = body.decode()
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("alerts"), list):
            raise NoNotificationError("expected a notification in Alertmanager's webhook format")
        now = self._clock()
        # A disk that is full delays nothing: it may be what the alert is about.
        self._put(Letter(id=f"msg_{uuid.uuid4().hex}", at=now, body=text, next=now))
        self._bell.set()

    def retry(self, ids: Collection[str] | None) -> int:
        """Try those again that were given up (None: all); how many."""
        again, now = self._of(ids), self._clock()
        for each in again:
            self._put(msgspec.structs.replace(each, dead=False, tries=0, next=now))
        self._bell.set()
        return len(again)

    def forget(self, ids: Collection[str] | None) -> int:
        """Drop those that were given up (None: all); how many."""
        gone = self._of(ids)
        for each in gone:
            self._drop(each)
        return len(gone)

    def state(self) -> dict[str, Any]:
        """What waits, and what was given up, newest first; `not_kept` says why a restart would lose them."""
        with self._lock:
            every = sorted(self._letters.values(), key=lambda each: each.at, reverse=True)
        return {
            "on": self.on,
            "accepted_at": self._accepted_at,
            "not_kept": self._unkept,
            "waiting": [each.shown() for each in every if not each.dead],
            "dead": [each.shown() for each in every if each.dead],
        }

    def figures(self) -> tuple[int, float]:
        """How many were given up, and for how long the oldest of the others has waited, in seconds."""
        with self._lock:
            every = list(self._letters.values())
        waits = [self._clock() - each.at for each in every if not each.dead]
        return sum(each.dead for each in every), max([0.0, *waits])

    def _of(self, ids: Collection[str] | None) -> list[Letter]:
        with self._lock:
            return [each for each in self._letters.values() if each.dead and (ids is None or each.id in ids)]

    # ---- delivery ----

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            letter, pause = self._next()
            if letter is None:
                self._bell.wait(pause)
            else:
                self._try(letter)

    def _next(self) -> tuple[Letter | None, float | None]:
        """The one to be tried now, or None and for how long there is none (None: until one is taken)."""
        now = self._clock()
        with self._lock:
            waiting = [each for each in self._letters.values() if not each.dead]
        # Also when the clock was set back: nothing waits for longer than that.
        due = [each for each in waiting if not now < each.next <= now + _LONGEST_WAIT_S]
        if due:
            # What was never tried does not wait behind what a receiver does not take.
            return min(due, key=lambda each: (each.tries, each.at)), None
        return None, min((each.next - now for each in waiting), default=None)

    def _try(self, letter: Letter) -> None:
        body, now = letter.body.encode(), self._clock()
        why = self._send(
            self._url, body, signature.headers(letter.id, int(now), body, self._keys), _DEADLINE_S
        )
        self._figures.webhook_tries.inc("failed" if why else "accepted")
        if not why:
            self._accepted_at = self._clock()
            self._drop(letter)
            return
        tries = letter.tries + 1
        dead = tries >= self._tries
        wait = min(_LONGEST_WAIT_S, 2.0 ** min(tries, 10))
        self._note("webhook", "webhook.not_accepted", letter=letter.id, tries=tries, dead=dead, reason=why)
        self._put(
            msgspec.structs.replace(letter, tries=tries, next=self._clock() + wait, dead=dead, reason=why)
        )

    # ---- what is kept ----

    def _put(self, letter: Letter) -> None:
        with self._lock:
            self._letters[letter.id] = letter
            gone = self._too_many()
            for each in gone:
                del self._letters[each.id]
        for each in gone:
            self._figures.webhook_tries.inc("dropped")
            self._log.error("webhook.dropped", letter=each.id, at=each.at, reason=each.reason)
        self._keep(letter, [each.id for each in gone])

    def _drop(self, letter: Letter) -> None:
        with self._lock:
            self._letters.pop(letter.id, None)
        self._keep(None, [letter.id])

    def _too_many(self) -> list[Letter]:
        left = sorted(self._letters.values(), key=lambda each: (not each.dead, each.at))
        size, gone = sum(len(each.body) for each in left), []
        while len(left) > MOST_LETTERS or size > MOST_BYTES:
            gone.append(left.pop(0))
            size -= len(gone[-1].body)
        return gone

    def _keep(self, letter: Letter | None, gone: Collection[str]) -> None:
        try:
            if self._unkept:
                with self._lock:
                    every = [msgspec.structs.asdict(each) for each in self._letters.values()]
                self._store.keep_letters(every, None)
            else:
                self._store.keep_letters([msgspec.structs.asdict(letter)] if letter else [], gone)
            self._unkept = ""
        except UnusableError as error:
            self._unkept = str(error)
            self._note("webhook.not_kept", "webhook.not_kept", reason=str(error))
        self._told()


def _named(alert: Mapping[str, Any]) -> str:
    of = alert.get("labels")
    labels = of if isinstance(of, dict) else {}
    return f"{labels.get('alertname', 'alert')} {labels.get('host', '')}".strip()[:200]
