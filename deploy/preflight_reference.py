"""Writes docs/go-no-go.md from the checks: `python -m deploy.preflight_reference`."""

from __future__ import annotations

from deploy.fleet.vault_password import PROJECT
from deploy.preflight.check import CATEGORIES
from deploy.preflight.checks import CHECKS

PAGE = PROJECT / "docs" / "go-no-go.md"
_INTRODUCTION = """\
# Go or no-go

Made from the code by `make docs`. May this fleet trade?

```console
$ mt5crs --inventory inventory/production.yml preflight
$ ansible-playbook -i inventory/production.yml operate.yml --tags preflight   # the same command, as a play
```

Each host, gateway and the Hub is asked once, all at the same time, and nothing is changed. Then {count}
checks decide on the answers. Each is PASS, WARN or FAIL. Any FAIL of P0 is NO-GO; nothing overrides it.

- What could not be looked at fails like what is wrong: a host that is down, a Hub that does not answer, a
  file that cannot be read. The text says "not known" then, and `unknown` is true in JSON.
- P1 should be mended before the day is over, P2 in its turn, P3 when there is time.
- EVIDENCE is the age of the oldest thing that a check rests on, such as the last use of the kill switch.
- `--json` prints everything, `--report FILE` also writes it. Exit status: 0 GO, 2 NO-GO, 1 it could not run.
- Windows gateways are asked by Ansible, like everything there, which takes longer: a play for the host, and
  one in check mode that says what a deployment would change of its baseline (G-SEC-06). Who set their clock
  is not asked (G-SYS-10 is unknown there). Proven by unit tests only so far.

A check looks at one moment. It does not replace alerts, limits or the halt."""


def rendered() -> str:
    """The whole page."""
    sections = [_INTRODUCTION.format(count=len(CHECKS))]
    for category in CATEGORIES:
        of = [check for check in CHECKS if check.category == category]
        rows = "\n".join(f"| [{one.id}](#{one.id.lower()}) | {one.priority} | {one.title} |" for one in of)
        sections.append(
            f"## {category.capitalize()}\n\n| check | priority | what holds |\n|---|---|---|\n{rows}"
        )
        sections += [
            f"### {one.id}\n\n{one.priority}. {one.title}.\n\nWhy: {one.reason}\n\nRemedy: {one.remedy}"
            for one in of
        ]
    return "\n\n".join(sections) + "\n"


def old_pages() -> tuple[str, ...]:
    """This page, when it is not there or not what the code says."""
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == rendered()
    return () if current else (str(PAGE.relative_to(PROJECT)),)


def main() -> int:
    """Write the page; exit status 0."""
    PAGE.write_text(rendered(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
