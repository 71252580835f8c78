"""Writes docs/reference/policy.md from the rules: `python -m deploy.policy_reference`."""

from __future__ import annotations

from deploy.fleet.vault_password import PROJECT
from deploy.policy.rules import RULES
from deploy.policy.waivers import FIELDS, LONGEST

_INTRODUCTION = """\
# Policy

Made from the code by `make docs`. A deployment is refused while a rule of severity P0 or P1 is broken; P2
and P3 are shown. A rollback is never refused by policy.

`mt5crs --inventory inventory/<environment>.yml policy check` looks by hand, and asks no host. Exit status:
0 a deployment may begin, 2 it would be refused, 1 the fleet cannot be read. `policy list` and
`policy explain RULE` say what is here. All have `--json`. Rules of your own are
written [in Rego](../policy-rules.md)."""
_WAIVERS = """\
## Waivers

What is allowed for a time stands in `policy/waivers/<environment>.yml`:

```yaml
waivers:
  - rule: TRD-010
    scope: production-gtw-01   # a host, or: fleet
    reason: rehearsal of the first week
    owner: Jane Roe
    expires: "2026-12-31T18:00:00Z"
    deployment: 3fa2c1d0aa11
```

All of {fields} are needed. `expires` is in UTC, at most {days} days ahead. `deployment` is what
`policy check` shows: the waiver is for these settings and this code, and a change of either ends it.
`any` outlives them.

A waiver refuses the deployment when it has expired, is of another deployment, cannot be read, or names an
unknown rule or host. What is waived is still counted and shown, and so is a waiver that allows nothing
which is found."""
PAGE = PROJECT / "docs" / "reference" / "policy.md"


def rendered() -> str:
    """The whole page."""
    fields = ", ".join(f"`{name}`" for name in FIELDS)
    rows = "\n".join(
        f"| [{rule.id}](#{rule.id.lower()}) | {rule.severity} | {rule.title} |" for rule in RULES
    )
    sections = [_INTRODUCTION, _WAIVERS.format(fields=fields, days=LONGEST.days)]
    sections.append(f"## Rules\n\n| rule | severity | what holds |\n|---|---|---|\n{rows}")
    for rule in RULES:
        waivable = "" if rule.waivable else " It cannot be waived."
        sections.append(
            f"### {rule.id}\n\n{rule.severity}. {rule.title}.{waivable}\n\n"
            f"Why: {rule.reason}\n\nRemedy: {rule.remedy}"
        )
    return "\n\n".join(sections) + "\n"


def main() -> int:
    """Write the page; exit status 0."""
    PAGE.write_text(rendered(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
