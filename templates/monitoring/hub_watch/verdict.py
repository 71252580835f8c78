"""What is to be thought of the Hub, by what was heard of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WELL: Final = "well"
SILENT: Final = "silent"
UNKNOWN: Final = "unknown"
VERDICTS: Final = (WELL, SILENT, UNKNOWN)
SCRAPE, SIGN = "Prometheus asks for no figures", "Alertmanager sends no sign of life"


@dataclass(frozen=True)
class Heard:
    """What was heard of the Hub, and when: seconds of a clock that runs evenly.

    since: when listening began. scrape, sign: when Prometheus asked last, when Alertmanager sent last (None:
    never). network: whether a gateway answers this host (None: nobody asked).
    """

    since: float
    scrape: float | None = None
    sign: float | None = None
    network: bool | None = None

    def late(self, now: float, limit_s: float) -> tuple[str, ...]:
        """What has not been heard for longer than it may."""
        last = {SCRAPE: self.scrape, SIGN: self.sign}
        return tuple(what for what, at in last.items() if now - self._from(at) > limit_s)

    def quiet_since(self) -> float:
        """When that was heard which is missing longest."""
        return min(self._from(self.scrape), self._from(self.sign))

    def deaf(self, gap_s: float) -> Heard:
        """The same after so many seconds in which this program did not run: they count for nothing."""
        scrape = None if self.scrape is None else self.scrape + gap_s
        sign = None if self.sign is None else self.sign + gap_s
        return Heard(self.since + gap_s, scrape, sign, self.network)

    def _from(self, at: float | None) -> float:
        return self.since if at is None else at


def judge(heard: Heard, now: float, limit_s: float) -> str | None:
    """WELL, SILENT or UNKNOWN; None: too early to say.

    One of the two that still comes shows that the network is there. When neither does, only a gateway that
    answers shows it: otherwise it may be this host that is cut off.
    """
    late = heard.late(now, limit_s)
    if not late:
        return None if heard.scrape is None or heard.sign is None else WELL
    return SILENT if len(late) == 1 or heard.network else UNKNOWN
