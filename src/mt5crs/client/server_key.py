"""The gateway's key as its clients know it: one, and while a change of it is not confirmed the former, too.

Whoever asks tries them in turn. Once the new one has let us in, the former counts no more: it may have been
changed because somebody else has it.
"""

from __future__ import annotations


class ServerKey:
    """Shared by all connections of a process to one gateway; a lost race costs one more try."""

    def __init__(self, key: str, former: str = "") -> None:
        """`former` empty: the key alone counts."""
        self._key = key
        self._former = "" if former == key else former
        self.now = key
        """What is to be tried next."""

    @property
    def two(self) -> bool:
        """Whether the former one is still taken."""
        return bool(self._former)

    def refused(self, tried: str) -> None:
        """A handshake by `tried` came to nothing: the other one is next."""
        if self._former and tried == self.now:
            self.now = self._former if tried == self._key else self._key

    def worked(self, tried: str) -> None:
        """The gateway has shown that it holds `tried`."""
        if tried == self._key:
            self.now, self._former = tried, ""
