"""Wakes the terminal's thread and the network thread, one from the other."""

import os
import socket
import struct


class Bell:
    """A byte over a socket pair. One thread hears it, any may ring.

    Ringing lets go of the interpreter's lock, so the woken thread starts at once. What a Condition or a queue
    wakes finds that lock taken, falls asleep and is woken again: measurable on every request.
    """

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: how long `hear` waits; kept by the system, so that waiting is a single call."""
        self._ear, self._hammer = socket.socketpair()
        self._hammer.setblocking(False)
        milliseconds = max(1, int(timeout_s * 1000))
        seconds, rest = divmod(milliseconds, 1000)
        limit = struct.pack("L", milliseconds) if os.name == "nt" else struct.pack("ll", seconds, rest * 1000)
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def fileno(self) -> int:
        """Descriptor that is readable after a `ring` until `hear`."""
        return self._ear.fileno()

    def ring(self) -> None:
        """Wake the other thread, or have it not fall asleep."""
        try:
            self._hammer.send(b"!")
        except BlockingIOError:
            return  # thousands of bytes are waiting; one is enough

    def hear(self) -> bool:
        """Wait for a ring; false when none came in time. Takes all rings so far: look for work after this."""
        try:
            return bool(self._ear.recv(4096))
        except (BlockingIOError, TimeoutError):
            return False

    def close(self) -> None:
        """Close both ends; nobody may ring any more."""
        self._ear.close()
        self._hammer.close()
