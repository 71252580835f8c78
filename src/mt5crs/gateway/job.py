"""A request on its way to the terminal and its reply on the way back."""

from collections.abc import Callable
from typing import Literal

import msgspec

from mt5crs.protocol import requests as ask
from mt5crs.protocol.replies import Reply
from mt5crs.service.elapsed import elapsed_s

JobState = Literal["waiting", "running", "finished", "abandoned"]


class Job(msgspec.Struct, eq=False):
    """A request on its way. Its reply goes to `reply_to`, in the frames that `encode` makes of it."""

    request: ask.AnyRequest
    reply_to: object
    encode: Callable[[Reply], list[bytes]]
    received: float
    """When it was read, as `elapsed_s` has it."""
    since: float
    """The moment from which it counts as waiting: earlier, when the gateway was frozen (`arrivals.py`)."""
    operator: bool = False
    """Whether it comes from a client that administers and does not trade the request's magic number."""
    plain: bool = False
    """Whether it comes through the legacy adapter, whose clients name no filling."""
    state: JobState = "waiting"
    answered: bool = False

    def waited_ms(self) -> int:
        """Milliseconds since the request came in, at most."""
        return int((elapsed_s() - self.since) * 1000)
