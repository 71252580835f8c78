"""Networks in a setting that somebody may reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator


def unreadable(setting: str, networks: Iterable[str]) -> Iterator[str]:
    """What in the value of a setting is no address and no network; everyone may be (`0.0.0.0/0`)."""
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield f"{setting} has {network!r}: {error}; write an address, or a network as 203.0.113.0/24"
