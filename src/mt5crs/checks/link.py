"""`mt5crs link`: the link from this host to the gateway, layer by layer, lowest first."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import zmq

from mt5crs.checks.route import source_towards
from mt5crs.client.connection import Connection, Peer, milliseconds
from mt5crs.client.errors import GatewayError, KeyRefusedError, RefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.client.published import StateUnavailableError, read_state, unit_of
from mt5crs.client.subscription import Subscription
from mt5crs.operate.connection import ConnectionSettings, env_file_option, json_option, load_connection
from mt5crs.operate.report import Report, Skipped, Warned, exit_status, show
from mt5crs.protocol import addresses, curve, replies, requests
from mt5crs.protocol.codec import PLAIN_PING, PLAIN_PONG
from mt5crs.protocol.events import HEARTBEAT_TOPIC, Heartbeat
from mt5crs.reconciler.evidence import flaws

_PINGS = 5
_SETTLE_ATTEMPTS = 5


class LinkBrokenError(Exception):
    """A layer does not work; the text says what to correct."""


def audit_link(connection: ConnectionSettings) -> Report:
    """Run all nine layers; layers above a broken one are skipped, because they cannot work."""
    report = Report(title=f"Link {connection.client_name} -> {connection.gateway_host}")
    layers: list[tuple[str, Callable[[ConnectionSettings], str]]] = [
        ("1 name and route", _route),
        ("2 TCP", _tcp),
        ("3 ZeroMQ handshake", _handshake),
        ("4 PING/PONG", _ping),
        ("5 permissions", _permissions),
        ("6 SYNC_ALL", _sync_all),
        ("7 heartbeat", _heartbeat),
        ("8 dry-run order", _dry_run),
        ("9 reconciled state", _reconciled),
    ]
    broken = ""
    for name, check in layers:
        if broken:
            report.add(name, "SKIP", f"layer {broken} is broken")
            continue
        works = report.run(
            name,
            lambda check=check: check(connection),  # type: ignore[misc]
            (LinkBrokenError, GatewayError, OSError, StateUnavailableError),
        )
        # The upper layers do not build on each other: PUB may fail while requests work.
        if not works and name[0] <= "4":
            broken = name
    return report


def _route(connection: ConnectionSettings) -> str:
    address, source = source_towards(connection.gateway_host, connection.gateway_port)
    return f"{connection.gateway_host} is {address}, reached from {source}"


def _tcp(connection: ConnectionSettings) -> str:
    times = []
    for port in (connection.gateway_port, connection.gateway_pub_port):
        began = time.perf_counter()
        try:
            socket.create_connection((connection.gateway_host, port), connection.sync_timeout_s).close()
        except OSError as error:
            raise LinkBrokenError(
                f"port {port} of {connection.gateway_host}: {error}; the gateway is down, listens elsewhere, "
                "or a firewall (on either host) does not list this host"
            ) from error
        times.append(f"{port} in {(time.perf_counter() - began) * 1000:.2f} ms")
    return ", ".join(times)


def _handshake(connection: ConnectionSettings) -> str:
    timeout_s = connection.sync_timeout_s
    began = time.perf_counter()
    ours = Connection(connection.peer)
    try:
        ours.connect(timeout_s)
    finally:
        ours.close()
    ms = (time.perf_counter() - began) * 1000
    _, strangers_key = curve.new_keypair()
    stranger = Connection(msgspec.structs.replace(connection.peer, secret_key=strangers_key))
    try:
        stranger.connect(timeout_s)
    except KeyRefusedError:
        return f"our key is accepted in {ms:.1f} ms, a stranger's is refused"
    finally:
        stranger.close()
    raise LinkBrokenError("the gateway accepts a stranger's key, its authenticator is off: halt and redeploy")


def _ping(connection: ConnectionSettings) -> str:
    _plain_ping(connection.peer, connection.sync_timeout_s)
    times = []
    with connection.client() as client:
        for _ in range(_PINGS):
            began = time.perf_counter()
            client.once(
                requests.Ping,
                replies.Pong,
                timeout_s=connection.sync_timeout_s,
                magic=connection.magic_number,
            )
            times.append((time.perf_counter() - began) * 1000)
    return f"{PLAIN_PONG.decode()}… and typed PONG, {min(times):.2f} to {max(times):.2f} ms"


def _plain_ping(peer: Peer, timeout_s: float) -> None:
    """The text PING that anything can send."""
    plain: curve.Socket = zmq.Context.instance().socket(zmq.DEALER)
    try:
        curve.secure_client(plain, peer.server_key, peer.secret_key)
        addresses.prepare(plain, peer.host)
        plain.connect(peer.request_url)
        answer = b""
        if plain.poll(milliseconds(timeout_s), zmq.POLLOUT):
            plain.send(PLAIN_PING)
            if plain.poll(milliseconds(timeout_s), zmq.POLLIN):
                answer = plain.recv_multipart()[-1]
    finally:
        plain.close(0)
    if not answer.startswith(PLAIN_PONG):
        raise LinkBrokenError(f"PING got {answer[:40]!r}: no gateway of this product")


def _permissions(connection: ConnectionSettings) -> str:
    """What this client may do, found out by requests that cannot change anything."""
    magic = connection.magic_number
    with connection.client() as client:
        granted = [name for name, probe in _PROBES.items() if _allowed(probe(client, connection))]
    if "observe" not in granted:
        raise LinkBrokenError(
            f"{connection.client_name} may not observe magic {magic}; correct gateway_clients"
        )
    return f"{connection.client_name} may {', '.join(granted)} magic {magic}"


def _allowed(probe: Callable[[], object]) -> bool:
    try:
        probe()
    except RefusedError as error:
        return error.reply.code != "FORBIDDEN"
    return True


def _observe(client: GatewayClient, connection: ConnectionSettings) -> Callable[[], object]:
    return lambda: client.call(requests.AccountQuery, replies.AccountState, magic=connection.magic_number)


def _lease(client: GatewayClient, connection: ConnectionSettings) -> Callable[[], object]:
    # Nobody's instance cannot renew anything: FENCED for whom it is allowed, FORBIDDEN for others.
    return lambda: client.call(
        requests.LeaseRenew,
        replies.Lease,
        magic=connection.magic_number,
        instance=f"link-{os.urandom(8).hex()}",
        lease_epoch=1,
        ttl_ms=500,
    )


def _trade(client: GatewayClient, connection: ConnectionSettings) -> Callable[[], object]:
    return lambda: _order_check(client, connection)


_PROBES: dict[str, Callable[[GatewayClient, ConnectionSettings], Callable[[], object]]] = {
    "observe": _observe,
    "lease": _lease,
    "trade": _trade,
}


def _sync_all(connection: ConnectionSettings) -> str:
    magic = connection.magic_number
    with connection.client() as client:
        try:
            snapshot, whole = client.snapshot(magic, history_since_msc=None), True
        except RefusedError as error:
            if (error.reply.code, error.reply.field) != ("FORBIDDEN", "whole_account"):
                raise
            # A key that only trades sees what is its own.
            snapshot, whole = client.snapshot(magic, history_since_msc=None, whole_account=False), False
    login = connection.expected_account_login or snapshot.identity.login
    found = flaws(snapshot, magic, login, whole_account=whole)
    if found:
        raise LinkBrokenError("; ".join(found))
    mine = [p for p in snapshot.positions if p.magic == magic]
    others = f"of {len(snapshot.positions)}" if whole else "(this key sees no others)"
    text = f"account {snapshot.identity.login}, {len(mine)} positions of ours {others}"
    if snapshot.unresolved:
        raise Warned(f"{text}; unresolved orders: {', '.join(snapshot.unresolved)}")
    return text


def _heartbeat(connection: ConnectionSettings) -> str:
    subscription = Subscription(connection.peer, [HEARTBEAT_TOPIC])
    heard: list[Heartbeat] = []
    deadline = time.monotonic() + 12
    try:
        while len(heard) < 2 and (left := deadline - time.monotonic()) > 0:
            heard += [event for _, event in subscription.receive(left) if isinstance(event, Heartbeat)]
    finally:
        subscription.close()
    if len(heard) < 2:
        raise LinkBrokenError(
            f"{len(heard)} heartbeats in 12 s on port {connection.gateway_pub_port}; "
            "check GATEWAY_PUB_PORT and the firewalls"
        )
    if heard[1].seq != heard[0].seq + 1:
        raise LinkBrokenError(f"heartbeat {heard[0].seq} was followed by {heard[1].seq}: events get lost")
    return f"every {heard[0].interval_ms} ms, gateway is {heard[1].state}"


def _order_check(client: GatewayClient, connection: ConnectionSettings) -> replies.CheckResult:
    spec = client.call(
        requests.SymbolQuery, replies.SymbolReply, magic=connection.magic_number, symbol=connection.symbol
    ).spec
    return client.call(
        requests.OrderCheck,
        replies.CheckResult,
        magic=connection.magic_number,
        symbol=connection.symbol,
        side="BUY",
        type="MARKET",
        volume=spec.volume_min,
        price=None,
        sl=None,
        tp=None,
        max_slippage_points=None,
        filling=spec.filling_for("MARKET") or "IOC",
        expiration_msc=None,
    )


def _dry_run(connection: ConnectionSettings) -> str:
    with connection.client() as client:
        try:
            result = _order_check(client, connection)
        except RefusedError as error:
            if error.reply.code == "FORBIDDEN":
                raise Skipped("this client may not trade; run it with the strategy's .env") from error
            if error.reply.code in ("HALTED", "LIMIT"):
                raise Warned(f"order check reached the gateway, which refuses: {error}") from error
            raise
    if result.retcode != 0:
        raise Warned(f"the broker would answer {result.retcode}: {result.comment}")
    return f"{connection.symbol} minimum volume would be accepted, margin {result.margin:g}"


def _reconciled(connection: ConnectionSettings) -> str:
    """The reconciler's own digest against a fresh answer of the gateway; a moving state gets attempts."""
    if not Path(connection.reconciler_socket).exists():
        raise LinkBrokenError(
            f"no reconciler at {connection.reconciler_socket}; start "
            f"{unit_of(connection.reconciler_socket)} on this host"
        )
    ours = theirs = ""
    with connection.client() as client:
        for attempt in range(_SETTLE_ATTEMPTS):
            if attempt:
                time.sleep(0.2)
            books = client.snapshot(connection.magic_number, history_since_msc=None, whole_account=False)
            theirs = books.digest
            state = read_state(connection.reconciler_socket)
            if state.magic != connection.magic_number:
                raise LinkBrokenError(f"the reconciler looks after magic {state.magic}")
            if state.state not in ("ready", "shadow"):
                raise LinkBrokenError(f"the reconciler says {state.state}: {state.reason}")
            ours = state.digest
            if ours == theirs:
                return f"equal, digest {ours[:16]}…, {len(state.positions or ())} positions"
    raise LinkBrokenError(f"reconciler {ours[:16]}… and gateway {theirs[:16]}… differ; see its journal")


@click.command()
@env_file_option
@json_option
def link(env_file: Path | None, as_json: bool) -> None:
    """Check the link to the gateway in nine layers. Exit 1 when one is broken."""
    connection = load_connection(env_file)
    report = audit_link(connection)
    show(report, as_json=as_json)
    raise SystemExit(exit_status(report))
