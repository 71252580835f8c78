"""What the policy says of the configuration, as checks see it."""

from __future__ import annotations

from deploy.preflight.check import FLEET, Look
from deploy.preflight.facts import Unknown

_REFUSING = ("P0", "P1")


def rules(look: Look, *prefixes: str) -> None:
    """Note every broken rule whose id begins so: what refuses a deployment fails, the rest is a warning."""
    policy = look.facts.policy
    if isinstance(policy, Unknown):
        look.unknown(FLEET, policy.why)
        return
    look.saw()
    for finding in policy.findings:
        if not finding.rule.startswith(prefixes):
            continue
        text = f"{finding.rule}: {finding.text}"
        if finding.waived:
            look.warn(finding.scope, f"{text} (waived: {finding.waived})")
        elif finding.severity in _REFUSING:
            look.fail(finding.scope, text)
        else:
            look.warn(finding.scope, text)
