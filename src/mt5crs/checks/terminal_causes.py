"""Which of the known causes keeps a terminal from starting. Pure: what was seen in, findings out.

What could not be looked at is unknown and never fine. Users' reports of the causes: docs/windows.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from mt5crs.broker.windows_programs import Program

Verdict = Literal["fine", "cause", "unknown"]
_TRYING = ("starting", "reconnecting", "failing", "hung")


class Seen(Struct, frozen=True, kw_only=True):
    """What was looked at. None: it could not be."""

    state: str
    """Of the terminal, as the gateway says; `down` when it does not answer."""
    reason: str
    under_wine: bool
    wine_problem: str
    path: str
    path_there: bool | None
    user: str
    """Who the gateway runs as."""
    prefix: str
    display: str
    display_there: bool | None
    held: bool | None
    """Whether the unit of the terminal has the prefix."""
    programs: tuple[Program, ...] | None


class Finding(Struct, frozen=True, kw_only=True):
    """One known cause and whether it is there."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def findings(seen: Seen) -> list[Finding]:
    """Every known cause, in the order in which one hides the next."""
    found = [*_before_it_runs(seen), *_where_it_runs(seen), _update(seen), _login(seen)]
    return [*found, _dialog(seen, clear=not any(each.verdict == "cause" for each in found))]


def _before_it_runs(seen: Seen) -> Iterator[Finding]:
    if seen.under_wine:
        problem, _, remedy = seen.wine_problem.partition(": ")
        yield Finding(
            name="wine",
            verdict="cause" if problem else "fine",
            detail=problem or "Wine and the Python for Windows are there",
            remedy=remedy,
        )
    if seen.path_there is None:
        yield Finding(name="path", verdict="unknown", detail=f"{seen.path} could not be looked at")
    else:
        yield Finding(
            name="path",
            verdict="fine" if seen.path_there else "cause",
            detail=f"{seen.path} is there" if seen.path_there else f"there is no terminal at {seen.path}",
            remedy="" if seen.path_there else "install the terminal there, or correct gateway_mt5_path",
        )
    if not seen.under_wine:
        return
    if not seen.display:
        yield Finding(
            name="display",
            verdict="cause",
            detail="the terminal has no display: gateway_wine_display is empty",
            remedy="set gateway_wine_display (':1') and deploy: the unit mt5crs-terminal starts it",
        )
    elif seen.display_there is None:
        yield Finding(name="display", verdict="unknown", detail=f"{seen.display} could not be asked")
    else:
        yield Finding(
            name="display",
            verdict="fine" if seen.display_there else "cause",
            detail=f"{seen.display} {'answers' if seen.display_there else 'does not answer'}",
            remedy="" if seen.display_there else "see `journalctl -u mt5crs-terminal`, which has it",
        )
    if seen.held is None:
        yield Finding(name="unit", verdict="unknown", detail="the lock in the prefix could not be looked at")
    elif seen.display:
        yield Finding(
            name="unit",
            verdict="fine" if seen.held else "cause",
            detail=f"the unit mt5crs-terminal {'has' if seen.held else 'does not have'} the prefix",
            remedy="" if seen.held else "see `journalctl -u mt5crs-terminal`",
        )


def _where_it_runs(seen: Seen) -> Iterator[Finding]:
    if seen.programs is None:
        yield Finding(name="user", verdict="unknown", detail="the processes of this host cannot be listed")
        return
    terminals = [each for each in seen.programs if each.is_terminal()]
    others = [each for each in terminals if each.user != seen.user]
    own = [each for each in terminals if each.user == seen.user]
    if others and not own:
        yield Finding(
            name="user",
            verdict="cause",
            detail=f"a terminal runs as {others[0].user} (process {others[0].pid}), "
            f"the gateway as {seen.user}",
            remedy=f"end it: the unit mt5crs-terminal starts one as {seen.user} (on Windows: the gateway)",
        )
    else:
        yield Finding(name="user", verdict="fine", detail="no terminal runs under another user alone")
    if not seen.under_wine:
        return
    elsewhere = [each for each in own if each.prefix and each.prefix != seen.prefix]
    here = [each for each in own if each.prefix == seen.prefix]
    if elsewhere and not here:
        yield Finding(
            name="prefix",
            verdict="cause",
            detail=f"a terminal runs in the prefix {elsewhere[0].prefix}, the gateway uses {seen.prefix}",
            remedy=f"end it (process {elsewhere[0].pid}) and start it with WINEPREFIX={seen.prefix}",
        )
    elif any(not each.prefix for each in own):
        yield Finding(name="prefix", verdict="unknown", detail="the prefix of a terminal cannot be read")
    else:
        yield Finding(name="prefix", verdict="fine", detail=f"no terminal runs in a prefix but {seen.prefix}")


def _update(seen: Seen) -> Finding:
    if seen.programs is None:
        return Finding(name="update", verdict="unknown", detail="the processes of this host cannot be listed")
    running = [each for each in seen.programs if each.is_update()]
    if not running:
        return Finding(name="update", verdict="fine", detail="no update of a terminal runs")
    return Finding(
        name="update",
        verdict="cause",
        detail=f"{running[0].named()} runs (process {running[0].pid}): the terminal is being updated",
        remedy="wait until it has ended; the gateway goes on by itself",
    )


def _login(seen: Seen) -> Finding:
    if seen.state == "login_failed":
        return Finding(
            name="login",
            verdict="cause",
            detail=f"the trade server refuses the login: {seen.reason}",
            remedy="correct gateway_mt5_login, gateway_mt5_password or gateway_mt5_server, and deploy",
        )
    if seen.state == "other_account":
        return Finding(
            name="login",
            verdict="cause",
            detail=f"the terminal is logged in to another account: {seen.reason}",
            remedy="log it in to the account of gateway_mt5_login, or correct that setting",
        )
    if seen.state in ("connected", "trading_off", "offline"):
        return Finding(name="login", verdict="fine", detail="the terminal is logged in to the right account")
    return Finding(name="login", verdict="unknown", detail="no login was tried so far, or it is not told")


def _dialog(seen: Seen, *, clear: bool) -> Finding:
    """What nothing else explains: it runs where it should and does not answer."""
    if seen.state not in _TRYING:
        verdict: Verdict = "unknown" if seen.state == "down" else "fine"
        detail = (
            "the gateway does not run" if verdict == "unknown" else f"the terminal answers ({seen.state})"
        )
        remedy = "see `journalctl -u mt5crs-gateway`" if verdict == "unknown" else ""
        return Finding(name="dialog", verdict=verdict, detail=detail, remedy=remedy)
    own = [each for each in seen.programs or () if each.is_terminal() and each.user == seen.user]
    if not (clear and own):
        return Finding(
            name="dialog", verdict="unknown", detail=f"the terminal does not answer: {seen.reason}"
        )
    return Finding(
        name="dialog",
        verdict="cause",
        detail=f"the terminal runs (process {own[0].pid}) and does not answer: most likely it shows a dialog "
        f"(first run, licence, update, login), or still loads; it says: {seen.reason}",
        remedy="look at its display (--picture FILE) and answer the dialog once",
    )


def verdict_of(found: list[Finding]) -> Verdict:
    """`cause` if one is known; `fine` only if everything could be looked at."""
    verdicts = {each.verdict for each in found}
    return "cause" if "cause" in verdicts else "unknown" if "unknown" in verdicts else "fine"
