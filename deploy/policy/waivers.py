"""Waivers: what is allowed for a time although a rule forbids it, in `policy/waivers/<environment>.yml`.

    waivers:
      - rule: TRD-010
        scope: production-gtw-01          # a host, or fleet
        reason: rehearsal of the first week
        owner: Jane Roe
        expires: "2026-12-31T18:00:00Z"   # UTC, at most 90 days ahead
        deployment: 3fa2c1d0aa11          # as `mt5crs … policy check` says it, or: any

What cannot be read, has expired or names what is not there is a problem, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import yaml

from deploy.policy.rule import FLEET, Rule
from mt5crs.settings.schema import instead

LONGEST = timedelta(days=90)
ANY = "any"
FIELDS = ("rule", "scope", "reason", "owner", "expires", "deployment")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_DEPLOYMENT = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Waiver:
    """One waiver that counts now. where: file and line."""

    rule: str
    scope: str
    reason: str
    owner: str
    expires: datetime
    deployment: str
    where: str

    @property
    def shown(self) -> str:
        """Why a finding is allowed, by whom and until when."""
        return f"{self.reason} ({self.owner}, until {self.expires:%Y-%m-%d %H:%M} UTC, {self.where})"


@dataclass(frozen=True)
class Waivers:
    """What a file of waivers says: those that count, and a sentence for each that does not."""

    good: tuple[Waiver, ...]
    problems: tuple[str, ...]


def read(
    path: Path, shown: str, rules: Mapping[str, Rule], hosts: Collection[str], now: datetime, deployment: str
) -> Waivers:
    """The waivers of a file; none when there is no file. deployment: the identity of what is wanted now."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Waivers((), ())
    except (OSError, UnicodeDecodeError) as error:
        return Waivers((), (f"{shown} cannot be read: {error}",))
    return parse(text, shown, rules, hosts, now, deployment)


def parse(
    text: str, shown: str, rules: Mapping[str, Rule], hosts: Collection[str], now: datetime, deployment: str
) -> Waivers:
    """The same for its text. Pure."""
    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{shown}:{mark.line + 1}" if mark is not None else shown
        return Waivers((), (f"{where}: no YAML ({getattr(error, 'problem', None) or 'unreadable'})",))
    if document is None:
        return Waivers((), ())
    pairs = document.value if isinstance(document, yaml.MappingNode) else []
    if [key.value for key, _ in pairs] != ["waivers"] or not isinstance(pairs[0][1], yaml.SequenceNode):
        return Waivers((), (f"{shown}: expected one list `waivers:` and nothing else",))
    good, problems = [], []
    for node in pairs[0][1].value:
        where = f"{shown}:{node.start_mark.line + 1}"
        fields, wrong = _fields(node)
        wrong = wrong or list(_problems(fields, rules, hosts, now, deployment))
        problems += [f"{where}: {problem}" for problem in wrong]
        if not wrong:
            good.append(Waiver(**{**fields, "expires": _time(fields["expires"])}, where=where))  # type: ignore[arg-type]
    return Waivers(tuple(good), tuple(problems))


def _fields(node: yaml.Node) -> tuple[dict[str, str], list[str]]:
    """The texts of one waiver, and what is wrong with its form."""
    if not isinstance(node, yaml.MappingNode):
        return {}, [f"a waiver has {', '.join(FIELDS)}"]
    found: dict[str, str] = {}
    wrong = []
    for key, value in node.value:
        name = str(key.value)
        if name not in FIELDS:
            wrong.append(f"{name} is unknown{instead(name, FIELDS)}")
        elif name in found:
            wrong.append(f"{name} is there twice; only one would count")
        elif not isinstance(value, yaml.ScalarNode) or not str(value.value).strip():
            wrong.append(f"{name} needs a text")
        else:
            found[name] = str(value.value).strip()
    told = {str(key.value) for key, _ in node.value}
    wrong += [f"{name} is missing" for name in FIELDS if name not in told]
    return found, wrong


def _problems(
    fields: Mapping[str, str],
    rules: Mapping[str, Rule],
    hosts: Collection[str],
    now: datetime,
    deployment: str,
) -> Iterator[str]:
    rule, scope = fields["rule"], fields["scope"]
    if rule not in rules:
        yield f"there is no rule {rule}{instead(rule, rules)}"
    elif not rules[rule].waivable:
        yield f"{rule} cannot be waived; a deployment cannot do without it"
    if scope != FLEET and scope not in hosts:
        yield f"scope {scope} is neither a host of this fleet nor `{FLEET}`{instead(scope, [*hosts, FLEET])}"
    expires = _time(fields["expires"])
    if expires is None:
        yield f"expires is {fields['expires']}, expected a time in UTC such as {now:%Y-%m-%dT%H:%M:%SZ}"
    elif expires <= now:
        yield f"it expired on {fields['expires']}; remove it, or decide anew"
    elif expires - now > LONGEST:
        yield f"it would last until {fields['expires']}; {LONGEST.days} days are the longest"
    wanted = fields["deployment"]
    if wanted != ANY and not _DEPLOYMENT.fullmatch(wanted):
        yield f"deployment is {wanted}, expected twelve hexadecimal digits or `{ANY}`"
    elif wanted not in (ANY, deployment):
        yield f"it was given for deployment {wanted}, this is {deployment or 'unknown'}; decide anew"


def _time(text: str) -> datetime | None:
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
