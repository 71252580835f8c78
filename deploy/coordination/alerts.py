"""Prometheus' alerts as a check of a roll-out: which count, and what it means when nobody can be asked.

The Hub is asked over SSH, since its Prometheus answers within the fleet only. What counts is decided in
`counting`, pure.

An alert counts when it began to fire after the roll-out had begun and is critical, or concerns a host that
was activated already. What fired before does not count, nor what was pending, since its cause is older: a
release that mends it must get through. What is about a host that the inventory does not name does not count
either: it is shut out on purpose, and Prometheus watches it until the last step. None of the rules we ship
fires because of a restart: a start on request is no abnormal exit, a target may be gone for 30 s, and what
is not ready yet has longer still.

Hosts that were ill when it began recover while it goes on, since it mends them: those that a dead run was
put back on, and those about which something critical fired or was pending. Such a host may start again and
again until its gateway lets it in, or come to the end of a long start-up sync then; Prometheus tells of it a
moment later, and of some things for minutes. So what it tells of such a host until the host itself has been
activated for a moment has an older cause. Whether what was activated is healthy, the host says itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.remote import ssh
from mt5crs.foreign_text import shown_tree

CRITICAL = "critical"
_CONCERNS = "concerns"
"""Label of alerts about what no release changes: the money, backups."""
ASK_TIMEOUT_S = 15
POLL_S = 2.0
_ANSWER_TIMEOUT_S = 5

# Runs on the Hub, standard library only. arguments: address of Prometheus, expression.
_ASK = f"""
import sys, urllib.parse, urllib.request
url = sys.argv[1] + "/api/v1/query?" + urllib.parse.urlencode({{"query": sys.argv[2]}})
direct = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))  # whatever http_proxy says there
print(direct.open(url, timeout={_ANSWER_TIMEOUT_S}).read().decode())
"""


class UnknownError(Exception):
    """Prometheus cannot be asked; the text says why."""


@dataclass(frozen=True, order=True)
class Alert:
    """One alert: its name, the host it is about ('' for none), how severe, its other labels."""

    name: str
    host: str
    severity: str
    labels: tuple[tuple[str, str], ...] = field(default=(), compare=True)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Alert:
        """The alert whose fields are given as plain values."""
        labels = tuple((str(name), str(value)) for name, value in values["labels"])
        return cls(str(values["name"]), str(values["host"]), str(values["severity"]), labels)

    def __str__(self) -> str:
        return f"{self.name} ({self.severity}{f', {self.host}' if self.host else ''})"


Ask = Callable[[int, int], frozenset[Alert]]
"""Alerts as `expression` says. UnknownError."""


def expression(within_s: int, ago_s: int = 0) -> str:
    """PromQL for the alerts that fired within so many seconds; 0: that fire now or are pending.

    ago_s: as one would have been told so long ago. What only informs is no alert here.
    """
    if within_s <= 0:
        return 'ALERTS{severity!="info"}'
    offset = f" offset {ago_s}s" if ago_s > 0 else ""
    return f'max_over_time(ALERTS{{alertstate="firing",severity!="info"}}[{within_s}s]{offset})'


def read(text: str) -> frozenset[Alert]:
    """The alerts of an answer of Prometheus' query API. UnknownError when it is none."""
    try:
        answer = shown_tree(json.loads(text))
        if answer["status"] != "success":
            raise UnknownError(f"Prometheus answered {answer.get('error', answer['status'])}")
        found = [sample["metric"] for sample in answer["data"]["result"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnknownError("Prometheus gave no answer that can be read") from None
    hidden = ("__name__", "alertname", "alertstate", "host", "severity")
    return frozenset(
        Alert(
            str(labels.get("alertname", "")),
            str(labels.get("host", "")),
            str(labels.get("severity", "")),
            tuple(sorted((name, str(value)) for name, value in labels.items() if name not in hidden)),
        )
        for labels in found
    )


def on_hub(variables: Mapping[str, Any]) -> Ask:
    """Asks the Prometheus of the Hub with these variables."""
    address = str(variables["fleet_address"])
    shown = f"[{address}]" if ":" in address else address
    url = f"http://{shown}:{variables['monitoring_prometheus_port']}"

    def ask(within_s: int, ago_s: int) -> frozenset[Alert]:
        command = ["python3", "-c", _ASK, url, expression(within_s, ago_s)]
        reply = ssh.run(variables, command, timeout_s=ASK_TIMEOUT_S)
        if reply.status is None:
            raise UnknownError(f"the Hub cannot be reached: {reply.why}")
        if reply.status != 0:
            raise UnknownError(f"Prometheus does not answer: {reply.why}")
        return read(reply.output)

    return ask


def of_strangers(now: Collection[Alert], members: Collection[str]) -> frozenset[Alert]:
    """Alerts about hosts that the inventory does not name (any more)."""
    return frozenset(alert for alert in now if alert.host and alert.host not in members)


def counting(
    now: Collection[Alert], before: Collection[Alert], touched: Collection[str]
) -> tuple[Alert, ...]:
    """Alerts that end a roll-out: new since it began, and critical or about a host it has touched.

    What a label says to concern something else is no fault of a release.
    """
    return tuple(
        sorted(
            alert
            for alert in now
            if alert not in before
            and _CONCERNS not in dict(alert.labels)
            and (alert.severity == CRITICAL or alert.host in touched)
        )
    )


@dataclass(frozen=True)
class Verdict:
    """How a check ended: alerts that count, why Prometheus could not be asked ('' if it could).

    left_out: new alerts about hosts that are not in the inventory.
    """

    alerts: tuple[Alert, ...] = ()
    unknown: str = ""
    left_out: tuple[Alert, ...] = ()


@dataclass
class Watch:
    """The alerts of one roll-out, from before its first activation until it is confirmed.

    ask: how Prometheus is asked. members: the hosts of the inventory. unknown_budget_s: seconds the whole
    roll-out may wait for an answer. clock, sleep: seconds. stopped: ends a check at once. shows_s: seconds
    after which Prometheus has seen and judged what changed on a host. ill: hosts that were not well when it
    began. until: from when on what is about one of them counts, once it is activated.
    """

    ask: Ask
    members: Collection[str]
    unknown_budget_s: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    stopped: Callable[[], bool] = lambda: False
    before: frozenset[Alert] | None = None
    began: float = 0.0
    waited_s: float = 0.0
    shows_s: float = 0.0
    ill: frozenset[str] = frozenset()
    until: dict[str, float] = field(default_factory=dict)

    def begin(self) -> Verdict:
        """Remember what fires or is pending already; if that cannot be asked, the first check asks again."""
        self.began = self.clock()
        try:
            self._remember(self.ask(0, 0))
        except UnknownError as error:
            return Verdict(unknown=str(error))
        return Verdict()

    def _remember(self, before: frozenset[Alert]) -> None:
        self.before = before
        self.ill |= {alert.host for alert in before if alert.severity == CRITICAL and alert.host}

    def check(self, touched: Sequence[str], watch_s: float = 0.0, waiting: Collection[str] = ()) -> Verdict:
        """Look now and, for `watch_s` seconds, again and again; ends at the first alert that counts.

        waiting: hosts where something that trades has yet to be activated.
        When Prometheus does not answer it waits, as long as the budget lasts.
        """
        until = self.clock() + watch_s
        while True:
            asked = self.clock()
            verdict = self._look(touched, waiting)
            if verdict.unknown:
                left = self.unknown_budget_s - self.waited_s
                if left <= 0 or self.stopped():
                    self.sleep(max(0.0, until - self.clock()))
                    return verdict
                self.sleep(min(POLL_S, left))
                self.waited_s += self.clock() - asked
                continue
            left = until - self.clock()
            if verdict.alerts or left <= 0 or self.stopped():
                return verdict
            self.sleep(min(POLL_S, left))

    def _look(self, touched: Sequence[str], waiting: Collection[str]) -> Verdict:
        moment = self.clock()
        try:
            # Rounded up, and an interval more: a sample just at the edge is not missed.
            now = self.ask(int(moment - self.began) + 1, 0)
            if self.before is None:
                # It could not be asked at the beginning: what has fired since may have fired then.
                self._remember(now)
            before = (self.before or frozenset()) | self._of_ill(now, waiting, moment)
        except UnknownError as error:
            return Verdict(unknown=str(error))
        self.before = before
        strangers = of_strangers(now, self.members)
        found = counting(now - strangers, before, touched)
        return Verdict(alerts=found, left_out=tuple(sorted(strangers - before)))

    def _of_ill(self, now: frozenset[Alert], waiting: Collection[str], moment: float) -> frozenset[Alert]:
        """What is about hosts that were ill, and has its cause in what they ran before. UnknownError."""
        for host in self.ill.difference(waiting):
            self.until.setdefault(host, moment + self.shows_s)
        ended = {host: at for host, at in self.until.items() if host in self.ill and at <= moment}
        found = {alert for alert in now if alert.host in self.ill and alert.host not in ended}
        for at in set(ended.values()):
            told = self.ask(int(at - self.began) + 1, int(moment - at))
            found |= {alert for alert in told if ended.get(alert.host) == at}
        self.ill -= ended.keys()
        return frozenset(found)
