"""Numbered events of one run of the gateway."""

from collections.abc import Callable

from mt5crs.protocol import events
from mt5crs.protocol.codec import encode

from .outbox import Publication


class Stream:
    """Gives each topic its own sequence. A topic is published by one thread only."""

    def __init__(self, name: str, publish: Callable[[Publication], None]) -> None:
        self.name = name
        self._publish = publish
        self._seqs: dict[str, int] = {}

    def next(self, topic: str) -> int:
        """The next sequence number of a topic; it must be published."""
        self._seqs[topic] = seq = self._seqs.get(topic, 0) + 1
        return seq

    def last(self, topic: str) -> int:
        """The last sequence number of a topic, 0 if nothing was published."""
        return self._seqs.get(topic, 0)

    def seqs(self) -> dict[str, int]:
        """Last sequence number of every topic but quotes and heartbeats."""
        return {
            topic: seq
            for topic, seq in list(self._seqs.items())
            if not topic.startswith("tick.") and topic != events.HEARTBEAT_TOPIC
        }

    def publish(self, topic: str, event: events.Event) -> None:
        """Publish an event whose `seq` came from `next`."""
        self._publish(Publication(topic, encode(event)))
