"""What people need at hand, and what records have to say."""

from __future__ import annotations

from deploy.preflight.check import FLEET, Check, Look
from deploy.preflight.checks.configuration import rules
from deploy.preflight.facts import Unknown

NEEDED = ("docs/runbook.md", "docs/safety.md", "docs/security.md", "docs/go-no-go.md", "CHANGELOG.md")


def _runbook(look: Look) -> None:
    for host, page in look.sections("runbook", "hub"):
        for _, rules_ in ((one, told) for one, told in look.sections("rules", "hub") if one == host):
            for name in sorted({rule.name for rule in rules_}):
                if f'id="{name.lower()}"' not in page:
                    look.fail(host, f"its runbook has no section for the alert {name}")


def _at_hand(look: Look) -> None:
    for path in NEEDED:
        look.saw()
        if not look.facts.project.pages.get(path, "").strip():
            look.fail(FLEET, f"{path} is missing or empty")


def _current(look: Look) -> None:
    look.saw()
    for path in look.facts.project.old_pages:
        look.fail(FLEET, f"{path} is not what the code says")


def _sbom(look: Look) -> None:
    if not look.facts.project.sbom:
        look.unknown(FLEET, "the bundle of this fleet")
    for bundle, there in look.facts.project.sbom.items():
        look.saw()
        if not there:
            look.fail(FLEET, f"{bundle} holds no bill of materials")


def _recorded(look: Look) -> None:
    hubs = look.facts.in_group("hub")
    asked = (
        look.facts.answers.get(hubs[0], Unknown("it was not asked")) if hubs else Unknown("there is no Hub")
    )
    section = asked if isinstance(asked, Unknown) else asked.answer.sections.deployments
    if section is None or isinstance(section, Unknown) or section.value is None:
        look.unknown(FLEET, getattr(section, "why", "") or getattr(section, "error", "") or "the record")
        return
    known = {one.id: one for one in section.value}
    for host, service, status in look.services():
        brought = status.get("deployment")
        if brought not in known:
            look.fail(host, f"no record says who brought {service} {status['current']}")
        elif not known[brought].who:
            look.fail(host, f"deployment {brought[:8]}, which brought {service}, names nobody")


CHECKS = (
    Check(
        "G-DOC-01",
        "P1",
        "The runbook on the Hub has a section for every alert that can fire",
        "An alert in the night is no time to find out what it means.",
        "Deploy monitoring: page and rules come from the same release.",
        _runbook,
    ),
    Check(
        "G-DOC-02",
        "P1",
        "Runbook, safety, security and change log are there",
        "Who has to act at once does it by them.",
        "Take the project's directory whole: `git checkout -- docs`.",
        _at_hand,
    ),
    Check(
        "G-DOC-03",
        "P3",
        "The catalogue of these checks says what the code says",
        "Who goes by an old page does the wrong thing.",
        "`make docs`.",
        _current,
    ),
    Check(
        "G-DOC-04",
        "P2",
        "Every bundle lists what it is made of (SBOM)",
        "Without the list nobody knows whether a flaw that becomes known is in it.",
        "`make bundle`, then deploy.",
        _sbom,
    ),
    Check(
        "G-DOC-05",
        "P2",
        "For everything that runs there is a record of who brought it",
        "A change that nobody made cannot be asked about, nor undone.",
        "Deploy with deploy.py or site.yml, which record it.",
        _recorded,
    ),
    Check(
        "G-DOC-06",
        "P1",
        "Deployed code is that of a commit, and its packages are pinned",
        "What is in no commit cannot be built again, reviewed or compared.",
        "Commit, then `make bundle` and deploy.",
        lambda look: rules(look, "COD-"),
    ),
)
