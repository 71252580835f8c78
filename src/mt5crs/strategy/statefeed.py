"""The reconciler's state as the strategy sees it: fit to trade on, or not, and why."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from mt5crs.client.published import PublishedState, StateReader, StateUnavailableError

_RETRY_S = 0.2
NOT_KNOWN: Mapping[str, object] = {"digest": "", "stream": "", "seq": 0}
"""What :meth:`StateFeed.shown` says while nothing may be traded on the state."""


class StateFeed:
    """Follows the reconciler's local socket; connects again by itself. One thread at a time."""

    def __init__(self, path: str, *, magic: int, login: int, silence_s: float) -> None:
        self._path = path
        self._magic = magic
        self._login = login
        self._silence_s = silence_s
        self._reader: StateReader | None = None
        self._state: PublishedState | None = None
        self._problem = f"no reconciler at {path} yet"

    @property
    def state(self) -> PublishedState:
        """The latest state. Only meaningful while `unfit()` is None."""
        if self._state is None:
            raise StateUnavailableError(self._problem)
        return self._state

    def update(self, timeout_s: float) -> None:
        """Take in what the reconciler says, waiting at most `timeout_s` for something new."""
        began = time.monotonic()
        try:
            if self._reader is None:
                self._reader = StateReader(self._path)
            self._state = self._reader.read(timeout_s)
        except StateUnavailableError as error:
            self._problem = str(error)
            self.close()
            left = timeout_s - (time.monotonic() - began)
            time.sleep(max(0.0, min(_RETRY_S, left)))

    def unfit(self) -> str | None:
        """Why nothing may be traded on this state, or None when it may."""
        if self._reader is None or self._state is None:
            return self._problem
        if self._reader.silent_for_s > self._silence_s:
            return f"the reconciler has been silent for {self._reader.silent_for_s:.1f} s; see its journal"
        state = self._state
        if state.magic != self._magic or state.login != self._login:
            return (
                f"the reconciler looks after magic {state.magic} on account {state.login}, this strategy "
                f"trades {self._magic} on {self._login}; correct MAGIC_NUMBER or EXPECTED_ACCOUNT_LOGIN"
            )
        if state.state != "ready":
            return f"the reconciler says {state.state}: {state.reason}"
        return None

    def shown(self) -> Mapping[str, object]:
        """Digest of the state and the gateway's event it goes up to, for /health; see NOT_KNOWN."""
        if self.unfit() is not None or self._state is None:
            return NOT_KNOWN
        return {"digest": self._state.digest, "stream": self._state.stream, "seq": self._state.seq}

    def close(self) -> None:
        """Let go of the connection; what was known no longer counts."""
        if self._reader is not None:
            with contextlib.suppress(OSError):
                self._reader.close()
        self._reader, self._state = None, None
