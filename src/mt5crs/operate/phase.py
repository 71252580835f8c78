"""`mt5crs phase`: the production phase of a magic number, and what it takes to reach the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from msgspec import Struct

from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import ConnectionSettings, env_file_option, json_option
from mt5crs.operate.gateways import ask, show, targets
from mt5crs.operate.report import table
from mt5crs.phases.profile import Criterion, Profile, named, profiles
from mt5crs.phases.record import PhaseRecord, RecordError, sign, text_of
from mt5crs.protocol import replies, requests
from mt5crs.protocol.fields import TradingState
from mt5crs.protocol.records import PhaseFact

_DAY_MS = 86_400_000

_magic_option = click.option("--magic", type=click.IntRange(1), required=True, help="The magic number.")
_reason_option = click.option("--reason", required=True, help="Why; kept in the gateway's records.")


class Finding(Struct, frozen=True):
    """A criterion, looked at."""

    fact: str
    value: float | None
    threshold: str
    holds: bool
    source: str


class Verdict(Struct, frozen=True):
    """Whether the present phase may be left for another; `obstacle`: the first thing against it."""

    profile: str
    target: str
    holds: bool
    obstacle: str
    findings: list[Finding]


def judge(state: replies.PhaseState, target: Profile) -> Verdict:
    """Whether a magic number may go to a profile by what its gateway has recorded. Pure."""
    findings: list[Finding] = []
    obstacle = ""
    if not state.enforced:
        obstacle = "this gateway uses no phases; set fleet_phases, then deploy"
    elif state.trading != "ACTIVE":
        obstacle = f"magic {state.magic} is {state.trading}: {state.why}"
    elif target.phase > state.phase + 1:
        obstacle = f"{target.name} is more than one phase above {state.profile}"
    elif target.phase < state.phase:
        obstacle = f"{target.name} is below {state.profile}; use `mt5crs phase demote`"
    if state.enforced and target.phase != state.phase:  # the same phase again is a renewal
        known = {fact.name: fact for fact in state.facts}
        findings = [_finding(each, known.get(each.fact)) for each in named(state.profile).exit]
    broken = next((each for each in findings if not each.holds), None)
    if broken is not None and not obstacle:
        value = "unknown" if broken.value is None else f"{broken.value:g}"
        obstacle = f"{broken.fact} is {value}, {state.profile} is left at {broken.threshold}"
    return Verdict(
        profile=state.profile, target=target.name, holds=not obstacle, obstacle=obstacle, findings=findings
    )


def _finding(criterion: Criterion, fact: PhaseFact | None) -> Finding:
    value = fact.value if fact is not None else None
    return Finding(
        fact=criterion.fact,
        value=value,
        threshold=criterion.threshold(),
        holds=criterion.holds(value),
        source=fact.source if fact is not None else "the gateway does not say",
    )


@click.group()
def phase() -> None:
    """Show, check and change the production phase of a magic number (docs/phases.md)."""


def _query(magic: int) -> Callable[[GatewayClient, ConnectionSettings], replies.PhaseState]:
    return lambda client, _: client.call(requests.PhaseQuery, replies.PhaseState, magic=magic)


def _text(state: replies.PhaseState) -> str:
    if not state.enforced:
        return f"magic {state.magic}: no phases here; trading is {state.trading} {state.why}".rstrip()
    profile = named(state.profile)
    until = "" if state.expires_in_ms is None else f", for {state.expires_in_ms / _DAY_MS:.1f} days more"
    limits = profile.limits
    lines = [
        f"magic {state.magic} of {state.account}: phase {state.phase}, {state.profile} ({profile.title})"
        + until,
        f"trading is {state.trading}; {state.why}",
        f"record {state.serial}; a trade binds at most {limits.trade_size:g} {profile.currency}, "
        f"all together {limits.position_limit:g}"
        + ("; orders are only checked" if profile.dry_run else f"; a day may lose {limits.daily_loss:g}"),
    ]
    if state.obstacle:
        lines.append(f"no order is possible: {state.obstacle}")
    rows = [
        (fact.name, "unknown" if fact.value is None else f"{fact.value:g}", fact.source)
        for fact in state.facts
    ]
    return "\n".join([*lines, table(("RECORDED", "VALUE", "SOURCE"), rows)])


@phase.command("show")
@_magic_option
@env_file_option
@json_option
def show_phase(magic: int, env_file: Path | None, as_json: bool) -> None:
    """Show the phase in force, its limits and what was recorded in it."""
    raise SystemExit(show(ask(targets(env_file, magic), _query(magic)), _text, as_json=as_json))


@phase.command()
@_magic_option
@env_file_option
@json_option
def history(magic: int, env_file: Path | None, as_json: bool) -> None:
    """Show what changed the phase, or would have broken it, newest first."""

    def text(state: replies.PhaseState) -> str:
        rows = [
            (_time(act.at_msc), act.act, act.profile, act.serial, act.by, act.reason) for act in state.acts
        ]
        return table(("WHEN (UTC)", "WHAT", "PROFILE", "RECORD", "BY", "WHY"), rows)

    answers = ask(targets(env_file, magic), _query(magic))
    raise SystemExit(show(answers, text, as_json=as_json, plain=lambda state: state.acts))


def _time(msc: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(msc / 1000))


def _target(name: str | None, state: replies.PhaseState) -> Profile:
    """The named profile, or the one after the present one. UsageError for an unknown name."""
    if name is not None:
        return _profile(name)
    ladder: Sequence[Profile] = list(profiles().values())
    return ladder[min(state.phase + 1, len(ladder) - 1)]


def _profile(name: str) -> Profile:
    try:
        return named(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _verdict_text(verdict: Verdict) -> str:
    rows = [
        (
            "holds" if each.holds else "FAILS",
            each.fact,
            "unknown" if each.value is None else f"{each.value:g}",
            each.threshold,
            each.source,
        )
        for each in verdict.findings
    ]
    end = f"{verdict.profile} may go to {verdict.target}" if verdict.holds else f"refused: {verdict.obstacle}"
    return "\n".join([*([table(("", "FACT", "VALUE", "THRESHOLD", "SOURCE"), rows)] if rows else []), end])


_to_option = click.option("--to", "to", metavar="PROFILE", help="By default the next profile.")


@phase.command()
@_magic_option
@_to_option
@env_file_option
@json_option
def check(magic: int, to: str | None, env_file: Path | None, as_json: bool) -> None:
    """Hold the exit criteria of the present phase against the records. Exit 1 when one does not hold."""
    if to is not None:
        _profile(to)

    def call(client: GatewayClient, connection: ConnectionSettings) -> Verdict:
        state = _query(magic)(client, connection)
        return judge(state, _target(to, state))

    answers = ask(targets(env_file, magic), call)
    failed = show(answers, _verdict_text, as_json=as_json)
    raise SystemExit(failed or int(not all(answer.value and answer.value.holds for answer in answers)))


@phase.command()
@_magic_option
@_to_option
@_reason_option
@click.option("--by", required=True, metavar="NAME", help="Your name in fleet_phase_signers.")
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Your private key, or the public one when an agent has the private.",
)
@click.option(
    "--days", type=click.IntRange(1, 366), help="For how long; by default as long as the profile allows."
)
@click.option(
    "--override",
    is_flag=True,
    help="Although a criterion does not hold: recorded under your name, and needs --days.",
)
@env_file_option
@json_option
def promote(
    magic: int,
    to: str | None,
    reason: str,
    by: str,
    key: Path,
    days: int | None,
    override: bool,
    env_file: Path | None,
    as_json: bool,
) -> None:
    """Check the exit criteria, sign a record of the next phase, and give it to the gateway.

    With `--to` the present profile: renew its record. Exit 1 when a criterion does not hold; nothing is
    changed then.
    """
    if override and days is None:
        raise click.UsageError("--override needs --days: an override ends by itself")
    if to is not None:
        _profile(to)

    def call(client: GatewayClient, connection: ConnectionSettings) -> replies.PhaseState:
        state = _query(magic)(client, connection)
        target = _target(to, state)
        verdict = judge(state, target)
        click.echo(_verdict_text(verdict), err=True)
        if not verdict.holds and not (override and state.enforced):
            raise click.exceptions.Exit(1)
        return _give(
            client, state, target, reason, by, key, days or target.record_days, overridden=not verdict.holds
        )

    answers = ask(targets(env_file, magic), call)
    failed = show(answers, _text, as_json=as_json)
    profile = next((answer.value.profile for answer in answers if answer.value is not None), to)
    acted("phase.promoted", answers, magic=magic, to=profile, reason=reason, signer=by, override=override)
    raise SystemExit(failed)


def _give(
    client: GatewayClient,
    state: replies.PhaseState,
    target: Profile,
    reason: str,
    by: str,
    key: Path,
    days: int,
    *,
    overridden: bool,
) -> replies.PhaseState:
    now = time.time_ns() // 1_000_000
    record = PhaseRecord(
        magic=state.magic,
        account=state.account,
        profile=target.name,
        serial=state.serial + 1,
        issued_msc=now,
        expires_msc=now + days * _DAY_MS,
        by=by,
        reason=reason,
        override=overridden,
    )
    text = text_of(record)
    try:
        signature = sign(text, key)
    except RecordError as error:
        raise click.ClickException(str(error)) from None
    return client.call(
        requests.PhaseSet, replies.PhaseState, magic=state.magic, record=text, signature=signature
    )


@phase.command()
@_magic_option
@click.option("--to", "to", metavar="PROFILE", required=True, help="A profile at or below the present one.")
@_reason_option
@env_file_option
@json_option
def demote(magic: int, to: str, reason: str, env_file: Path | None, as_json: bool) -> None:
    """Put a magic number under an earlier phase at once, without a signature. What is open can be closed."""
    profile = _profile(to)

    def call(client: GatewayClient, _connection: ConnectionSettings) -> replies.PhaseState:
        return client.call(
            requests.PhaseDemote, replies.PhaseState, magic=magic, profile=profile.name, reason=reason
        )

    answers = ask(targets(env_file, magic), call)
    failed = show(answers, _text, as_json=as_json)
    acted("phase.demoted", answers, magic=magic, to=profile.name, reason=reason)
    raise SystemExit(failed)


@phase.command()
@_magic_option
@_reason_option
@env_file_option
@json_option
def reduce(magic: int, reason: str, env_file: Path | None, as_json: bool) -> None:
    """Let a magic number only close, cancel and reduce."""
    _trading("REDUCING", magic, reason, env_file, as_json)


@phase.command()
@_magic_option
@_reason_option
@env_file_option
@json_option
def activate(magic: int, reason: str, env_file: Path | None, as_json: bool) -> None:
    """Let a magic number that only reduces open positions again, as far as its phase allows."""
    _trading("ACTIVE", magic, reason, env_file, as_json)


def _trading(state: TradingState, magic: int, reason: str, env_file: Path | None, as_json: bool) -> None:
    def call(client: GatewayClient, _connection: ConnectionSettings) -> replies.PhaseState:
        return client.call(requests.PhaseTrading, replies.PhaseState, magic=magic, state=state, reason=reason)

    answers = ask(targets(env_file, magic), call)
    failed = show(answers, _text, as_json=as_json)
    acted("phase.trading", answers, magic=magic, to=state, reason=reason)
    raise SystemExit(failed)
