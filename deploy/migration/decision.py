"""Whether a host may move to an address now, from what was seen. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True)
class OnHost:
    """What the host says of itself.

    machine: its machine-id. interfaces: device → its addresses with their prefixes. sources: address of a
    peer → address that the host sends from to it, or why that is not known.
    """

    machine: str
    interfaces: Mapping[str, Sequence[Interface]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What was looked at before a move. What could not be found out is the reason as text, never nothing."""

    host: str
    old: str
    new: str
    of_old: OnHost | str
    """What answers at the address that it has, by its known host key."""
    of_new: str
    """machine-id of what answers at the new address with the host's key; empty: `not_new` says why not."""
    not_new: str = ""
    known_otherwise: bool = False
    """Whether the file of host keys knows the new address by another key."""
    deploying: str | None = None
    """Who deploys at this moment, or why that is not known; None: nobody."""
    undeployed: Sequence[str] = ()
    """What runs otherwise than the inventory wants, before anything is changed; or is not known."""


def refusals(seen: Seen) -> Iterator[str]:
    """Why the host may not move now, a sentence with the remedy each; nothing: it may."""
    if seen.deploying is not None:
        yield f"{seen.deploying}; wait for its end, then try again"
    for text in seen.undeployed:
        yield f"{text}; deploy first, so that the move is all that changes"
    if isinstance(seen.of_old, str):
        yield (
            f"{seen.host} does not answer at {seen.old} ({seen.of_old}); while it moves a host has both "
            "addresses"
        )
        return
    yield from _on_host(seen, seen.of_old)
    if seen.known_otherwise:
        yield (
            f"the file of known hosts has another key for {seen.new}: another machine had it. If that is "
            f"gone for good: `ssh-keygen -R {seen.new} -f FILE`"
        )
    elif not seen.of_new:
        yield f"{seen.new} is not reached as {seen.host} from here: {seen.not_new}"
    elif seen.of_new != seen.of_old.machine:
        yield f"at {seen.new} another machine answers, with the host key of {seen.host}: give each its own"


def _on_host(seen: Seen, of: OnHost) -> Iterator[str]:
    new, old = ipaddress.ip_address(seen.new), ipaddress.ip_address(seen.old)
    own = [(device, one) for device, ones in of.interfaces.items() for one in ones]
    there = [one for _, one in own if one.ip == new]
    beside = next(((device, one) for device, one in own if one.ip == old), None)
    if not there:
        device, prefix = ("DEVICE", "PREFIX")
        if beside is not None:
            device, prefix = beside[0], str(beside[1].network.prefixlen)
        yield (
            f"{seen.host} does not have {seen.new} yet: `ip address add {seen.new}/{prefix} dev {device}` "
            "there, and the same in the configuration of its network, which is not this kit's"
        )
    # A network that another address of the host has may be narrower than what the new one was given with.
    for one in {interface.network for _, interface in own if new in interface.network}:
        yield from (f"{seen.new} {text}" for text in unusable(new, one))
    if there:
        yield from _sources(seen, of)


def unusable(address: Address, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Iterator[str]:
    """Why no host can have an address in its network (RFC 919, 922)."""
    if network.num_addresses <= 2:
        return
    if address == network.network_address:
        yield f"is the address of the host's network {network} itself (RFC 922); use another"
    elif address.version == 4 and address == network.broadcast_address:
        yield f"is the broadcast address of the host's network {network} (RFC 919); use another"


def _sources(seen: Seen, of: OnHost) -> Iterator[str]:
    """What the host sends has to be able to come from the new address: its peers admit that alone then."""
    for peer, source in of.sources.items():
        if not _is_address(source):
            yield f"how {seen.host} would reach {peer} is not known: {source}; mend its routes"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
