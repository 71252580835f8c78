"""Is an address a host's, and is there a way to it? Asks the kernel, sends nothing."""

from __future__ import annotations

import ipaddress
import socket


class NoRouteError(OSError):
    """The address cannot be a host we reach; the text names the remedy."""


def resolve(host: str, port: int) -> tuple[str, int]:
    """(address, family) of a name or address. Raises NoRouteError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise NoRouteError(f"{host} does not resolve ({error.strerror}); correct the name or DNS") from error
    return str(found[0][4][0]), int(found[0][0])


def source_towards(host: str, port: int) -> tuple[str, str]:
    """(address, our own address on the way to it).

    Raises NoRouteError: unknown name, no host's address (RFC 919/922: the kernel refuses to connect to the
    broadcast address of a network it is in), no route.
    """
    address, family = resolve(host, port)
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.is_multicast or parsed.is_unspecified or str(parsed) == "255.255.255.255":
        raise NoRouteError(f"{address} is no host's address; give the gateway's own")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, port))
        except PermissionError as error:
            raise NoRouteError(f"{address} is a broadcast address; give the gateway's own") from error
        except OSError as error:
            raise NoRouteError(
                f"no route to {address} ({error.strerror}); correct address or routes"
            ) from error
        return address, str(probe.getsockname()[0])
