"""The policy of a fleet: judged, and a deployment refused when it is broken. Both engines call `require`."""

from __future__ import annotations

import contextlib

from deploy.fleet.inventory import Fleet
from deploy.fleet.rendering import RenderingError
from deploy.fleet.settings import PARTS, variables_of
from deploy.fleet.vault_password import PROJECT
from deploy.policy import own
from deploy.policy.facts import Facts
from deploy.policy.gathering import gather
from deploy.policy.judging import Verdict, judge, line, summary
from deploy.policy.own import Own
from deploy.policy.rules import RULES
from deploy.policy.waivers import read
from deploy.rollout.generation import BundleError
from deploy.rollout.impact import identity
from mt5crs.settings.schema import SettingsError

WAIVERS = PROJECT / "policy" / "waivers"


def verdict_of(fleet: Fleet, *, identified: bool = True) -> Verdict:
    """What the policy says of a fleet. InventoryError when its layers cannot be read.

    identified: name the deployment also where no waiver could be for it, for which everything is rendered.
    """
    facts = gather(fleet)
    deployment = ""
    path = WAIVERS / f"{fleet.environment}.yml"
    if not facts.form_problems and (identified or path.exists()):
        # Without a bundle there is no deployment, and no waiver of one counts; the plan says why.
        with contextlib.suppress(BundleError, RenderingError):
            deployment = identity(fleet)
    added = own_rules(facts)
    rules = {rule.id: rule for rule in (*RULES, *added.rules)}
    shown = f"policy/waivers/{path.name}"
    waivers = read(path, shown, rules, fleet.hosts, facts.now, deployment)
    return judge(facts, rules.values(), waivers, deployment, added.problems)


def own_rules(facts: Facts) -> Own:
    """The rules that users have added, judged by these facts."""
    names = {name for part in PARTS for name, field in variables_of(part).items() if not field.secret}
    return own.read(own.DIRECTORY, facts, names)


def require(fleet: Fleet) -> list[str]:
    """Lines of what is waived or to be looked at. SettingsError with all that refuses a deployment."""
    verdict = verdict_of(fleet, identified=False)
    if verdict.refused:
        raise SettingsError(f"Policy of {fleet.inventory} (nothing was touched)", verdict.refusing)
    told = [line(finding) for finding in verdict.findings]
    return [summary(verdict), *(f"  {one}" for one in told)] if told else []
