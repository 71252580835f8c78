"""GO or NO-GO: every check is looked at, and any P0 that fails, or could not be looked at, is NO-GO."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deploy.preflight.check import FLEET, Check, Finding, Look, Verdict
from deploy.preflight.facts import Facts


@dataclass(frozen=True)
class Result:
    """What a check came to. age_s: of the oldest evidence it rests on, in seconds; None: there was none."""

    check: Check
    verdict: Verdict
    findings: tuple[Finding, ...]
    age_s: float | None


@dataclass(frozen=True)
class Decision:
    """All results, in the order of the checks."""

    environment: str
    at: float
    results: tuple[Result, ...]

    @property
    def stopping(self) -> tuple[Result, ...]:
        """Checks because of which it is NO-GO."""
        return tuple(one for one in self.results if one.verdict == "FAIL" and one.check.priority == "P0")

    @property
    def go(self) -> bool:
        """Whether the fleet may trade."""
        return bool(self.results) and not self.stopping

    def count(self, verdict: Verdict) -> int:
        """How many checks came to this."""
        return sum(one.verdict == verdict for one in self.results)


def decide(facts: Facts, checks: Iterable[Check]) -> Decision:
    """Look at every check."""
    return Decision(facts.environment, facts.now, tuple(_result(facts, check) for check in checks))


def _result(facts: Facts, check: Check) -> Result:
    look = Look(facts)
    try:
        check.look(look)
    except Exception as error:  # a host that lies must not end the other checks
        look.unknown(FLEET, f"what was answered cannot be judged ({type(error).__name__}: {error})")
    if not look.seen and not look.findings:
        look.unknown(FLEET, "there was nothing to look at")
    verdicts = {finding.verdict for finding in look.findings}
    verdict: Verdict = "FAIL" if "FAIL" in verdicts else "WARN" if "WARN" in verdicts else "PASS"
    age = None if look.oldest is None else round(max(0.0, facts.now - look.oldest), 1)
    return Result(check, verdict, tuple(look.findings), age)
