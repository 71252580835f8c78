"""`python -m mt5crs.gateway`: exits 0 after SIGTERM, 1 when a part dies, 78 for bad settings or clients."""

from __future__ import annotations

import gc

from mt5crs.service import exits, program
from mt5crs.service.logs import Log
from mt5crs.settings.gateway import GatewaySettings

from .access import ClientsFileError
from .service import Gateway, PartDiedError


def opened(settings: GatewaySettings, log: Log) -> Gateway:
    """The gateway. Raises what `Gateway` raises."""
    gateway = Gateway(settings, log)
    gc.freeze()  # what is there now stays: no need to look through it again in the middle of a request
    return gateway


def main() -> int:
    """Run until told to stop."""
    return program.main(
        "gateway",
        GatewaySettings,
        opened,
        read_again=lambda gateway, _settings: gateway.reload(),
        misconfigured=(ClientsFileError,),
        foreseen=(PartDiedError,),
    )


if __name__ == "__main__":
    exits.leave(main())
