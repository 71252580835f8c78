"""`mt5crs --inventory … policy`: what a fleet's configuration has to keep, and whether it does."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from deploy.commands.named_fleet import chosen_fleet, fleet_of
from mt5crs.operate.chosen import Chosen
from mt5crs.operate.connection import json_option
from mt5crs.operate.report import table
from mt5crs.settings.schema import instead

if TYPE_CHECKING:
    from deploy.policy.rule import Rule

REFUSED = 2


@click.group()
def policy() -> None:
    """Judge a fleet's configuration by rules; each deployment does it before it touches anything.

    On the controller: `mt5crs --inventory inventory/<environment>.yml policy check`.
    """
    chosen_fleet("policy …")


@policy.command()
@json_option
def check(as_json: bool) -> None:
    """Look at every rule, and tell what a deployment would be refused for. No host is asked.

    Exit status 0: a deployment may begin; 2: it would be refused; 1: the fleet cannot be read.
    """
    from deploy.fleet.inventory import InventoryError
    from deploy.policy.enforcing import verdict_of
    from deploy.policy.judging import summary

    chosen = click.get_current_context().find_root().obj
    assert isinstance(chosen, Chosen)  # noqa: S101  (the group above has seen to it)
    try:
        verdict = verdict_of(fleet_of(chosen.inventory))
    except InventoryError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        told = {
            "refused": verdict.refused,
            "rules": verdict.rules,
            "deployment": verdict.deployment or None,
            "findings": [asdict(finding) for finding in verdict.findings],
            "waiver_problems": verdict.problems,
            "waivers_idle": verdict.idle,
            "rule_problems": verdict.unreadable,
        }
        click.echo(json.dumps(told))
    else:
        rows = [(one.severity, one.rule, one.scope, one.text, one.waiver or "no") for one in verdict.findings]
        if rows:
            click.echo(table(("SEVERITY", "RULE", "SCOPE", "FINDING", "WAIVED"), rows))
        for problem in (*verdict.problems, *verdict.idle):
            click.echo(f"waiver {problem}")
        for problem in verdict.unreadable:
            click.echo(f"rule {problem}")
        click.echo(summary(verdict))
        named = verdict.deployment or "none can be made of these settings"
        click.echo(f"deployment: {named} (for waivers)")
    raise SystemExit(REFUSED if verdict.refused else 0)


@policy.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List every rule, those that users have added (`policy/*.rego`) too."""
    rules = _rules()
    rows = [(rule.id, rule.severity, rule.title) for rule in rules.values()]
    if as_json:
        click.echo(json.dumps([dict(zip(("id", "severity", "title"), row, strict=True)) for row in rows]))
    else:
        click.echo(table(("RULE", "SEVERITY", "WHAT HOLDS"), rows))


@policy.command()
@click.argument("rule")
@json_option
def explain(rule: str, as_json: bool) -> None:
    """Tell what a RULE demands, why, and what to do when it is broken."""
    from deploy.policy.rule import REFUSING

    known = _rules()
    found = known.get(rule.upper())
    if found is None:
        raise click.UsageError(f"there is no rule {rule}{instead(rule.upper(), known)}")
    refuses = found.severity in REFUSING
    if as_json:
        names = ("id", "severity", "title", "reason", "remedy", "waivable")
        click.echo(json.dumps({name: getattr(found, name) for name in names} | {"refuses": refuses}))
        return
    click.echo(f"{found.id} ({found.severity}): {found.title}")
    click.echo(f"why:      {found.reason}")
    click.echo(f"remedy:   {found.remedy}")
    click.echo(
        f"broken:   {'a deployment is refused' if refuses else 'it is shown, no deployment is refused'}"
    )
    click.echo(f"waivers:  {'possible' if found.waivable else 'none; a deployment cannot do without it'}")


def _rules() -> dict[str, Rule]:
    """Id → rule, the kit's and those of users; what is wrong with one of these is told on standard error."""
    from deploy.policy.enforcing import own_rules
    from deploy.policy.gathering import gather
    from deploy.policy.rules import RULES

    chosen = click.get_current_context().find_root().obj
    assert isinstance(chosen, Chosen)  # noqa: S101  (the group above has seen to it)
    added = own_rules(gather(fleet_of(chosen.inventory)))
    for problem in added.problems:
        click.echo(f"rule {problem}", err=True)
    return {rule.id: rule for rule in (*RULES, *added.rules)}
