"""Errors the tool ends with: each carries its cause, its remedy and its exit status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2


class ReleaseError(Exception):
    """Something went wrong that an operator must know: what (message) and what to do (remedy)."""

    exit_status = EXIT_FAILED
    kind = "failed"

    def __init__(self, message: str, *, remedy: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.details: dict[str, Any] = dict(details or {})

    def as_json(self) -> dict[str, Any]:
        """Return the error as the ``--json`` output shows it."""
        return {"error": {"kind": self.kind, "message": self.message, "remedy": self.remedy}, **self.details}


class FailedError(ReleaseError):
    """The command was carried out and failed; the host is as it was before, or says why not."""


class RefusedError(ReleaseError):
    """The command was not carried out: wrong usage, bad input or an unsafe request."""

    exit_status = EXIT_REFUSED
    kind = "refused"


class SpecError(RefusedError):
    """The desired generation is not valid; every problem is listed."""

    kind = "spec_invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        super().__init__(
            f"the specification has {count} error{'s' if count != 1 else ''}: " + "; ".join(self.problems),
            remedy="correct the template or the variables it is rendered from; nothing was changed",
            details={"problems": self.problems},
        )


class BusyError(RefusedError):
    """Another run of the tool holds the lock of this service."""

    kind = "busy"


class InterruptedRunError(FailedError):
    """The run was told to stop (SIGTERM, SIGINT) before it had finished."""

    kind = "interrupted"
