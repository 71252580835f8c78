"""`python3 -m hub_watch`: watches until it is ended. Exit status 78: the settings cannot be used."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from hub_watch import signature
from hub_watch.door import Door
from hub_watch.notice import Names
from hub_watch.watching import LOOK_S, Settings, Watch


def settings_of(of: Mapping[str, str]) -> Settings:
    """The settings in an environment. KeyError, ValueError: one is missing, or cannot be used."""
    return Settings(
        names=Names(of["HUB"], of["WATCHER"], of["ENVIRONMENT"], of.get("RUNBOOK_URL", "")),
        hub_address=of["HUB_ADDRESS"],
        gateways=tuple((str(address), int(port)) for address, port in json.loads(of["GATEWAYS"])),
        silence_s=float(of["SILENCE_S"]),
        url=of["URL"],
        signing=tuple(signature.keys(of["SECRET"])) if of.get("SECRET") else (),
        state=Path(of["STATE_DIRECTORY"]) / "told.json",
        look_s=float(of.get("LOOK_S", LOOK_S)),
    )


async def watch(settings: Settings, address: str, port: int) -> None:
    """Watch until SIGTERM. OSError: the port cannot be listened on."""
    watching = Watch(settings)
    door = Door(settings.hub_address, watching.scraped, watching.signed, watching.figures)
    server = await door.open(address, port)
    task = asyncio.ensure_future(watching.run())
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        server.close()


def main() -> int:
    """Run it with the settings of the environment."""
    try:
        settings, address, port = settings_of(os.environ), os.environ["ADDRESS"], int(os.environ["PORT"])
    except KeyError as error:
        print(f"{error} is missing in the settings; deploy monitoring", file=sys.stderr)
        return 78
    except (ValueError, TypeError) as error:
        # The name of what is wrong only: one of the values is a secret.
        print(f"the settings cannot be used ({type(error).__name__}); deploy monitoring", file=sys.stderr)
        return 78
    try:
        asyncio.run(watch(settings, address, port))
    except OSError as error:
        print(f"cannot listen on {address} port {port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
