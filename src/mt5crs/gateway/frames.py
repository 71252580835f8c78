"""Replies to frames. The positions of a snapshot are the bulk of it: they are encoded once for each list."""

from typing import Any, cast

import msgspec

from mt5crs.protocol.codec import encode
from mt5crs.protocol.records import Position
from mt5crs.protocol.replies import Reply, Snapshot

_rows = msgspec.msgpack.Encoder()


class ReplyEncoder:
    """Called with a snapshot by the terminal's thread only, with anything else by any thread."""

    def __init__(self) -> None:
        self._known: tuple[list[Position], msgspec.Raw] = ([], msgspec.Raw(_rows.encode([])))

    def __call__(self, reply: Reply) -> bytes:
        """The reply as one frame, the same bytes as `encode` gives."""
        if not isinstance(reply, Snapshot):
            return encode(reply)
        positions, raw = self._known
        if reply.positions is not positions:
            # a broker that hands out the same list again says that nothing in it has changed
            raw = msgspec.Raw(_rows.encode(reply.positions))
            self._known = (reply.positions, raw)
        return encode(msgspec.structs.replace(reply, positions=cast(Any, raw)))
