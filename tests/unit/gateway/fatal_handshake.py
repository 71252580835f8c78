"""A gateway whose authenticator dies of one client's handshake; everything else is the program that ships.

`python -m tests.unit.gateway.fatal_handshake`; FATAL_KEY is that client's public key in hex.
"""

import os

from mt5crs.gateway.__main__ import main
from mt5crs.gateway.clients import Clients
from mt5crs.service import exits


class Fatal(BaseException):
    """What no handler expects, as when memory runs out in the handler itself."""


class FatalClients(Clients):
    """The clients file, with one question too many."""

    fatal = ""

    def objection(self, key: str, address: str) -> str:
        """Why a public key may not connect; the fatal one ends the thread that asks."""
        if key == self.fatal:
            raise Fatal
        return super().objection(key, address)


if __name__ == "__main__":
    import mt5crs.gateway.service

    FatalClients.fatal = os.environ["FATAL_KEY"]
    mt5crs.gateway.service.Clients = FatalClients  # type: ignore[misc]
    exits.leave(main())
