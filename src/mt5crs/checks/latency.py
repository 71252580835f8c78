"""`mt5crs latency`: round trips of PING and delays of events through the network, with honest percentiles."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import click
import msgspec
import zmq

from mt5crs.checks.event_delay import Clock, EventFigures, Heard, listen
from mt5crs.checks.percentiles import confidence_note, histogram_svg, histogram_text, percentile
from mt5crs.checks.route import NoRouteError, source_towards
from mt5crs.client.connection import milliseconds
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import one_line_errors
from mt5crs.protocol import addresses, curve
from mt5crs.protocol.codec import PLAIN_PING, PLAIN_PONG
from mt5crs.service import exits
from mt5crs.settings import envfile
from mt5crs.settings.schema import Settings, SettingsError, load, setting

_MAX_ANSWER = 64 * 1024
"""Largest answer and event that is taken, in bytes: a PONG has a few, a snapshot is not asked for."""
_INTERRUPTED = 130
P50_TARGET_MS, P99_TARGET_MS, ERROR_TARGET = 50.0, 400.0, 0.001


class LatencySettings(Settings, frozen=True, kw_only=True):
    """Where to measure; keys are needed unless the peer speaks without encryption."""

    part: ClassVar[str] = "latency"

    server_ip: Annotated[str, setting("Address of the gateway.", kind="address", env="ZMQ_SERVER_IP")]
    req_port: Annotated[int, setting("Request port.", ge=1, le=65535, env="ZMQ_REQ_PORT")] = 5555
    pub_port: Annotated[int, setting("Event port.", ge=1, le=65535, env="ZMQ_PUB_PORT")] = 5556
    gateway_public_key: Annotated[
        str,
        setting("CURVE public key of the gateway; empty: plain.", pattern=r"^([0-9a-f]{64})?\Z"),
    ] = ""
    client_secret_key: Annotated[
        str, setting("Our CURVE secret key.", pattern=r"^([0-9a-f]{64})?\Z", secret=True)
    ] = ""

    def problems(self) -> list[str]:
        """What cannot be measured."""
        found = []
        try:
            source_towards(self.server_ip, self.req_port)
        except NoRouteError as error:
            found.append(f"ZMQ_SERVER_IP: {error}")
        if self.req_port == self.pub_port:
            found.append("ZMQ_REQ_PORT and ZMQ_PUB_PORT are equal; the gateway has two sockets")
        if bool(self.gateway_public_key) != bool(self.client_secret_key):
            found.append("GATEWAY_PUBLIC_KEY and CLIENT_SECRET_KEY belong together; give both or none")
        return found


class Figures(msgspec.Struct, kw_only=True):
    """Result of a measurement; times in milliseconds."""

    samples: int
    errors: dict[str, int]
    error_rate: float
    minimum: float
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float
    notes: list[str]
    verdict: str
    events: EventFigures | None = None


class Seen(msgspec.Struct):
    """What a measurement has seen so far: it is there also when the measurement is interrupted."""

    times: list[float] = msgspec.field(default_factory=list)
    """Round trips in ms."""
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    """By layer: zmq, os, other, timeout, answer."""
    wrong: bytes = b""
    """Beginning of the first answer that was no PONG."""
    clock: Clock = msgspec.field(default_factory=Clock)
    heard: Heard = msgspec.field(default_factory=Heard)


def judge(times_ms: list[float], errors: dict[str, int], wrong: bytes = b"") -> Figures:
    """Turn raw times and error counts into figures and a verdict against the targets. Pure."""
    ordered = sorted(times_ms)
    failed = sum(errors.values())
    rate = failed / (len(ordered) + failed) if ordered or failed else 1.0
    notes = []
    if errors.get("answer"):
        notes.append(
            f"{errors['answer']} answers do not begin with {PLAIN_PONG.decode()}; the first: {wrong!r}"
        )
    if not ordered:
        nan = float("nan")
        return Figures(
            samples=0,
            errors=errors,
            error_rate=rate,
            minimum=nan,
            mean=nan,
            p50=nan,
            p95=nan,
            p99=nan,
            maximum=nan,
            notes=notes or [f"no answer at all (one above {_MAX_ANSWER // 1024} KiB is not taken)"],
            verdict="FAIL",
        )
    p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
    good = p50 < P50_TARGET_MS and p99 < P99_TARGET_MS and rate < ERROR_TARGET
    notes += [note for share in (0.95, 0.99) if (note := confidence_note(len(ordered), share))]
    return Figures(
        samples=len(ordered),
        errors=errors,
        error_rate=rate,
        minimum=ordered[0],
        mean=sum(ordered) / len(ordered),
        p50=p50,
        p95=p95,
        p99=p99,
        maximum=ordered[-1],
        notes=notes,
        verdict="PASS" if good else "FAIL",
    )


def judge_events(figures: Figures, seen: Seen, where: LatencySettings) -> None:
    """Add what was heard on the event port. A gateway of ours sends heartbeats, so silence is a failure; one
    that speaks plainly sends quotes only, and none while the market is closed.
    """
    figures.events = seen.heard.figures(seen.clock)
    if figures.events.events:
        return
    silence = f"no event on port {where.pub_port} in {seen.heard.seconds:.1f} s"
    if where.gateway_public_key:
        figures.notes.append(f"{silence}; check ZMQ_PUB_PORT and the firewalls")
        figures.verdict = "FAIL"
    else:
        figures.notes.append(f"{silence}; the market is closed, or ZMQ_PUB_PORT is wrong or shut")


def measure(
    where: LatencySettings, samples: int, warm_up: int, timeout_s: float, seen: Seen | None = None
) -> tuple[list[float], dict[str, int]]:
    """Times of the answers in ms, and errors by layer (zmq, os, other, timeout, answer); as they come, they
    go into `seen`. Closes its connections.
    """
    seen = seen or Seen()
    times, errors = seen.times, seen.errors
    context: curve.Context = zmq.Context()
    try:
        socket = _connect(context, where)
        for number in range(warm_up + samples):
            layer, elapsed = _once(socket, number, timeout_s, seen)
            if layer:
                errors[layer] = errors.get(layer, 0) + 1
                socket.close(0)
                socket = _connect(context, where)
            elif number >= warm_up:
                times.append(elapsed)
            if not times and errors and sum(errors.values()) >= 3:
                break  # nobody there: three time-outs say as much as a thousand
    finally:
        context.destroy(0)
    return times, errors


def hear(where: LatencySettings, seconds: float, seen: Seen) -> None:
    """Listen to the event port for a while; what arrives goes into `seen`."""
    context: curve.Context = zmq.Context()
    try:
        socket = _open(context, where, zmq.SUB, where.pub_port)
        socket.subscribe(b"")
        listen(socket, seconds, seen.clock, seen.heard, encrypted=bool(where.gateway_public_key))
    finally:
        context.destroy(0)


def _once(socket: curve.Socket, number: int, timeout_s: float, seen: Seen) -> tuple[str, float]:
    """One PING. Returns (layer that failed or "", milliseconds)."""
    question = PLAIN_PING + b":LATENCY:%d" % number
    try:
        if not socket.poll(milliseconds(timeout_s), zmq.POLLOUT):
            return "timeout", 0.0
        sent_ms, began = time.time() * 1000, time.perf_counter()
        socket.send(question, zmq.NOBLOCK)
        if not socket.poll(milliseconds(timeout_s), zmq.POLLIN):
            return "timeout", 0.0
        frames = socket.recv_multipart(zmq.NOBLOCK)
    except zmq.ZMQError:
        return "zmq", 0.0
    except OSError:
        return "os", 0.0
    except (ValueError, TypeError):
        return "other", 0.0
    elapsed = (time.perf_counter() - began) * 1000
    if len(frames) != 1 or not frames[0].startswith(PLAIN_PONG):
        seen.wrong = seen.wrong or b" ".join(frames)[:40]
        return "answer", elapsed
    theirs = frames[0].removeprefix(PLAIN_PONG)
    if theirs.isdigit() and len(theirs) < 16:
        seen.clock.learn(int(theirs), sent_ms, sent_ms + elapsed)
    return "", elapsed


def _connect(context: curve.Context, where: LatencySettings) -> curve.Socket:
    # A plain peer is a REQ/REP server of the legacy kind: it wants the REQ envelope.
    kind = zmq.DEALER if where.gateway_public_key else zmq.REQ
    return _open(context, where, kind, where.req_port)


def _open(context: curve.Context, where: LatencySettings, kind: int, port: int) -> curve.Socket:
    socket = context.socket(kind)
    if where.gateway_public_key:
        curve.secure_client(socket, where.gateway_public_key, where.client_secret_key)
    else:
        socket.setsockopt(zmq.LINGER, 0)
        if kind != zmq.SUB:
            socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, _MAX_ANSWER)
    addresses.prepare(socket, where.server_ip)
    socket.connect(addresses.end_point(where.server_ip, port))
    return socket


def _environment(env_file: Path | None) -> Mapping[str, str]:
    """ZMQ_* names, filled from GATEWAY_* where they are missing. The environment wins over the file."""
    values = envfile.read(env_file) if env_file is not None else dict(os.environ)
    for ours, theirs in (
        ("ZMQ_SERVER_IP", "GATEWAY_HOST"),
        ("ZMQ_REQ_PORT", "GATEWAY_PORT"),
        ("ZMQ_PUB_PORT", "GATEWAY_PUB_PORT"),
    ):
        given = os.environ.get(ours) or values.get(ours) or values.get(theirs)
        if given:
            values[ours] = given
    return values


@click.command()
@click.option("--samples", type=click.IntRange(1, 10_000_000), default=1000, show_default=True)
@click.option("--warm-up", type=click.IntRange(0, 10_000), default=20, show_default=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.01, 60), default=1.0, show_default=True)
@click.option(
    "--listen",
    "listen_s",
    type=click.FloatRange(0, 3600),
    default=3.0,
    show_default=True,
    help="How long to listen for events afterwards, in seconds; 0: not at all.",
)
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture to this file.")
@click.option("--dry-run", is_flag=True, help="Check the configuration and say what would be done.")
@click.option("--env-file", type=click.Path(path_type=Path, dir_okay=False), help="Addresses and keys.")
@json_option
def latency(
    samples: int,
    warm_up: int,
    timeout_s: float,
    listen_s: float,
    svg: Path | None,
    dry_run: bool,
    env_file: Path | None,
    as_json: bool,
) -> None:
    """Measure PING round trips and how events arrive. ZMQ_SERVER_IP, ZMQ_REQ_PORT, ZMQ_PUB_PORT say where.

    Exit 1 when a target is missed: P50 under 50 ms, P99 under 400 ms, errors under 0.1 %, events heard (of a
    gateway with encryption). Ctrl-C ends it early: it shows what it has, and exits with 130.
    """
    with one_line_errors(SettingsError, OSError, status=exits.CONFIGURATION):
        where = load(LatencySettings, _environment(env_file))
    kind = "encrypted" if where.gateway_public_key else "plain"
    if dry_run:
        click.echo(
            f"would send {warm_up} + {samples} PINGs over one {kind} connection to "
            f"{where.server_ip}:{where.req_port}, {timeout_s:g} s each, and listen for events on "
            f"{where.pub_port} for {listen_s:g} s; nothing sent"
        )
        return
    seen, interrupted = Seen(), False
    try:
        measure(where, samples, warm_up, timeout_s, seen)
        if listen_s and seen.times:
            hear(where, listen_s, seen)
    except KeyboardInterrupt:
        interrupted = True
    figures = judge(seen.times, seen.errors, seen.wrong)
    if seen.heard.seconds:
        judge_events(figures, seen, where)
    if interrupted:
        figures.notes.append(f"interrupted after {len(seen.times)} of {samples} samples")
        figures.verdict = "INTERRUPTED"
    if svg is not None and seen.times:
        marks = {"P50": figures.p50, "P95": figures.p95, "P99": figures.p99}
        with one_line_errors(OSError):
            svg.write_text(
                histogram_svg(seen.times, marks, "ms", f"PING {where.server_ip}:{where.req_port}"),
                encoding="utf-8",
            )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(figures)).decode())
    else:
        click.echo(_text(figures, seen.times))
    raise SystemExit(_INTERRUPTED if interrupted else int(figures.verdict != "PASS"))


def _text(figures: Figures, times: list[float]) -> str:
    lines = [
        *([histogram_text(times, "ms")] if times else []),
        f"{figures.samples} samples, errors {figures.errors or 'none'} ({figures.error_rate:.3%})",
    ]
    if times:
        lines.append(
            f"min {figures.minimum:.3f}  mean {figures.mean:.3f}  P50 {figures.p50:.3f}  P95 "
            f"{figures.p95:.3f}  P99 {figures.p99:.3f}  max {figures.maximum:.3f} ms"
        )
    events = figures.events
    if events is not None:
        told = [f"events: {events.events} in {events.seconds:.1f} s"]
        for name, value in (("first after", events.first), ("longest gap", events.longest_gap)):
            told += [f"{name} {value:.1f} ms"] if value is not None else []
        if events.malformed:
            told.append(f"{events.malformed} malformed")
        if events.delay_p50 is not None:
            told.append(
                f"delay P50 {events.delay_p50:.1f}, max {events.delay_maximum:.1f} "
                f"(± {events.delay_uncertain:.1f}) ms"
            )
        lines.append(", ".join(told))
    return "\n".join([*lines, *(f"note: {note}" for note in figures.notes), figures.verdict])
