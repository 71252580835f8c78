"""Reading what a reviewer answers. It is the text of somebody else: nothing in it is believed but findings
that quote a line which was shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from mt5crs.foreign_text import shown
from mt5crs.review.model import PARTS, SEVERITIES, Finding, Part, Severity
from mt5crs.review.units import Unit

MOST_FINDINGS: Final = 200
"""Of one reply; more are counted as dropped."""
MESSAGE: Final = 400
_NUMBERED: Final = re.compile(r"[+ ] (\d+) ?(.*)\Z", re.DOTALL)
_FENCE: Final = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


class BadReplyError(Exception):
    """The reply is not what was asked for; the text says how."""


class Read(NamedTuple):
    """What a reply came to: findings of every unit, and how many were dropped."""

    findings: dict[str, list[Finding]]
    dropped: int


def read(text: str, asked: Mapping[str, Unit], source: str) -> Read:
    """Read a reply to a question about these units.

    :raises BadReplyError: it is no such reply, or does not say that it has looked at every unit
    """
    fenced = _FENCE.match(text)
    try:
        document = json.loads(fenced[1] if fenced else text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadReplyError("the reply is no JSON object") from None
    if not isinstance(document, dict):
        raise BadReplyError("the reply is no JSON object")
    reviewed, said = document.get("reviewed"), document.get("findings")
    if not isinstance(reviewed, list) or not isinstance(said, list):
        raise BadReplyError('the reply lacks the lists "reviewed" and "findings"')
    missed = sorted(set(asked) - {each for each in reviewed if isinstance(each, str)})
    if missed:
        raise BadReplyError(f"the reply does not say that it has looked at {', '.join(missed)}")
    findings: dict[str, list[Finding]] = {name: [] for name in asked}
    dropped = max(0, len(said) - MOST_FINDINGS)
    for each in said[:MOST_FINDINGS]:
        name, finding = _finding(each, asked, source)
        if finding is None:
            dropped += 1
        else:
            findings[name].append(finding)
    return Read(findings, dropped)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key twice")
    return made


def _refuse(word: str) -> object:
    raise ValueError(word)


def _finding(each: object, asked: Mapping[str, Unit], source: str) -> tuple[str, Finding | None]:
    if not isinstance(each, dict):
        return "", None
    name, line, quote, message = (each.get(key) for key in ("file", "line", "quote", "message"))
    severity, part = each.get("severity"), each.get("part")
    unit = asked.get(name) if isinstance(name, str) else None
    if unit is None or not isinstance(quote, str) or not isinstance(message, str) or not message.strip():
        return "", None
    if severity not in SEVERITIES or part not in PARTS:
        return "", None
    number = _where(unit, quote, line if isinstance(line, int) and not isinstance(line, bool) else 0)
    if number is None:
        return "", None
    return str(name), Finding(
        rule="external-review",
        severity=cast("Severity", severity),
        part=cast("Part", part),
        path=unit.path,
        line=number,
        message=shown(" ".join(message.split()))[:MESSAGE],
        source=source,
        quote=quote.strip()[:200],
    )


def _where(unit: Unit, quote: str, line: int) -> int | None:
    """The number of the shown line that has the quote: the one that was named, else the only such one."""
    wanted = quote.strip()
    if len(wanted) < 2:
        return None
    numbered = [found for each in unit.text.split("\n") if (found := _NUMBERED.match(each))]
    having = [int(found[1]) for found in numbered if wanted in found[2]]
    if line in having:
        return line
    return having[0] if len(having) == 1 else None
