"""What the terminal's thread hands to the network thread: replies and events, in the order they happened."""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from .waker import Waker


class Delivery(Struct, frozen=True):
    """A reply: frames ready for the socket `reply_to`."""

    reply_to: object
    frames: list[bytes]


class Publication(Struct, frozen=True):
    """An event: topic and payload."""

    topic: str
    payload: bytes


class Outbox:
    """One producer thread, one consumer thread."""

    def __init__(self) -> None:
        self.waker = Waker(timeout_s=0.1)
        """Rings in the network thread, which polls it with its sockets."""
        self._items: deque[Delivery | Publication] = deque()

    def put(self, item: Delivery | Publication) -> None:
        """Add an item; the network thread sees it at the next `ring`."""
        self._items.append(item)

    def ring(self) -> None:
        """Wake the network thread if there is anything for it."""
        if self._items:
            self.waker.wake()

    def filled(self) -> bool:
        """Whether there is anything to hand out."""
        return bool(self._items)

    def drain(self, deliver: Callable[[Delivery], None], publish: Callable[[Publication], None]) -> None:
        """Hand out everything there is. Called by the network thread."""
        while self._items:
            item = self._items.popleft()
            if isinstance(item, Delivery):
                deliver(item)
            else:
                publish(item)

    def close(self) -> None:
        """Close the waker; the producer must have stopped."""
        self.waker.close()
