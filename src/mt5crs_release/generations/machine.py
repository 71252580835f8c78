"""The life of a generation: the one table of transitions, and nothing that acts.

``docs/rollout.md`` shows the diagram that :func:`mermaid` makes from this table.
"""

from __future__ import annotations

from mt5crs_release.errors import FailedError

STAGED = "staged"
STANDBY = "standby"
ACTIVATING = "activating"
PROVISIONAL = "provisional"
CONFIRMED = "confirmed"
REVERTING = "reverting"
REVERTED = "reverted"
FAILED = "failed"

STATES = (STAGED, STANDBY, ACTIVATING, PROVISIONAL, CONFIRMED, REVERTING, REVERTED, FAILED)

TRANSITIONS: dict[tuple[str, str], str] = {
    (STAGED, "stand by"): STANDBY,
    (REVERTED, "stand by"): STANDBY,
    (CONFIRMED, "stand by"): STANDBY,
    (FAILED, "stand by forced"): STANDBY,
    (STANDBY, "equal"): ACTIVATING,
    (STANDBY, "differs"): FAILED,
    (STANDBY, "unhealthy"): FAILED,
    (STANDBY, "inconclusive"): REVERTED,
    (STANDBY, "interrupted"): REVERTED,
    (STANDBY, "kept"): CONFIRMED,
    (STAGED, "activate"): ACTIVATING,
    (REVERTED, "activate"): ACTIVATING,
    (CONFIRMED, "activate"): ACTIVATING,
    (FAILED, "force"): ACTIVATING,
    (ACTIVATING, "healthy"): PROVISIONAL,
    (ACTIVATING, "moved"): PROVISIONAL,
    (ACTIVATING, "unhealthy"): REVERTING,
    (ACTIVATING, "interrupted"): REVERTING,
    (PROVISIONAL, "confirm"): CONFIRMED,
    (PROVISIONAL, "revert"): REVERTING,
    (PROVISIONAL, "deadline"): REVERTING,
    (PROVISIONAL, "boot"): REVERTING,
    (PROVISIONAL, "unhealthy"): REVERTING,
    (REVERTING, "retry"): REVERTING,
    (REVERTING, "reverted"): REVERTED,
    (REVERTING, "failed"): FAILED,
    (REVERTING, "kept"): CONFIRMED,
}
"""``(state, event) -> state``; what is not here does not happen."""

MAX_ATTEMPTS = 5
"""How often an interrupted revert is taken up again by itself before a person must look."""

PENDING = frozenset({STANDBY, ACTIVATING, PROVISIONAL, REVERTING})
"""States in which a transaction is open; at most one generation of a service is in one of them."""

OUTCOME = {"unhealthy": "failed"}
"""How a revert ends by what began it: an unhealthy generation has failed, all others may be tried again."""

KEPT = "kept"
"""How it ends for a generation that was confirmed once, whatever began it: its content has shown that it
works, so the cause is outside of it (what it depends on, a key, a disk), and it stays one to go back to."""


def advance(state: str, event: str) -> str:
    """Return the state after ``event``.

    :raises FailedError: the table has no such transition (a defect or a damaged state file)
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise FailedError(
            f"a generation that is {state} cannot be told '{event}'",
            remedy="look at `mt5crs-release list` and the service's journal.jsonl, and report this",
        ) from None


def revert_ending(event: str, *, proven: bool) -> str:
    """Return the event that ends a revert which ``event`` began; ``proven``: it was confirmed once."""
    return KEPT if proven else OUTCOME.get(event, "reverted")


def standby_ending(event: str, *, proven: bool) -> str:
    """Return the event that ends a comparison in standby which ended with ``event``; ``proven`` as above."""
    return KEPT if proven else event


def mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {STAGED}: stage"]
    lines += [f"    {state} --> {after}: {event}" for (state, event), after in TRANSITIONS.items()]
    return "\n".join(lines)
