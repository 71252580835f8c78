"""Looks every few seconds, and has told what is to be told."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hub_watch import memory, notice, posting, signature
from hub_watch.verdict import VERDICTS, Heard, judge

LOOK_S = 5.0
_ANSWER_S, _POST_S = 3.0, 10.0
_PAUSED_S = 30.0
"""Between two looks so much passes only if this program did not run: a look and a post take less."""


@dataclass(frozen=True)
class Settings:
    """What is watched, and who is told. gateways: address and port of each. silence_s: after how long.

    signing: keys that posts are signed with; none: they are not.
    """

    names: notice.Names
    hub_address: str
    gateways: tuple[tuple[str, int], ...]
    silence_s: float
    url: str
    state: Path
    look_s: float = LOOK_S
    signing: tuple[bytes, ...] = ()


class Watch:
    """One watcher; everything in one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._heard = Heard(time.monotonic())
        self._told = notice.Told()
        self._verdict: str | None = None
        self._owing, self._failures, self._next_try = False, 0, 0.0
        self._message = ("", "")
        self._posts = {"accepted": 0, "failed": 0}
        self._looked = time.time()
        if not settings.signing:
            say("posts are not signed: monitoring_hub_watch_secret is empty")
        try:
            self._told = memory.load(settings.state)
        except ValueError as error:
            say(f"what was told before cannot be read ({error}); taken as nothing, the file is replaced")

    def scraped(self) -> None:
        """Prometheus asked."""
        self._heard = replace(self._heard, scrape=time.monotonic())

    def signed(self) -> None:
        """Alertmanager sent."""
        self._heard = replace(self._heard, sign=time.monotonic())

    async def run(self) -> None:
        """Look until cancelled."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(self._settings.look_s)
            now = time.monotonic()
            if now - last > _PAUSED_S:
                self._heard = self._heard.deaf(now - last)
            last = now
            await self._look()

    async def _look(self) -> None:
        limit_s = self._settings.silence_s
        late = self._heard.late(time.monotonic(), limit_s)
        # A gateway is asked only when it matters.
        network = await self._network() if len(late) == 2 else None
        self._heard = replace(self._heard, network=network)
        now = time.monotonic()
        verdict = judge(self._heard, now, limit_s)
        if verdict != self._verdict:
            say(f"the Hub is {verdict or 'not judged yet'}{': ' + ' and '.join(late) if late else ''}")
        self._verdict = verdict
        self._looked = time.time()
        began = self._looked - (now - self._heard.quiet_since())
        await self._tell(verdict, began, self._heard.late(now, limit_s))

    async def _tell(self, verdict: str | None, began: float, late: tuple[str, ...]) -> None:
        settings = self._settings
        next_told = notice.owed(self._told, verdict, began, self._looked)
        self._owing = next_told is not None
        if next_told is None:
            self._failures, self._next_try = 0, 0.0
            self._message = ("", "")
            return
        if self._message[0] != next_told.verdict:
            # What is tried again has the same id, so that a receiver that had taken it takes it once.
            self._message = (next_told.verdict, f"msg_{uuid.uuid4().hex}")
        if time.monotonic() < self._next_try:
            return
        content = notice.message(self._told, next_told, settings.names, late, settings.silence_s)
        problem = await posting.post(settings.url, content, _POST_S, self._signed)
        if problem is None:
            self._posts["accepted"] += 1
            self._owing, self._failures, self._next_try = False, 0, 0.0
            self._told, self._message = next_told, ("", "")
            say(f"told that the Hub is {next_told.verdict}")
            try:
                memory.save(settings.state, next_told)
            except OSError as error:
                say(f"what was told could not be kept ({error.strerror}); after a restart it is told again")
            return
        self._posts["failed"] += 1
        self._failures += 1
        self._next_try = time.monotonic() + notice.wait_s(self._failures)
        again = notice.wait_s(self._failures)
        say(f"the receiver was not told that the Hub is {next_told.verdict}: {problem}; again in {again:g} s")

    def _signed(self, body: bytes) -> Mapping[str, str]:
        if not self._settings.signing:
            return {}
        return signature.headers(self._message[1], int(time.time()), body, self._settings.signing)

    async def _network(self) -> bool:
        """Whether a gateway answers; that it refuses is an answer too."""

        async def answers(address: str, port: int) -> bool:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), _ANSWER_S)
            except ConnectionRefusedError:
                return True
            except (OSError, asyncio.TimeoutError):
                return False
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return True

        found = await asyncio.gather(*(answers(*gateway) for gateway in self._settings.gateways))
        return any(found)

    def figures(self) -> str:
        """The text of /metrics."""
        heard, now = self._heard, time.monotonic()
        silent = {
            "scrape": now - (heard.since if heard.scrape is None else heard.scrape),
            "sign_of_life": now - (heard.since if heard.sign is None else heard.sign),
        }
        lines = [
            "# HELP mt5crs_hub_watch_state What the watcher thinks of the Hub; all 0: too early to say.",
            "# TYPE mt5crs_hub_watch_state gauge",
            *(f"mt5crs_hub_watch_state{_label('state', of)} {int(of == self._verdict)}" for of in VERDICTS),
            "# HELP mt5crs_hub_watch_silent_seconds How long each has not been heard of the Hub.",
            "# TYPE mt5crs_hub_watch_silent_seconds gauge",
            *(f"mt5crs_hub_watch_silent_seconds{_label('of', of)} {age:.1f}" for of, age in silent.items()),
            "# HELP mt5crs_hub_watch_looked_timestamp_seconds When the watcher judged last.",
            "# TYPE mt5crs_hub_watch_looked_timestamp_seconds gauge",
            f"mt5crs_hub_watch_looked_timestamp_seconds {self._looked:.1f}",
            "# HELP mt5crs_hub_watch_untold Whether the receiver has not accepted what it is to be told.",
            "# TYPE mt5crs_hub_watch_untold gauge",
            f"mt5crs_hub_watch_untold {int(self._owing)}",
            "# HELP mt5crs_hub_watch_posts_total Posts to the receiver.",
            "# TYPE mt5crs_hub_watch_posts_total counter",
            *(
                f"mt5crs_hub_watch_posts_total{_label('outcome', outcome)} {count}"
                for outcome, count in self._posts.items()
            ),
        ]
        return "\n".join([*lines, ""])


def _label(name: str, value: str) -> str:
    return "{" + f'{name}="{value}"' + "}"  # doubled braces would be the template's


def say(text: str) -> None:
    """A line for the journal."""
    print(text, flush=True)
