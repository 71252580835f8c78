"""Addresses as text: an IPv6 literal goes in brackets before a port, and ZeroMQ has to be told of it.

Cheap to import: also those use it who never open a ZeroMQ socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import zmq

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def is_ipv6(host: str) -> bool:
    """Whether a name or address is an IPv6 literal."""
    return ":" in host


def bracketed(host: str) -> str:
    """The host as it stands before a port."""
    return f"[{host}]" if is_ipv6(host) and not host.startswith("[") else host


def with_port(host: str, port: int) -> str:
    """`host:port` for people and programs."""
    return f"{bracketed(host)}:{port}"


def end_point(host: str, port: int | str) -> str:
    """ZeroMQ's address of a TCP port."""
    return f"tcp://{bracketed(host)}:{port}"


def from_itself(host: str, port: int | str) -> str:
    """The same for a port of this host, asked from the address that it is bound to.

    The kernel would take the interface's first address, which a service need not let in.
    """
    return f"tcp://{bracketed(host)}:0;{bracketed(host)}:{port}"


def prepare(socket: zmq.Socket[Any], host: str) -> None:
    """Before a socket connects to a host or binds to it: libzmq looks at IPv6 only when asked to."""
    if is_ipv6(host):
        import zmq

        socket.setsockopt(zmq.IPV6, 1)


def reached_from_here(bound: str) -> str:
    """How this host reaches what it has bound to an address: every address is none to connect to."""
    return _ANY.get(bound, bound)


def canonical(address: str) -> str:
    """One spelling for each address; a text that is none stays as it is."""
    import ipaddress

    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
