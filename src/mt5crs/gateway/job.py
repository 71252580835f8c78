"""A request on its way to the terminal and its reply on the way back."""

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from mt5crs.protocol import requests as ask
from mt5crs.protocol.replies import Reply

JobState = Literal["waiting", "running", "finished", "abandoned"]


class Job(msgspec.Struct, eq=False):
    """A request on its way. `door` is where its reply goes, `encode` makes that door's frames of it."""

    request: ask.AnyRequest
    door: object
    encode: Callable[[Reply], list[bytes]]
    received: float
    operator: bool = False
    """Whether it comes from a client that administers and does not trade the request's magic number."""
    plain: bool = False
    """Whether it comes through the plain door, whose clients name no filling."""
    state: JobState = "waiting"
    answered: bool = False

    def waited_ms(self) -> int:
        """Milliseconds since the request came in."""
        return int((time.monotonic() - self.received) * 1000)
