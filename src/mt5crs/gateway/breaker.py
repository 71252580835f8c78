"""The circuit breaker: how many orders of a magic number have failed in a row. Used by the terminal's
thread.
"""

from collections.abc import Callable

from .journal import Journal, JournalError


class Breaker:
    """The count is the journal's; it is written with the answer that changes it."""

    def __init__(self, journal: Journal, note: Callable[..., None]) -> None:
        self._journal = journal
        self._note = note
        self.failures = journal.failures()
        """By magic number. Reading it is safe from another thread."""

    def reset(self, magic: int) -> None:
        """Close the circuit breaker of a magic number (0: of all)."""
        for each in [magic] if magic else list(self.failures):
            try:
                self._journal.reset_failures(each)
            except JournalError as error:  # it stays open: better than a count that a restart brings back
                self._note("journal.failed", error=str(error), magic=each)
            else:
                self.failures[each] = 0
