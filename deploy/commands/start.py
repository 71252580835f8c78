"""`mt5crs --inventory … start`: a magic number begins to trade: go/no-go, backup, limits shown, five seconds.

Nothing at a gateway is changed before the countdown has ended. What is done then is told one by one, so that
whoever interrupts it knows what was done. Until that is done it holds the fleet's lock: what was shown is not
deployed over meanwhile, and no other start does the same.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from deploy.commands import backup, preflight, strategy_state
from deploy.commands.named_fleet import chosen_fleet, fleet_of
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate import trading
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Target
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.gateways import Answer, ask, targets
from mt5crs.operate.reason import a_reason
from mt5crs.operate.trading import Said
from mt5crs.protocol import replies, requests

if TYPE_CHECKING:
    from deploy.coordination.alone import Held
    from deploy.fleet.inventory import Fleet

STARTED = "trading.started"
"""What the audit log calls a start."""
ACTION = "start"
"""What the fleet's record of deployments calls it."""
INTERRUPTED = 130
_DONE = "done"
_THINK_S = 5
_POLL_S = 1.0
_sleep: Callable[[float], None] = time.sleep
_clock: Callable[[], float] = time.monotonic


class NotStarted(click.ClickException):
    """Nothing was changed; the text says why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}\nnot started; nothing was changed")


@click.command(cls=preflight.NoGoCommand)
@click.option("--magic", type=click.IntRange(1), required=True, help="The magic number that is to trade.")
@click.option(
    "--reason",
    default="start",
    show_default=True,
    callback=a_reason,
    help="Why; kept in the records of gateway and fleet.",
)
@click.option("--yes", is_flag=True, help="Without the seconds to think again; for automation.")
@click.option(
    "--within",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    help="Seconds that the strategy may take until it is seen trading.",
)
@json_option
def start(magic: int, reason: str, yes: bool, within: int, as_json: bool) -> None:
    """Let a magic number trade: go/no-go, backup, limits shown, five seconds to think again, then start.

    `preflight` has to be GO and a backup whole. Then its phase, limits and books are shown; Ctrl-C before the
    countdown ends leaves everything as it was. It lifts the halt of this magic number and what lets it only
    reduce, and waits until its strategy is seen trading. A halt of everything, and what `withdraw` took,
    it never lifts. The act is in the audit log, with or without --yes. Until it has lifted them it holds the
    fleet's lock: no deployment and no other start at the same time.

    Exit status 0: it trades (or did already); 2: NO-GO; 130: interrupted; 1: anything else.
    """
    chosen = chosen_fleet("start --magic N")
    if not yes and not _someone_there():
        raise click.UsageError(
            "there is no terminal, so nobody could think again; add --yes if that is meant. Nothing was done"
        )
    of = fleet_of(chosen.inventory)
    run = _Start(of, chosen.operator, targets(None, magic), magic, reason, yes, within, as_json)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = run.go()
    except KeyboardInterrupt:
        run.interrupted()
        status = INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        click.echo(json.dumps(run.document(status)))
    raise SystemExit(status)


def _someone_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@dataclass
class _Start:
    """One start. `took`: part → seconds; `acts`: what is done at the gateways → how far that came."""

    of: Fleet
    operator: str | None
    gateways: Sequence[Target]
    magic: int
    reason: str
    yes: bool
    within_s: float
    as_json: bool
    took: dict[str, float] = field(default_factory=dict)
    acts: dict[str, str] = field(default_factory=dict)
    began_msc: int | None = None
    """Since when something at a gateway may have been changed (Unix time in ms); None: nothing was."""
    answers: list[Answer[Any]] = field(default_factory=list)
    recorded: bool = False
    backup: str | None = None
    waits: list[str] = field(default_factory=list)
    outcome: str = ""

    def go(self) -> int:
        """All of it; the exit status. NotStarted, ClickException, KeyboardInterrupt."""
        from deploy.coordination.alone import alone
        from deploy.coordination.fleet_lock import LockError

        said = self._look()
        if not self._obstacles(said):
            self.outcome = "it trades already"
            self.say(f"{self.magic} trades already{_how(said)}; nothing was changed")
            return 0
        self._refuse(said)
        why = f"{self.magic}, {self.reason}"
        try:
            with alone(self.of, ACTION, why, self.say) as held:
                try:
                    status = self._begin(held)
                finally:
                    held.outcome = self._came_to()
        except LockError as error:
            raise NotStarted(str(error)) from None
        return self._wait() if status is None else status

    def _came_to(self) -> str:
        """What the fleet's record says of it; what has changed nothing is not kept there."""
        if self.began_msc is None:
            return "unchanged"
        return "changed" if all(how == _DONE for how in self.acts.values()) else "failed"

    def _begin(self, held: Held) -> int | None:
        """Up to the last act; the exit status, or None when it is to be waited. LockError: before any act."""
        with self._timed("preflight"):
            decision = preflight.decision_of(self.of, self.operator, self.magic, held.id)
        told = preflight.text(decision)
        self.say(told.splitlines()[-1] if decision.go else told)
        if not decision.go:
            self.outcome = "NO-GO"
            self.say(f"{self.magic} is not started; nothing was changed")
            return preflight.NO_GO
        with self._timed("backup"):
            made = backup.made_of(self.of)
        if made["missing"]:
            missing = "; ".join(f"{host}: {why}" for host, why in made["missing"].items())
            raise NotStarted(f"backup {made['id']} is not whole: {missing}")
        self.backup = str(made["id"])
        self.say(f"backup {self.backup}: {', '.join(made['hosts'])}")
        said = self._look()
        self._refuse(said)
        self._show(said)
        self._think(said)
        held.require()
        self._act(said)
        return None

    def _look(self) -> dict[str, Said]:
        """What every gateway of this magic number says. NotStarted when one does not."""
        answers = self._ask()
        silent = [f"{answer.name} does not answer: {answer.error}" for answer in answers if not answer.value]
        if silent:
            raise NotStarted("; ".join(silent))
        return {answer.name: answer.value for answer in answers if answer.value is not None}

    def _ask(self) -> list[Answer[Said]]:
        def call(client: GatewayClient, _connection: ConnectionSettings) -> Said:
            return trading.look(client, self.magic)

        return ask(self.gateways, call)

    def _refuse(self, said: Mapping[str, Said]) -> None:
        against = [f"{name}: {why}" for name, one in said.items() for why in trading.forbids(one)]
        if against:
            raise NotStarted("\n".join(against))

    def _hosts(self) -> list[str]:
        found = self.of.in_group("inf")
        return [host for host in found if int(self.of.hosts[host]["fleet_magic_number"]) == self.magic]

    def _obstacles(self, said: Mapping[str, Said]) -> list[str]:
        found = [f"{name}: {why}" for name, one in said.items() for why in trading.awaits(one)]
        if found:
            return found  # no need to ask a host
        told = {host: strategy_state.strategy_of(self.of.hosts[host], self.magic) for host in self._hosts()}
        return [f"{host}: {why}" for host, why in told.items() if why]

    def _show(self, said: Mapping[str, Said]) -> None:
        for name, one in said.items():
            hosts = [host for host in self._hosts() if self.of.hosts[host]["fleet_gateway"] == name]
            limits = self.of.hosts[hosts[0]].get("fleet_limits") if hosts else None
            self.say(f"\n{name}")
            self.say(trading.text(one, limits))
        self.acts = {name: "not done" for step in _steps(said) for name in step.names}

    def _think(self, shown: Mapping[str, Said]) -> None:
        """Give a person time, and make sure that nobody has acted meanwhile. NotStarted."""
        if self.yes:
            self.say("--yes: no time to think again")
        else:
            with self._timed("countdown"):
                for left in range(_THINK_S, 0, -1):
                    self.say(f"{self.magic} is started in {left} s; Ctrl-C leaves everything as it is")
                    _sleep(1.0)
        now = self._look()
        changed = [name for name, one in now.items() if one.order != shown[name].order]
        if changed:
            raise NotStarted(
                f"what was shown of {', '.join(changed)} has changed since; look, then start again"
            )

    def _act(self, said: Mapping[str, Said]) -> None:
        """Lift what is to be lifted. From here on something may be done. ClickException."""
        self.began_msc = time.time_ns() // 1_000_000
        ways = {target.name: target for target in self.gateways}
        with self._timed("lifting"):
            for step in _steps(said):
                self.acts |= dict.fromkeys(step.names, "asked for; whether it was done is not known")
                (answer,) = ask([ways[step.gateway]], partial(_told, step.call, self.magic, self.reason))
                self.answers.append(answer)
                self.acts |= dict.fromkeys(step.names, answer.error or _DONE)
        self._record()
        failed = [f"{answer.name}: {answer.error}" for answer in self.answers if answer.value is None]
        if failed:
            self._tell_acts()
            raise click.ClickException(f"{self.magic} is not started whole: {'; '.join(failed)}")

    def _record(self) -> None:
        acted(
            STARTED,
            self.answers,
            magic=self.magic,
            reason=self.reason,
            unasked=self.yes,
            began_msc=self.began_msc,
            backup=self.backup,
            acts=self.acts,
        )
        self.recorded = True

    def _wait(self) -> int:
        until = _clock() + self.within_s
        with self._timed("strategy"):
            while True:
                answers = self._ask()
                silent = [f"{one.name} does not answer: {one.error}" for one in answers if one.value is None]
                known = {one.name: one.value for one in answers if one.value is not None}
                waits = silent or self._obstacles(known)
                if waits and waits != self.waits:
                    self.say("waits: " + "; ".join(waits))
                self.waits = waits
                if not waits or _clock() >= until:
                    break
                _sleep(_POLL_S)
        took = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in self.took.items())
        if self.waits:
            self.outcome = "started, but not seen trading"
            self.say(
                f"{self.magic} is started, but was not seen trading within {self.within_s:g} s ({took}); it"
            )
            for why in self.waits:
                self.say(f"  waits: {why}")
            self.say(
                f"it will trade by itself once that has gone; `mt5crs … stop --magic {self.magic}` ends it"
            )
            return 1
        self.outcome = "it trades"
        self.say(f"{self.magic} trades{_how(known)}: {took}")
        return 0

    def interrupted(self) -> None:
        """Say what was done and what was not."""
        self.outcome = "interrupted"
        if self.began_msc is None:
            made = f"; backup {self.backup} was made and is kept" if self.backup else ""
            self.say(f"\ninterrupted: {self.magic} is not started; everything is as it was{made}")
            return
        self.say(f"\ninterrupted: the start of {self.magic} had begun")
        self._tell_acts()
        if not self.recorded:
            self._record()
        self.say(
            f"look with `mt5crs … phase show --magic {self.magic}`; `stop --magic {self.magic}` takes it back"
        )

    def _tell_acts(self) -> None:
        for what, how in self.acts.items():
            self.say(f"  {what}: {how}")
        if not self.acts:
            self.say("  there was nothing to lift, and nothing was changed")

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = _clock()
        try:
            yield
        finally:
            self.took[part] = round(_clock() - began, 1)

    def say(self, line: str) -> None:
        """A line for people."""
        click.echo(line, err=self.as_json)

    def document(self, status: int) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "magic": self.magic,
            "outcome": self.outcome,
            "exit_status": status,
            "seconds": self.took,
            "backup": self.backup,
            "acts": self.acts,
            "waits": self.waits,
        }


Call = Callable[[GatewayClient, int, str], Any]


@dataclass(frozen=True)
class _Step:
    """One request to a gateway, and what it lifts."""

    gateway: str
    lifts: tuple[str, ...]
    call: Call

    @property
    def names(self) -> list[str]:
        """As people are told of it."""
        return [f"{self.gateway}: lift: {what}" for what in self.lifts]


def _steps(said: Mapping[str, Said]) -> Iterator[_Step]:
    """What is to be done. The halt is the last of a gateway: until then no order is taken."""
    for name, one in said.items():
        found = tuple(trading.lifts(one))
        if one.reducing:
            yield _Step(name, found[:1], _activate)
        if found[int(one.reducing) :]:
            yield _Step(name, found[int(one.reducing) :], _resume)


def _told(call: Call, magic: int, reason: str, client: GatewayClient, _connection: ConnectionSettings) -> Any:
    return call(client, magic, reason)


def _activate(client: GatewayClient, magic: int, reason: str) -> Any:
    return client.call(requests.PhaseTrading, replies.PhaseState, magic=magic, state="ACTIVE", reason=reason)


def _resume(client: GatewayClient, magic: int, reason: str) -> Any:
    return client.call(requests.Resume, replies.HaltState, magic=magic, scope="MAGIC", reason=reason)


def _how(said: Mapping[str, Said]) -> str:
    return " (orders are only checked)" if any(one.only_checked for one in said.values()) else ""
