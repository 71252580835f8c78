"""What a roll-out checks between its steps, alike for both engines: new alerts, and what it brought so far.

That a step's services are healthy, the release tool has said already when it activated them. While later
ones have their turn, hosts are looked at again (`deploy.coordination.holding`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.coordination import holding
from deploy.coordination.alerts import Alert, Verdict, Watch, on_hub
from deploy.coordination.holding import Given
from deploy.fleet.inventory import Fleet
from deploy.rollout.batches import Step
from deploy.rollout.record import Failure

LOOK_S = 5.0
"""How long only alerts are looked at, in a step's watch, before its hosts are looked at again."""
_NAP_S = 0.2
"""A run that is told to stop does so after this time at most."""


@dataclass
class StepCheck:
    """The checks of one roll-out over a fleet; `variables` are those of any of its hosts (all agree).

    stopped: whether the run was told to stop, which ends a check at once.
    """

    fleet: Fleet
    variables: Mapping[str, Any]
    stopped: Callable[[], bool] = lambda: False
    said: list[str] = field(default_factory=list)
    checks: int = 0
    _watch: Watch | None = None

    @classmethod
    def restored(cls, fleet: Fleet, variables: Mapping[str, Any], kept: Mapping[str, Any]) -> StepCheck:
        """The checks as they were `kept`, for an engine that has a process of its own for every task."""
        made = cls(fleet, variables, checks=int(kept["checks"]))
        if kept["watch"] is not None:
            watch = made._watched()
            before = kept["watch"]["before"]
            watch.began, watch.waited_s = float(kept["watch"]["began"]), float(kept["watch"]["waited_s"])
            watch.before = None if before is None else frozenset(Alert.of(one) for one in before)
            watch.ill, watch.until = frozenset(kept["watch"]["ill"]), dict(kept["watch"]["until"])
            made._watch = watch
        return made

    def kept(self) -> dict[str, Any]:
        """What `restored` needs, in plain values."""
        watch = None
        if self._watch is not None:
            before = self._watch.before
            watch = {
                "began": self._watch.began,
                "waited_s": self._watch.waited_s,
                "before": None if before is None else [asdict(alert) for alert in sorted(before)],
                "ill": sorted(self._watch.ill),
                "until": self._watch.until,
            }
        return {"checks": self.checks, "watch": watch}

    def _watched(self) -> Watch:
        hub = self.fleet.hosts[self.fleet.in_group("hub")[0]]
        budget_s = float(self.variables["fleet_alerts_unknown_s"])
        # A host is asked once in an interval, the rules looked at once in another; an answer takes its time.
        shows_s = 2 * float(hub["monitoring_scrape_interval_s"]) + 1
        ask, members = on_hub(hub), self.fleet.hosts
        return Watch(ask, members, budget_s, time.monotonic, self._sleep, self.stopped, shows_s=shows_s)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(_NAP_S, left))

    def begin(self, monitored: bool, put_back: Collection[str] = ()) -> None:
        """Remember which alerts fire before anything is activated.

        monitored: the Hub runs Prometheus. put_back: hosts on which dead runs were settled before.
        """
        if not self.fleet.in_group("hub") or not monitored:
            self.said.append("no Prometheus runs on the Hub yet: alerts are not looked at")
            return
        self._watch = self._watched()
        self._watch.ill = frozenset(put_back)
        verdict = self._watch.begin()
        firing = sorted(self._watch.before or ())
        if firing:
            self.said.append(f"firing or pending already, so not counted: {', '.join(map(str, firing))}")
        if verdict.unknown:
            self.said.append(f"alerts: {verdict.unknown}; asked again after the first step")

    def after(
        self,
        step: str,
        touched: Sequence[str],
        given: Iterable[Given],
        watch_s: float,
        waiting: Collection[str] = (),
    ) -> Failure | None:
        """Check a step that is done, for `watch_s` seconds or until something is wrong.

        touched: hosts activated so far. given: what waits there for its confirmation. waiting: hosts where
        something that trades has yet to be activated.
        """
        self.checks += 1
        given = tuple(given)
        until = time.monotonic() + watch_s
        while True:
            left = max(0.0, until - time.monotonic())
            failure = self._alerts(step, touched, min(LOOK_S, left), waiting)
            if failure is None:
                found = holding.look(given, self._ask(), self.stopped, sleep=self._sleep)
                failure = None if found is None else holding.failure(found, step)
            if failure is not None or self.stopped() or time.monotonic() >= until:
                return failure

    def _ask(self) -> holding.Ask:
        return holding.on_hosts(self.fleet)

    def _alerts(
        self, step: str, touched: Sequence[str], watch_s: float, waiting: Collection[str]
    ) -> Failure | None:
        if self._watch is None:
            self._sleep(watch_s)
            return None
        verdict = self._watch.check(touched, watch_s, waiting)
        if verdict.unknown:
            self._say(f"alerts after {step}: {verdict.unknown}")
        if verdict.left_out:
            self._say(
                "about hosts that are not in the inventory, so not counted: "
                + ", ".join(map(str, verdict.left_out))
            )
        if verdict.alerts and self.variables["fleet_alerts_firing"] == "report":
            self._say(f"firing since the roll-out began: {', '.join(map(str, verdict.alerts))}")
            self._sleep(watch_s)
            return None
        return judge(step, verdict, str(self.variables["fleet_alerts_unknown"]), self._watch.unknown_budget_s)

    def _say(self, text: str) -> None:
        if text not in self.said:
            self.said.append(text)


def watch_s(variables: Mapping[str, Any], step: Step, *, last: bool) -> float:
    """Seconds that a step is watched: a canary stage for its pause, the last step as set."""
    pause = float(variables["fleet_step_pause_s"]) if step.stage_ends else 0.0
    return max(pause, float(variables["fleet_alert_check_s"])) if last else pause


def watched_s(steps: Sequence[Step], variables: Mapping[str, Any]) -> float:
    """Seconds that all steps are watched together."""
    return sum(watch_s(variables, step, last=step is steps[-1]) for step in steps)


def judge(step: str, verdict: Verdict, unknown: str, waited_s: float) -> Failure | None:
    """What a check of alerts means for the roll-out: a failure, or None to go on.

    unknown: the setting fleet_alerts_unknown. waited_s: seconds that a silent Prometheus was waited for.
    """
    if verdict.alerts:
        first: Alert = verdict.alerts[0]
        names = ", ".join(str(alert) for alert in verdict.alerts)
        return Failure(
            first.host or "fleet",
            f"alerts after {step}",
            f"firing since the roll-out began: {names}",
            f"see docs/runbook.md#{first.name.lower()}; mend the cause and deploy again",
        )
    if verdict.unknown and unknown == "fail":
        return Failure(
            "fleet",
            f"alerts after {step}",
            f"whether alerts fire is not known, also after {waited_s:g} s of waiting: {verdict.unknown}",
            "mend Prometheus on the Hub, or deploy with fleet_alerts_unknown: continue",
        )
    return None
