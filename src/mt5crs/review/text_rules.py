"""Rules for any text: secrets, characters that deceive, text that addresses a reviewer, unpinned actions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from mt5crs.review.model import Finding, Part, Severity

SOURCE: Final = "text"

_KEYS: Final = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s*(?:\\n)?[A-Za-z0-9+/=]{16}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{50}"
    r"|\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32}|\bAIza[0-9A-Za-z_-]{35}\b|\bxox[abprs]-[A-Za-z0-9-]{16}"
    r"|\bglpat-[A-Za-z0-9_-]{20}\b|\bpypi-AgEI[A-Za-z0-9_-]{32}"
)
_ASSIGNED: Final = re.compile(
    r"""(?i)(?:secret|secret_key|password|passwd|token|api_?key|private_?key)["']?\s*[:=]\s*"""
    r"""["']?(?P<value>[A-Za-z0-9+/=_.@!#%^&*-]{8,})["']?\s*,?\s*(?:#.*)?$"""
)
_PLACEHOLDER: Final = re.compile(
    r"(?i)^(?:x+|0+|\*+|change.?me|example.*|your.*|none|null|true|false|str|int|bytes|required|optional|.*_)$"
    r"|^[a-z_]+(?:\.[a-z_]+)+$|^/|^self\."
)
_DECEIVING: Final = re.compile("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\u2060\ufeff\U000e0000-\U000e007f]")
_ADDRESSES_REVIEWER: Final = re.compile(
    r"(?i)\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:previous|prior|above|all|your|earlier|these|system)\b"
    r".{0,30}\b(?:instruction|prompt|rule|message|finding|guideline|direction)s?"
    r"|\b(?:ai|llm|assistant|model|reviewer|claude|gpt|gemini|copilot)\b.{0,40}"
    r"\b(?:must|should|please|shall|will|always|has to)\b.{0,40}"
    r"\b(?:approve|pass|accept|skip|ignore|report no|score)"
    r"|\b(?:approve|pass|accept)\b.{0,30}\bthis (?:change|review|file|diff|code|pull request)\b"
    r"|\b(?:report|return|output|respond|reply|answer)\b.{0,30}\b(?:no (?:findings|issues)|zero findings"
    r"|empty (?:list|array) of findings|approved|lgtm|score of 100|100/100)"
    r"|<\|?(?:im_start|im_end|system|endoftext)\|?>|\[/?INST\]|\b(?:system|assistant) (?:prompt|message)\s*:"
    r"|\byou are now\b|\bnew instructions?\b"
    r"|\b(?:already|pre-?)[ -]?(?:reviewed|approved|audited)\b.{0,40}\b(?:skip|no need|safe)"
)
_ADDRESS_WORDS: Final = re.compile(
    # One of these is in whatever the expression above finds; looking for words first takes less time.
    r"(?i)ignore|disregard|forget|override|approve|accept|skip|pass|score|findings|issues|lgtm|100/100|<\||<system"
    r"|inst\]|you are\s+now|instruction|reviewed|audited|prompt|message"
)
_ACTION: Final = re.compile(r"^\s*(?:-\s*)?uses:\s*(?P<used>[^\s#]+)")
_PINNED: Final = re.compile(r"@[0-9a-f]{40}$")
_CONFIGURATION: Final = ("templates/", "group_vars/", "inventory/", "roles/", "molecule/", ".github/")
CODE: Final = (".py", ".pyi", ".j2", ".yml", ".yaml", ".sh", ".toml", ".json", ".ps1", ".html")
"""Endings of files that a program reads."""
_EXEMPT: Final = re.compile(
    r"^\s*#\s*(?:ruff|flake8)\s*:\s*noqa\b(?!\s*:(?!.*\bS\d))|^\s*#\s*mypy\s*:\s*ignore-errors|^#\s*type\s*:\s*ignore"
)
_VAULT: Final = "$ANSIBLE_VAULT;"


class _Rule(NamedTuple):
    id: str
    severity: Severity
    part: Part
    message: str


_KEY = _Rule("MT5CRS101", "P0", "zero_trust", "a key or token is in the file; revoke it, use the vault")
_SECRET = _Rule("MT5CRS102", "P0", "zero_trust", "a secret is written out in settings; use the vault")
_HIDDEN = _Rule(
    "MT5CRS103",
    "P0",
    "security",
    "a character that is not seen, or turns the direction of writing; escape it",
)
_ADDRESS = _Rule(
    "MT5CRS104", "P1", "security", "this text tells whoever reviews the change what to say; remove it"
)
_UNPINNED = _Rule("MT5CRS105", "P1", "security", "an action is not named by its commit; a tag can be moved")
_EXEMPTED = _Rule(
    "MT5CRS106",
    "P1",
    "security",
    "the whole file is exempted from a check; name the rule on the line that it is about",
)


SECRETS: Final = frozenset((_KEY.id, _SECRET.id))
"""Rules whose findings keep a file on this machine."""


def check(path: str, text: str) -> list[Finding]:
    """Findings in one file of text. A file that is encrypted with ansible-vault has none."""
    if text.startswith(_VAULT):
        return []
    found = [
        # What is secret, or is not to be seen, is not repeated.
        _finding(rule, path, number, "" if rule in (_KEY, _SECRET, _HIDDEN) else line.strip()[:200])
        for number, line in enumerate(text.splitlines(), 1)
        for rule in _broken(path, line)
    ]
    return found + [_finding(_KEY, path, at) for at in _keys_over_lines(text)]


def secrets(path: str, text: str) -> list[Finding]:
    """Keys, tokens and written-out secrets in one file of text, and nothing else that `check` looks for."""
    if text.startswith(_VAULT):
        return []
    lines = text.splitlines()
    found = [
        _finding(rule, path, number) for number, line in enumerate(lines, 1) for rule in _secret(path, line)
    ]
    return found + [_finding(_KEY, path, at) for at in _keys_over_lines(text)]


def _finding(rule: _Rule, path: str, line: int, quote: str = "") -> Finding:
    return Finding(
        rule=rule.id,
        severity=rule.severity,
        part=rule.part,
        path=path,
        line=line,
        message=rule.message,
        source=SOURCE,
        quote=quote,
    )


def _secret(path: str, line: str) -> Iterator[_Rule]:
    if _KEYS.search(line):
        yield _KEY
    elif path.startswith(_CONFIGURATION):
        found = _ASSIGNED.search(line[:2000])
        if found and not _PLACEHOLDER.search(found["value"]) and "{{" not in line and _random(found["value"]):
            yield _SECRET


def _broken(path: str, line: str) -> Iterator[_Rule]:
    yield from _secret(path, line)
    if _DECEIVING.search(line):
        yield _HIDDEN
    if _ADDRESS_WORDS.search(line) and _ADDRESSES_REVIEWER.search(line[:2000]):
        yield _ADDRESS
    if path.endswith((".py", ".pyi")) and _EXEMPT.match(line):
        yield _EXEMPTED
    if path.startswith((".github/", "action.y")):
        action = _ACTION.search(line)
        if action and not action["used"].startswith("./") and not _PINNED.search(action["used"]):
            yield _UNPINNED


def _keys_over_lines(text: str) -> Iterator[int]:
    """Where a private key begins on one line and goes on on the next."""
    for found in re.finditer(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s*\n\s*[A-Za-z0-9+/=]{32}", text):
        yield text.count("\n", 0, found.start()) + 1


def _random(value: str) -> bool:
    """Whether a value looks drawn, not chosen as a word: 2.5 bits a character, and a digit or mixed case."""
    counts = Counter(value)
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    mixed = any(each.isdigit() for each in value) or (value != value.lower() and value != value.upper())
    return bits >= 2.5 and mixed
