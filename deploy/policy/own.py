"""Rules that users of the kit have written themselves: `policy/*.rego`, over the same facts as the kit's own.

A file is one rule. What cannot be read, cannot be judged, or does not even find its own example refuses a
deployment: a rule that is there and finds nothing because of a slip is worse than none.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from deploy.fleet.vault_password import PROJECT
from deploy.policy.facts import Facts
from deploy.policy.rule import FLEET, SEVERITIES, Broken, Rule
from mt5crs.settings.schema import instead

DIRECTORY: Final = PROJECT / "policy"
PATTERN: Final = "*.rego"
ID: Final = re.compile(r"OWN-\d{3}")
_WITHIN_S: Final = 20
_FIELDS: Final = ("id", "severity", "title", "reason", "remedy")
_SETTING: Final = re.compile(r"""settings(?:\.|\[")([a-z][a-z0-9_]*)""")


@dataclass(frozen=True)
class Own:
    """The users' rules, and what is wrong with files of them: a sentence each with file and line."""

    rules: tuple[Rule, ...] = ()
    problems: tuple[str, ...] = ()


def read(directory: Path, facts: Facts, settings: Collection[str]) -> Own:
    """All rules of a directory, judged by these facts; none when there is no file.

    :param settings: names that a host can have
    """
    files: dict[str, str] = {}
    problems: list[str] = []
    for path in sorted(directory.glob(PATTERN)):
        shown = f"{directory.name}/{path.name}"
        try:
            files[shown] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{shown}:1: cannot be read: {error}")
    if not files:
        return Own((), tuple(problems))
    told = _evaluated(files, asdict(facts))
    if isinstance(told, str):
        return Own((), (*problems, *(f"{name}:1: {told}" for name in files)))
    rules: dict[str, Rule] = {}
    for name, text in files.items():
        made = _rule(text, told.get(name) or {"error": "there is no answer for it"}, facts, settings)
        if isinstance(made, Rule) and made.id in rules:
            made = [(_line(text, "rule"), f"{made.id} is another file's already; give each its own number")]
        if isinstance(made, Rule):
            rules[made.id] = made
        else:
            problems += [f"{name}:{line}: {why}" for line, why in made]
    return Own(tuple(rules.values()), tuple(problems))


def _evaluated(files: Mapping[str, str], facts: Any) -> Mapping[str, Any] | str:
    """What the evaluator says of each file, or why it says nothing."""
    if importlib.util.find_spec("regopy") is None:
        return "rules in Rego need the package regopy, which is not here: `make setup`"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.policy.rego"],
            input=json.dumps({"files": files, "facts": facts}, default=_text),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )
        told = json.loads(done.stdout) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return f"not judged within {_WITHIN_S} s, together with the other files: make it simpler"
    except (OSError, ValueError):
        told = None
    return told if isinstance(told, dict) else "the evaluator of Rego ended without an answer"


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _rule(
    text: str, told: Mapping[str, Any], facts: Facts, settings: Collection[str]
) -> Rule | list[tuple[int, str]]:
    """The rule of a file; or all that is wrong with it, by line. Pure."""
    if "error" in told:
        return [(int(told.get("line") or 1), str(told["error"]))]
    wrong = [
        *((_line(text, "rule"), one) for one in _wrong_form(told["rule"])),
        *_unknown_settings(text, settings),
        *((_line(text, "broken"), one) for one in _wrong_findings(told["broken"], {*facts.hosts, FLEET})),
    ]
    if not isinstance(told["by_example"], list) or not told["by_example"]:
        wrong.append(
            (_line(text, "example"), "it finds nothing in its own example, so it may find nothing anywhere")
        )
    if wrong:
        return wrong
    of = told["rule"]
    found = tuple(Broken(one["scope"], one["text"]) for one in told["broken"])
    return Rule(of["id"], of["severity"], of["title"], of["reason"], of["remedy"], partial(_again, found))


def _again(found: tuple[Broken, ...], _facts: Facts) -> tuple[Broken, ...]:
    return found


def _wrong_form(rule: Any) -> Iterator[str]:
    if not isinstance(rule, dict) or set(rule) != set(_FIELDS):
        yield f"`rule` is an object with {', '.join(_FIELDS)} and nothing else"
        return
    for name in _FIELDS:
        if not isinstance(rule[name], str) or not rule[name].strip():
            yield f"`{name}` of the rule is a text that says something"
    if not ID.fullmatch(str(rule["id"])):
        yield f"`id` is {rule['id']!r}; rules of your own are OWN-001 to OWN-999"
    if rule["severity"] not in SEVERITIES:
        yield f"`severity` is {rule['severity']!r}; it is one of {', '.join(SEVERITIES)}"


def _unknown_settings(text: str, settings: Collection[str]) -> Iterator[tuple[int, str]]:
    """Settings that no host has: in Rego such a name is no error, and what needs it is never found."""
    for number, line in enumerate(text.splitlines(), 1):
        for name in _SETTING.findall(line.partition("#")[0]):
            if name not in settings:
                yield (
                    number,
                    f"there is no setting {name}{instead(name, settings)} (secrets are not shown)",
                )


def _wrong_findings(found: Any, scopes: Collection[str]) -> Iterator[str]:
    if not isinstance(found, list):
        yield '`broken` is a set of objects: `broken contains {"scope": …, "text": …} if …`'
        return
    for one in found:
        if not isinstance(one, dict) or set(one) != {"scope", "text"} or not isinstance(one["text"], str):
            yield f"`broken` has {json.dumps(one)[:80]}; each is an object of scope and text"
        elif one["scope"] not in scopes:
            yield f"`broken` names {one['scope']!r}, which is no host; or say {FLEET!r}"


def _line(text: str, name: str) -> int:
    """Where a name is defined first; 1 when it is nowhere."""
    begins = re.compile(rf"\s*{name}\b")
    return next((number for number, line in enumerate(text.splitlines(), 1) if begins.match(line)), 1)
