"""`mt5crs --inventory … preflight`: go or no-go, decided by checks on what the whole fleet says now."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.named_fleet import chosen_fleet, fleet_of, of_fleet
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.chosen import Target
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.gateways import ask
from mt5crs.operate.report import table
from mt5crs.protocol import replies, requests
from mt5crs.protocol.events import trade_topic
from mt5crs.settings.schema import SettingsError

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet
    from deploy.preflight.facts import GatewaySaid, Unknown
    from deploy.preflight.judging import Decision, Result

GO, COULD_NOT_RUN, NO_GO = 0, 1, 2


class _WrongUsageError(click.UsageError):
    """Ends with 1: 2 means NO-GO here."""

    exit_code = COULD_NOT_RUN


class NoGoCommand(click.Command):
    """A command that ends with 2 on NO-GO; wrong usage has an exit status of its own."""

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """Read the arguments."""
        with _not_run():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        with _not_run():
            return super().invoke(ctx)


@contextmanager
def _not_run() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        raise _WrongUsageError(error.message, error.ctx) from None


@click.command(cls=NoGoCommand)
@json_option
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write the result as JSON to this file as well.",
)
def preflight(as_json: bool, report: Path | None) -> None:
    """Decide whether the fleet may trade: GO, or NO-GO when a check of priority P0 fails. Changes nothing.

    Every host, gateway and the Hub are asked once. What could not be looked at fails like what is wrong.
    docs/go-no-go.md lists the checks.

    Exit status 0: GO; 2: NO-GO; 1: it could not run.
    """
    chosen = chosen_fleet("preflight")
    of = fleet_of(chosen.inventory)
    decision = decision_of(of, chosen.operator)
    document = json.dumps(plain(decision), indent=2) + "\n"
    if report is not None:
        try:
            report.write_text(document, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{report} cannot be written: {error.strerror}") from None
    click.echo(document.rstrip() if as_json else text(decision))
    raise SystemExit(GO if decision.go else NO_GO)


def decision_of(
    of: Fleet, operator: str | None, starting: int | None = None, lock: str | None = None
) -> Decision:
    """Ask everybody, and judge. ClickException when the settings are wrong.

    :param starting: the magic number that a start asks for; what that start lifts is nothing against it
    :param lock: under which id who asks holds the fleet's lock, which is nothing against it either
    """
    from deploy.fleet.settings import form_problems
    from deploy.preflight.checks import CHECKS
    from deploy.preflight.gathering import gather
    from deploy.preflight.judging import decide
    from deploy.preflight_reference import old_pages

    problems = form_problems(of)
    if problems:
        raise click.ClickException(str(SettingsError(f"Settings of {of.inventory}", problems)))
    facts = gather(of, gateways(of, operator), old_pages())
    return decide(replace(facts, starting=starting, lock=lock), CHECKS)


# ---- gateways ----


def gateways(of: Fleet, operator: str | None) -> dict[str, GatewaySaid | Unknown]:
    """What every gateway says to the operator; one that does not answer is unknown, and why."""
    found = of_fleet(of, operator)
    with ThreadPoolExecutor(len(found)) as pool:
        return dict(pool.map(_ask, found))


def _ask(target: Target) -> tuple[str, GatewaySaid | Unknown]:
    from deploy.preflight.facts import Unknown

    def look(client: GatewayClient, connection: ConnectionSettings) -> GatewaySaid:  # noqa: ARG001
        return _said(client, target.magics or frozenset())

    (answer,) = ask([target], look)
    return target.name, Unknown(answer.error) if answer.value is None else answer.value


def _said(client: GatewayClient, magics: frozenset[int]) -> GatewaySaid:
    from deploy.preflight.facts import Books, GatewaySaid

    status = client.call(requests.Status, replies.StatusState, magic=0)
    books = {}
    for magic in sorted(magics):
        of = client.snapshot(magic, history_since_msc=None, whole_account=False)
        seq = of.seqs.get(trade_topic(magic), 0)
        books[magic] = Books(of.stream, seq, of.digest, tuple(of.unresolved))
    whole = client.snapshot(0, history_since_msc=None, whole_account=True)
    held = Counter([one.magic for one in whole.positions] + [one.magic for one in whole.orders])
    identity = status.identity
    return GatewaySaid(
        state=status.state,
        reason=status.reason,
        login=identity.login if identity else None,
        trade_mode=identity.trade_mode if identity else None,
        trade_allowed=identity.trade_allowed if identity else None,
        halts=tuple((halt.magic, halt.reason, halt.client) for halt in status.halts),
        breakers=tuple(guard.magic for guard in status.guards if guard.breaker_open),
        books=books,
        dry_run={guard.magic: guard.dry_run for guard in status.guards},
        strangers={magic: number for magic, number in held.items() if magic not in magics},
        at=time.time(),
    )


# ---- what is shown ----


def plain(decision: Decision) -> dict[str, Any]:
    """The decision as JSON has it."""
    return {
        "decision": "GO" if decision.go else "NO-GO",
        "environment": decision.environment,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(decision.at)),
        "counts": {verdict: decision.count(verdict) for verdict in ("PASS", "WARN", "FAIL")},
        "stopped_by": [one.check.id for one in decision.stopping],
        "checks": [_plain(one) for one in decision.results],
    }


def _plain(result: Result) -> Mapping[str, Any]:
    check = result.check
    return {
        "id": check.id,
        "category": check.category,
        "priority": check.priority,
        "verdict": result.verdict,
        "title": check.title,
        "reason": check.reason,
        "remedy": check.remedy,
        "evidence_age_s": result.age_s,
        "findings": [
            {"scope": one.scope, "verdict": one.verdict, "text": one.text, "unknown": one.unknown}
            for one in result.findings
        ],
    }


def text(decision: Decision) -> str:
    """The table, what is wrong with its remedy, and the decision in the last line."""
    rows = [
        (one.verdict, one.check.priority, one.check.id, one.check.category, _age(one.age_s), one.check.title)
        for one in decision.results
    ]
    lines = [table(("", "PRIORITY", "CHECK", "CATEGORY", "EVIDENCE", "WHAT HOLDS"), rows)]
    for result in sorted(decision.results, key=lambda one: (one.check.priority, one.verdict)):
        if result.findings:
            lines.append(
                f"\n{result.verdict} {result.check.priority} {result.check.id}: {result.check.title}"
            )
            lines += [f"  {one.scope}: {one.text}" for one in result.findings]
            lines.append(f"  what to do: {result.check.remedy}")
    counts = ", ".join(f"{decision.count(verdict)} {verdict}" for verdict in ("PASS", "WARN", "FAIL"))
    word = "GO" if decision.go else "NO-GO"
    why = ", ".join(one.check.id for one in decision.stopping)
    lines.append(f"\n{word} for {decision.environment}: {counts}{f'; stopped by {why}' if why else ''}")
    return "\n".join(lines)


def _age(seconds: float | None) -> str:
    """How old evidence is, in the largest unit of which there is one."""
    if seconds is None:
        return "none"
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
