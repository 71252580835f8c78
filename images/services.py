"""Which images there are and what each of them runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

PYTHON = "/usr/bin/python3.13"
USER = 10001
"""Id of user and group in every image; volumes and secrets belong to it."""
STATE = "/var/lib/mt5crs"
SOCKETS = "/run/mt5crs-reconciler"
REPOSITORY = "localhost/mt5crs"


@dataclass(frozen=True)
class Service:
    """One image. `volumes`: what outlives a container; `ports`: what it listens on."""

    name: str
    about: str
    volumes: tuple[str, ...]
    ports: tuple[int, ...]

    @property
    def command(self) -> list[str]:
        """What the container runs, without a shell."""
        return [PYTHON, "-m", f"mt5crs.{self.name}"]

    @property
    def health(self) -> list[str]:
        """The service's own health command: exit status 0 when it is healthy."""
        return [PYTHON, "-m", "mt5crs", "health", self.name]


SERVICES = (
    Service(
        "gateway",
        "gateway with the simulated broker",
        (f"{STATE}/gateway",),
        (5555, 5556, 9101),
    ),
    Service("reconciler", "reconciler", (f"{STATE}/reconciler", SOCKETS), (9102,)),
    Service("strategy", "strategy", (f"{STATE}/strategy", SOCKETS), (9103,)),
)


def reference(service: str, tag: str) -> str:
    """Return the full name of an image."""
    return f"{REPOSITORY}/{service}:{tag}"
