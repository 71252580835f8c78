"""A load test: every gateway of a fleet is asked so many times a second, for so long.

Requests have their moment beforehand: one that comes late because the one before was slow counts from when it
should have been sent, so that a gateway that hangs is not asked less and looks no better for it.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from deploy.commands.named_fleet import of_fleet
from deploy.fleet.inventory import InventoryError, resolve
from mt5crs.checks.percentiles import percentile
from mt5crs.client.errors import GatewayError
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.chosen import Target
from mt5crs.protocol import replies, requests
from pipeline.errors import PipelineError

CLIENTS: Final = 4
"""Connections to one gateway, which share the requests."""
TIMEOUT_S: Final = 3.0
ERRORS: Final = 0.001
"""Share of requests that may fail."""
HELD: Final = 0.99
"""Share of the wanted requests a second that has to be reached."""
MOST_PER_S: Final = 400
"""A gateway answers BUSY beyond CLIENT_REQUESTS_PER_S (500) of one client; the key is an operator's."""

Ask = Callable[[GatewayClient, int], None]


class Seen(msgspec.Struct):
    """What one client has seen."""

    times_ms: list[float] = msgspec.field(default_factory=list)
    errors: Counter[str] = msgspec.field(default_factory=Counter)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway held."""

    gateway: str
    wanted_per_s: int
    seconds: float
    answered: int
    errors: dict[str, int]
    p50_ms: float
    p99_ms: float
    worst_ms: float

    @property
    def held_per_s(self) -> float:
        """Requests a second that were answered."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def error_rate(self) -> float:
        """Share of requests that failed; 1 when there was none."""
        failed = sum(self.errors.values())
        return failed / (failed + self.answered) if failed or self.answered else 1.0

    @property
    def problem(self) -> str | None:
        """Why this is too little; None: it is enough."""
        if self.error_rate >= ERRORS:
            worst = ", ".join(f"{count} {why}" for why, count in sorted(self.errors.items())) or "no answer"
            return (
                f"{self.gateway}: {self.error_rate:.3%} of the requests failed ({worst}); "
                f"less than {ERRORS:.1%} may"
            )
        if self.held_per_s < self.wanted_per_s * HELD:
            return f"{self.gateway}: held {self.held_per_s:.1f} requests a second of {self.wanted_per_s}"
        return None

    @property
    def line(self) -> str:
        """For people."""
        return (
            f"{self.gateway}: {self.held_per_s:.1f} requests a second for {self.seconds:.0f} s, "
            f"{self.answered} answered, errors {self.error_rate:.3%}, "
            f"P50 {self.p50_ms:.1f}, P99 {self.p99_ms:.1f}, worst {self.worst_ms:.1f} ms"
        )


def joined(gateway: str, wanted_per_s: int, seconds: float, seen: Sequence[Seen]) -> Load:
    """What all clients of a gateway have seen together."""
    times = sorted(itertools.chain.from_iterable(each.times_ms for each in seen))
    errors: Counter[str] = sum((each.errors for each in seen), Counter())
    return Load(
        gateway=gateway,
        wanted_per_s=wanted_per_s,
        seconds=round(seconds, 1),
        answered=len(times),
        errors=dict(errors),
        p50_ms=round(percentile(times, 0.50), 3) if times else 0.0,
        p99_ms=round(percentile(times, 0.99), 3) if times else 0.0,
        worst_ms=round(times[-1], 3) if times else 0.0,
    )


def pace(
    ask: Callable[[int], None],
    seen: Seen,
    count: int,
    every_s: float,
    first_at: float,
    *,
    now: Callable[[], float] = time.perf_counter,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Make `count` requests, one each `every_s` from `first_at` on. A failed one is counted by its kind."""
    for number in range(count):
        due = first_at + number * every_s
        early = due - now()
        if early > 0:
            wait(early)
        try:
            ask(number)
        except GatewayError as error:
            seen.errors[type(error).__name__.removesuffix("Error")] += 1
        else:
            seen.times_ms.append((now() - due) * 1000)


def mixed(client: GatewayClient, magic: int, number: int) -> None:
    """What services ask: mostly the state, now and then all books. Once: a retry would hide a failure."""
    if number % 10:
        client.once(requests.Status, replies.StatusState, timeout_s=TIMEOUT_S, magic=magic)
    else:
        books = {"whole_account": True, "history_since_msc": None}
        client.once(requests.SyncAll, replies.Snapshot, timeout_s=TIMEOUT_S, magic=0, **books)


def on_gateway(target: Target, per_s: int, seconds: int) -> Load:
    """Load one gateway."""
    seen = [Seen() for _ in range(CLIENTS)]
    every_s = CLIENTS / per_s
    began = time.perf_counter() + 0.5

    def client(number: int) -> None:
        with target.connection.client() as of:
            pace(
                lambda count: mixed(of, target.connection.magic_number, count),
                seen[number],
                per_s * seconds // CLIENTS,
                every_s,
                began + number / per_s,
            )

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client, number) for number in range(CLIENTS)]:
            done.result()
    return joined(target.name, per_s, max(time.perf_counter() - began, seconds), seen)


def run(inventory: Path, per_s: int, seconds: int, out: Path | None, say: Callable[[str], None]) -> int:
    """Load all gateways of a fleet at once; return 0 when all have held it. PipelineError: no inventory."""
    if not CLIENTS <= per_s <= MOST_PER_S:
        raise PipelineError(
            f"{per_s} requests a second are too few or too many for one operator's key: name {CLIENTS} to "
            f"{MOST_PER_S}"
        )
    try:
        targets = of_fleet(resolve(inventory), None)
    except InventoryError as error:
        raise PipelineError(str(error)) from None
    with ThreadPoolExecutor(len(targets)) as pool:
        held = list(pool.map(lambda target: on_gateway(target, per_s, seconds), targets))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        told: list[dict[str, Any]] = [
            {**msgspec.to_builtins(each), "held_per_s": each.held_per_s, "error_rate": each.error_rate}
            for each in held
        ]
        out.write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    for each in held:
        say(each.line)
    problems = [each.problem for each in held if each.problem]
    for problem in problems:
        say(problem)
    return 1 if problems else 0
