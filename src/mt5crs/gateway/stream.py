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
        self._fleeting: dict[str, int] = {}

    def next(self, topic: str) -> int:
        """The next sequence number of a topic; it must be published."""
        seqs = self._of(topic)
        seqs[topic] = seq = seqs.get(topic, 0) + 1
        return seq

    def last(self, topic: str) -> int:
        """The last sequence number of a topic, 0 if nothing was published."""
        return self._of(topic).get(topic, 0)

    def _of(self, topic: str) -> dict[str, int]:
        fleeting = topic.startswith("tick.") or topic == events.HEARTBEAT_TOPIC
        return self._fleeting if fleeting else self._seqs

    def seqs(self) -> dict[str, int]:
        """Last sequence number of every topic but quotes and heartbeats."""
        return self._seqs.copy()

    def publish(self, topic: str, event: events.Event) -> None:
        """Publish an event whose `seq` came from `next`."""
        self._publish(Publication(topic, encode(event)))
