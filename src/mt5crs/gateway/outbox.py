"""What the terminal's thread hands to the network thread: replies and events, in the order they happened."""

from collections import deque
from collections.abc import Callable

import zmq
from msgspec import Struct

from mt5crs.protocol.curve import Context, Socket


class Delivery(Struct, frozen=True):
    """A reply: frames ready for the socket of `door`."""

    door: object
    frames: list[bytes]


class Publication(Struct, frozen=True):
    """An event: topic and payload."""

    topic: str
    payload: bytes


class Outbox:
    """One producer thread, one consumer thread; a wake-up byte over an in-process socket between them."""

    def __init__(self, context: Context, name: str) -> None:
        address = f"inproc://outbox-{name}"
        self.wakeup: Socket = context.socket(zmq.PAIR)
        self.wakeup.bind(address)
        self._bell: Socket = context.socket(zmq.PAIR)
        self._bell.connect(address)
        self._items: deque[Delivery | Publication] = deque()

    def put(self, item: Delivery | Publication) -> None:
        """Add an item; the network thread sees it at the next `ring`."""
        self._items.append(item)

    def ring(self) -> None:
        """Wake the network thread if there is anything for it."""
        if self._items:
            try:
                self._bell.send(b"", zmq.NOBLOCK)
            except zmq.Again:
                return  # it has a thousand wake-ups waiting; one is enough

    def filled(self) -> bool:
        """Whether there is anything to hand out."""
        return bool(self._items)

    def drain(self, deliver: Callable[[Delivery], None], publish: Callable[[Publication], None]) -> None:
        """Hand out everything there is. Called by the network thread."""
        while self.wakeup.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator,arg-type]
            self.wakeup.recv(zmq.NOBLOCK)
        while self._items:
            item = self._items.popleft()
            if isinstance(item, Delivery):
                deliver(item)
            else:
                publish(item)

    def close(self) -> None:
        """Close both ends; the producer must have stopped."""
        self._bell.close()
        self.wakeup.close()
