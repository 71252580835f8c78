"""Wakes the terminal's thread and the network thread, one from the other."""

import os
import socket
import struct


class Waker:
    """A byte over a socket pair. One thread waits for it, any may wake it.

    Waking lets go of the interpreter's lock, so the woken thread starts at once. What a Condition or a queue
    wakes finds that lock taken, falls asleep and is woken again: measurable on every request.
    """

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: how long `wait` waits; kept by the system, so that waiting is a single call."""
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        milliseconds = max(1, int(timeout_s * 1000))
        seconds, rest = divmod(milliseconds, 1000)
        limit = struct.pack("L", milliseconds) if os.name == "nt" else struct.pack("ll", seconds, rest * 1000)
        self._reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def fileno(self) -> int:
        """Descriptor that is readable after a `wake` until `wait`."""
        return self._reading.fileno()

    def wake(self) -> None:
        """Wake the other thread, or have it not fall asleep."""
        try:
            self._writing.send(b"!")
        except BlockingIOError:
            return  # thousands of bytes are waiting; one is enough

    def wait(self) -> bool:
        """Wait to be woken; false when nobody did in time. Takes all of them: look for work then."""
        try:
            return bool(self._reading.recv(4096))
        except (BlockingIOError, TimeoutError):
            return False

    def close(self) -> None:
        """Close both ends; nobody may ring any more."""
        self._reading.close()
        self._writing.close()
