"""What the policy says of a fleet: every finding, which are waived, whether a deployment may begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deploy.policy.facts import Facts
from deploy.policy.rule import SEVERITIES, Finding, Rule
from deploy.policy.waivers import Waiver, Waivers


@dataclass(frozen=True)
class Verdict:
    """All that was found. deployment: identity of what is wanted, empty when it cannot be made."""

    rules: int
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]
    """What is wrong with waivers, a sentence each."""
    deployment: str = ""
    unreadable: tuple[str, ...] = ()
    """What is wrong with rules that users have added, a sentence each."""
    idle: tuple[str, ...] = ()
    """Waivers that allow nothing, since nothing they are for is found, a sentence each."""

    @property
    def refusing(self) -> list[str]:
        """A line for everything because of which a deployment is refused."""
        return [
            *(line(finding) for finding in self.findings if finding.refuses),
            *(f"waiver {problem}" for problem in self.problems),
            *(f"rule {problem}" for problem in self.unreadable),
        ]

    @property
    def refused(self) -> bool:
        """Whether a deployment is refused."""
        return bool(self.refusing)


def judge(
    facts: Facts,
    rules: Iterable[Rule],
    waivers: Waivers,
    deployment: str = "",
    unreadable: tuple[str, ...] = (),
) -> Verdict:
    """Look at every rule. Findings come by severity, then in the order of the rules."""
    rules = tuple(rules)
    found = [finding for rule in rules for finding in _look(rule, facts, waivers.good)]
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    used = {finding.waiver for finding in found}
    idle = tuple(
        f"{one.where}: nothing is found that it allows ({one.rule} on {one.scope}); remove it if so it stays"
        for one in waivers.good
        if one.shown not in used
    )
    return Verdict(len(rules), tuple(found), waivers.problems, deployment, unreadable, idle)


def _look(rule: Rule, facts: Facts, waivers: tuple[Waiver, ...]) -> Iterator[Finding]:
    by_scope = {waiver.scope: waiver for waiver in waivers if waiver.rule == rule.id and rule.waivable}
    for broken in rule.look(facts):
        waiver = by_scope.get(broken.scope)
        allowed = waiver.shown if waiver is not None else ""
        yield Finding(rule.id, rule.severity, broken.scope, broken.text, rule.remedy, allowed)


def line(finding: Finding) -> str:
    """A finding in one line."""
    text = f"{finding.severity} {finding.rule} {finding.scope}: {finding.text}"
    return f"{text} -- waived: {finding.waiver}" if finding.waiver else f"{text}. {finding.remedy}"


def summary(verdict: Verdict) -> str:
    """How many rules were looked at and what came out, in one line."""
    waived = sum(bool(finding.waiver) for finding in verdict.findings)
    refusing = len(verdict.refusing)
    others = len(verdict.findings) - waived - sum(finding.refuses for finding in verdict.findings)
    return (
        f"policy: {verdict.rules} rules; {refusing} refuse a deployment, {others} to look at, {waived} waived"
    )
