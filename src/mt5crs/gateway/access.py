"""Who may do what: the clients file, and the decision for each request."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from mt5crs.protocol import requests as ask
from mt5crs.protocol.addresses import canonical
from mt5crs.protocol.events import ACCOUNT_TOPIC, CONTROL_TOPIC, HEARTBEAT_TOPIC, trade_topic
from mt5crs.protocol.plain_json import PlainJsonError, read_object
from mt5crs.settings.gateway import Client, ClientsFile, LegacyClient, Limits, legacy_problems

from .refusal import Refusal

_NEEDS: dict[type[ask.Request], frozenset[str]] = {
    ask.Ping: frozenset({"observe", "lease", "trade", "halt", "administer"}),
    ask.Status: frozenset({"observe", "lease", "trade", "administer"}),
    ask.SyncAll: frozenset({"observe", "lease", "trade"}),
    ask.AccountQuery: frozenset({"observe", "lease", "trade"}),
    ask.SymbolQuery: frozenset({"observe", "lease", "trade"}),
    ask.TickQuery: frozenset({"observe", "lease", "trade"}),
    ask.HistoryQuery: frozenset({"observe", "lease", "trade"}),
    ask.OrderQuery: frozenset({"observe", "lease", "trade"}),
    ask.OrderCheck: frozenset({"trade"}),
    ask.OrderSend: frozenset({"trade"}),
    ask.OrderCancel: frozenset({"trade", "administer"}),
    ask.PositionClose: frozenset({"trade", "administer"}),
    ask.LeaseAcquire: frozenset({"lease", "trade"}),
    ask.LeaseRenew: frozenset({"lease", "trade"}),
    ask.LeaseRelease: frozenset({"lease", "trade"}),
    ask.Halt: frozenset({"administer"}),
    ask.Resume: frozenset({"administer"}),
    ask.OrderResolve: frozenset({"administer"}),
    ask.PhaseQuery: frozenset({"observe", "lease", "trade", "administer"}),
    ask.PhaseSet: frozenset({"administer"}),
    ask.PhaseDemote: frozenset({"administer"}),
    ask.PhaseTrading: frozenset({"administer"}),
}
"""One of these permissions is needed for a kind. A trader, and who may halt and nothing else, may also
halt its own magic numbers; who administers closes and cancels only under a halt (`is_operator`).
"""
_HALTS_ITS_OWN = frozenset({"trade", "halt"})

_OWN_MAGIC_ONLY = frozenset(
    {
        ask.OrderCheck,
        ask.OrderSend,
        ask.OrderCancel,
        ask.PositionClose,
        ask.LeaseAcquire,
        ask.LeaseRenew,
        ask.LeaseRelease,
    }
)


_OF_A_MAGIC = (ask.SyncAll, ask.HistoryQuery, ask.OrderQuery, ask.PhaseQuery)
"""Where magic number 0 means all of them, or those of nobody: nothing for a client limited to some."""

_FOR_ANY_MAGIC = (
    ask.Halt,
    ask.Resume,
    ask.OrderResolve,
    ask.OrderCancel,
    ask.PositionClose,
    ask.PhaseQuery,
    ask.PhaseSet,
    ask.PhaseDemote,
    ask.PhaseTrading,
)
"""What a client that administers may do for magic numbers that are not its own."""

_TOPICS_OF_ALL = (ACCOUNT_TOPIC, CONTROL_TOPIC, HEARTBEAT_TOPIC, "tick.")


class ClientsFileError(ValueError):
    """The clients file cannot be used."""


class Peer(Struct, frozen=True, kw_only=True):
    """A client as the gateway knows it."""

    name: str
    permissions: frozenset[str]
    magics: frozenset[int]
    sources: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """Where its key is accepted from; none: from wherever it gets to the gateway."""

    def may_come_from(self, address: str) -> bool:
        """Whether its key is accepted from an address."""
        if not self.sources:
            return True
        source = ipaddress.ip_address(address)
        return any(source in network for network in self.sources)


class Access(Struct, frozen=True, kw_only=True):
    """The clients file, indexed."""

    by_key: dict[str, Peer]
    limits: dict[int, Limits]
    legacy: dict[str, Peer]
    """Clients of the legacy adapter by source address."""
    serial: int = 0
    """Version of the list; it only rises."""


def parse(text: bytes, origin: str) -> Access:
    """Read a clients file. Raises ClientsFileError with every problem."""
    try:
        file = msgspec.convert(read_object(text), ClientsFile)
    except (PlainJsonError, msgspec.ValidationError) as error:
        raise ClientsFileError(f"{origin}: {error}; correct the file and deploy again") from None
    problems = list(_problems(file))
    if problems:
        raise ClientsFileError(f"{origin}: " + "; ".join(problems))
    return Access(
        by_key={key: _peer(name, client) for key, name, client in _keys(file)},
        limits={int(magic): limits for magic, limits in file.limits.items()},
        # Former addresses first: one belongs to who has it now.
        legacy={
            **{
                canonical(one.former_address): _peer(name, one)
                for name, one in file.legacy.items()
                if one.former_address
            },
            **{canonical(one.address): _peer(name, one) for name, one in file.legacy.items()},
        },
        serial=file.serial,
    )


def _keys(file: ClientsFile) -> Iterator[tuple[str, str, Client]]:
    for name, client in file.clients.items():
        for key in filter(None, (client.key, client.former_key)):
            yield key, name, client


def _peer(name: str, client: Client | LegacyClient) -> Peer:
    addresses = client.addresses if isinstance(client, Client) else ()
    return Peer(
        name=name,
        permissions=frozenset(client.permissions),
        magics=frozenset(client.magics),
        sources=tuple(map(ipaddress.ip_network, addresses)),
    )


def load(path: Path) -> Access:
    """Read a clients file from disk. Raises ClientsFileError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ClientsFileError(
            f"{path} cannot be read: {error.strerror}; set CLIENTS_FILE, or deploy the gateway again"
        ) from error
    return parse(text, str(path))


def _problems(file: ClientsFile) -> list[str]:
    found = []
    owners: dict[str, str] = {}
    for key, name, _ in _keys(file):
        if key in owners:
            found.append(f"{name} and {owners[key]} have the same key; give each client its own")
        owners.setdefault(key, name)
    for name, client in file.clients.items():
        for may in sorted(_HALTS_ITS_OWN & set(client.permissions)):
            if not client.magics:
                found.append(f"{name} may {may} but has no magics; list the magic numbers it may {may}")
        found += client.address_problems(name)
    found += [
        f"limits key {magic!r} is no magic number"
        for magic in file.limits
        if not magic.isdigit() or magic == "0"
    ]
    found += legacy_problems(file.legacy, file.clients)
    return found


def authorise(peer: Peer, request: ask.Request) -> None:
    """Raise Refusal (FORBIDDEN) unless this client may make this request. Pure."""
    if request.client != peer.name:
        raise Refusal(
            "FORBIDDEN",
            "client",
            f"this key belongs to {peer.name}, not to {request.client}",
            "send the name under which the gateway lists this key",
        )
    needed = _NEEDS[type(request)]
    own_halt = (
        type(request) is ask.Halt
        and request.scope == "MAGIC"
        and not _HALTS_ITS_OWN.isdisjoint(peer.permissions)
    )
    if needed.isdisjoint(peer.permissions) and not own_halt:
        raise Refusal(
            "FORBIDDEN",
            "kind",
            f"{peer.name} has permission {sorted(peer.permissions)}; this needs one of {sorted(needed)}",
            "use a client with that permission, or grant it in the clients file",
        )
    if isinstance(request, ask.SyncAll) and request.whole_account and "observe" not in peer.permissions:
        raise Refusal(
            "FORBIDDEN",
            "whole_account",
            f"{peer.name} has permission {sorted(peer.permissions)}; the whole account needs observe",
            "ask for your own magic number only, or grant observe in the clients file",
        )
    restricted = own_halt and "administer" not in peer.permissions
    limited = peer.magics and (request.magic or isinstance(request, _OF_A_MAGIC))
    if type(request) in _OWN_MAGIC_ONLY or restricted or limited:
        _own_magic(peer, request)


def may_subscribe(peer: Peer, topic: str) -> bool:
    """Whether this client may receive what begins with a topic: no trades of others without observe, and
    nothing but heartbeats for who may only halt. Pure.
    """
    if peer.permissions == {"halt"}:
        return topic.startswith(HEARTBEAT_TOPIC)
    if "observe" in peer.permissions or topic.startswith(_TOPICS_OF_ALL):
        return True
    return topic in {trade_topic(magic) for magic in peer.magics}


def _own_magic(peer: Peer, request: ask.Request) -> None:
    if request.magic not in peer.magics and not (
        "administer" in peer.permissions and isinstance(request, _FOR_ANY_MAGIC)
    ):
        raise Refusal(
            "FORBIDDEN",
            "magic",
            f"magic number {request.magic} does not belong to {peer.name}",
            f"use one of {sorted(peer.magics)}, or add it to this client in the clients file",
        )


def is_operator(peer: Peer, request: ask.Request) -> bool:
    """Whether this client closes and cancels as an operator: it administers and does not trade this magic
    number itself. Pure.
    """
    if "administer" not in peer.permissions:
        return False
    return "trade" not in peer.permissions or request.magic not in peer.magics
