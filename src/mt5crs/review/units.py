"""What the external reviewer is asked about: pieces of files with numbered lines, and who is asked."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

from mt5crs.review.tree import File

Route = Literal["strong", "medium", "cheap", "here"]
CONTEXT: Final = 8
"""Unchanged lines around a change."""
CHARACTERS_PER_TOKEN: Final = 3
"""Of code; providers count fewer tokens, so that an estimate is not exceeded."""
USUAL_CHARACTERS_PER_TOKEN: Final = 4
"""As providers count."""
_ANY: Final = ""
_DEPLOYMENT: Final = ("images/", "windows/", "site.yml", "rollback.yml", "operate.yml", "windows.yml")
ROUTES: Final[tuple[tuple[str, Route, str], ...]] = (
    ("uv.lock", "here", "made by uv; every wheel is checked by its hash"),
    ("docs/reference/", "here", "made from the code"),
    ("group_vars/all/defaults.yml", "here", "made from the code"),
    ("src/mt5crs/gateway/", "strong", "the gateway: orders and limits"),
    ("src/mt5crs/broker/", "strong", "the order path"),
    ("src/mt5crs/strategy/", "strong", "decides about orders"),
    ("src/mt5crs/reconciler/", "strong", "decides what is known of positions"),
    ("src/mt5crs/protocol/", "strong", "what orders look like on the wire"),
    ("src/mt5crs/client/", "strong", "how orders reach the gateway"),
    ("src/mt5crs/review/", "strong", "the review itself"),
    ("src/mt5crs_release/", "strong", "the release tool"),
    ("src/", "medium", "code of the hosts, not of the order path"),
    ("deploy/", "medium", "the deployment"),
    ("plugins/", "medium", "the deployment"),
    ("templates/", "medium", "a template"),
    ("roles/", "medium", "a role"),
    ("group_vars/", "medium", "settings"),
    ("inventory/", "medium", "the inventory"),
    *((name, "medium", "the deployment") for name in _DEPLOYMENT),
    ("tests/", "cheap", "a test"),
    ("molecule/", "cheap", "a test"),
    ("lab/", "cheap", "the lab"),
    ("docs/", "cheap", "a document"),
    ("LICENSE", "here", "a licence"),
    (_ANY, "strong", "nothing is known of this place"),
)
"""Beginning of a path, who is asked, why. The first that fits counts."""


class Unit(NamedTuple):
    """A piece of a file as it is shown: `text` has the lines with their numbers."""

    path: str
    part: int
    text: str
    route: Route
    reason: str
    context: str
    """Digest of the whole file: what is around the piece."""

    @property
    def tokens(self) -> int:
        """Tokens at most, as estimated."""
        return len(self.text) // CHARACTERS_PER_TOKEN + 1


def route(path: str) -> tuple[Route, str]:
    """Who is asked about a file, and why."""
    if path.endswith(".md") and "/" not in path:
        return "cheap", "a document"
    return next((to, why) for beginning, to, why in ROUTES if path.startswith(beginning))


def strongest(path: str) -> tuple[Route, str]:
    """Who is asked without the router: the strong model about everything that anybody is asked about."""
    try:
        to, why = route(path)
    except Exception:  # it is the router that failed
        to, why = "strong", ""
    return (to, why) if to == "here" else ("strong", "the optimiser is off")


def units(
    files: Iterable[File], most_tokens: int, router: Callable[[str], tuple[Route, str]] | None = None
) -> list[Unit]:
    """The pieces of all files, none of more than `most_tokens`. What is no text has none (gate 1 says so)."""
    made: list[Unit] = []
    for file in files:
        to, why = (router or route)(file.path)
        if file.kind != "text" or to == "here":
            continue
        context = hashlib.sha256(file.text.encode()).hexdigest()
        for part, lines in enumerate(_pieces(_shown(file), most_tokens * CHARACTERS_PER_TOKEN), 1):
            made.append(Unit(file.path, part, "\n".join(lines), to, why, context))
    return made


def _shown(file: File) -> list[str]:
    """`+ 12 text` for a new line, `- text` for one that is gone, `  12 text` for what is around."""
    lines = file.text.splitlines()
    if file.before is None:
        return [f"+ {number} {line}" for number, line in enumerate(lines, 1)]
    before = file.before.splitlines()
    shown: list[str] = []
    matcher = difflib.SequenceMatcher(None, before, lines, autojunk=len(lines) > 2000)
    for group in matcher.get_grouped_opcodes(CONTEXT):
        for what, from_, to, at, end in group:
            if what == "equal":
                shown += [f"  {number} {line}" for number, line in enumerate(lines[at:end], at + 1)]
                continue
            shown += [f"- {line}" for line in before[from_:to]]
            shown += [f"+ {number} {line}" for number, line in enumerate(lines[at:end], at + 1)]
        shown.append("…")
    return shown


def _pieces(lines: Sequence[str], characters: int) -> Iterable[list[str]]:
    piece: list[str] = []
    size = 0
    for line in lines:
        for cut in (line[at : at + characters] for at in range(0, max(len(line), 1), characters)):
            if piece and size + len(cut) + 1 > characters:
                yield piece
                piece, size = [], 0
            piece.append(cut)
            size += len(cut) + 1
    if piece:
        yield piece


_RISK: Final[tuple[Route, ...]] = ("strong", "medium", "cheap", "here")


def batches(asked: Iterable[Unit], files: int, tokens: int) -> list[list[Unit]]:
    """Units of one route together, the riskiest first, then in the order of paths; at most so many files
    and tokens in one batch.
    """
    made: list[list[Unit]] = []
    for unit in sorted(asked, key=lambda unit: (_RISK.index(unit.route), unit.path, unit.part)):
        last = made[-1] if made else None
        if (
            last is None
            or last[0].route != unit.route
            or len(last) >= files
            or sum(each.tokens for each in last) + unit.tokens > tokens
        ):
            made.append([unit])
        else:
            last.append(unit)
    return made
