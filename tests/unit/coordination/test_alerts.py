"""Which alerts end a roll-out, and what a Prometheus that does not answer means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.coordination import step_check
from deploy.coordination.alerts import (
    Alert,
    UnknownError,
    Verdict,
    Watch,
    counting,
    expression,
    read,
)
from deploy.coordination.step_check import StepCheck, judge
from deploy.fleet.inventory import Fleet

MEMBERS = ("hub-01", "inf-01", "gtw-01")
UNFILLED = Alert("Mt5crsNoFills", "gtw-01", "critical", (("concerns", "money"),))
SILENT = Alert("Mt5crsGatewaySilent", "gtw-01", "critical")
SLOW = Alert("Mt5crsStartupSyncSlow", "inf-01", "warning")
EVERYWHERE = Alert("Fleet", "", "critical")


class Hub:
    """A Prometheus and a clock: answers are given out one by one, the last one for ever."""

    def __init__(self, *answers: Callable[[], frozenset[Alert]]) -> None:
        self.answers = list(answers)
        self.now = 0.0
        self.asked: list[tuple[float, int, int]] = []

    def ask(self, within_s: int, ago_s: int) -> frozenset[Alert]:
        self.asked.append((self.now, within_s, ago_s))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def watch(self, budget_s: float = 20) -> Watch:
        return Watch(self.ask, MEMBERS, budget_s, lambda: self.now, self.sleep, shows_s=11)


def firing(*alerts: Alert) -> Callable[[], frozenset[Alert]]:
    return lambda: frozenset(alerts)


def down() -> frozenset[Alert]:
    raise UnknownError("Prometheus does not answer: connection refused")


@pytest.mark.parametrize(
    ("now", "before", "touched", "counts"),
    [
        ([SILENT], [], [], [SILENT]),
        ([SILENT], [SILENT], ["gtw-01"], []),
        ([SLOW], [], ["inf-01"], [SLOW]),
        ([SLOW], [], ["inf-02"], []),
        ([EVERYWHERE, SLOW], [], [], [EVERYWHERE]),
        ([SILENT], [Alert(SILENT.name, "gtw-02", "critical")], [], [SILENT]),
        ([UNFILLED], [], ["gtw-01"], []),
    ],
)
def test_new_alerts_count_when_critical_or_about_a_host_of_the_rollout(
    now: list[Alert], before: list[Alert], touched: list[str], counts: list[Alert]
) -> None:
    assert counting(now, before, touched) == tuple(counts)


def test_a_host_that_left_the_inventory_does_not_end_the_rollout_that_shuts_it_out() -> None:
    left = Alert(SILENT.name, "inf-02", "critical", (("seen_from", "inf"),))
    hub = Hub(firing(), firing(left))
    watch = hub.watch()
    watch.begin()
    assert watch.check(["gtw-01"], 5) == Verdict(left_out=(left,))
    assert hub.now == 5
    hub.answers = [firing(left, SILENT, EVERYWHERE)]
    assert watch.check(["gtw-01"]).alerts == (EVERYWHERE, SILENT)


def test_an_alert_that_fired_before_does_not_end_the_rollout() -> None:
    hub = Hub(firing(SILENT))
    watch = hub.watch()
    assert watch.begin() == Verdict()
    assert watch.check(["gtw-01"], 5) == Verdict()
    assert hub.now == 5


def test_a_new_alert_ends_the_watch_at_once() -> None:
    hub = Hub(firing(), firing(), firing(SLOW))
    watch = hub.watch()
    watch.begin()
    assert watch.check(["inf-01"], 600).alerts == (SLOW,)
    assert hub.now == 2


def test_the_whole_rollout_is_asked_about() -> None:
    """An alert that fired and ended between two looks counts, too."""
    hub = Hub(firing())
    watch = hub.watch()
    watch.begin()
    hub.now = 41.3
    watch.check([])
    assert hub.asked[-1] == (41.3, 42, 0)
    fired = 'ALERTS{alertstate="firing",severity!="info"}'
    assert expression(42) == f"max_over_time({fired}[42s])"
    assert expression(42, 7) == f"max_over_time({fired}[42s] offset 7s)"
    assert expression(0) == 'ALERTS{severity!="info"}', "what is pending at the beginning has an older cause"


EXIT = Alert("Mt5crsAbnormalExit", "inf-01", "critical", (("name", "mt5crs-reconciler.service"),))
FAILING = Alert("Mt5crsStartupSyncFailing", "inf-01", "critical")


@pytest.mark.parametrize(("before", "put_back"), [([FAILING], []), ([], ["inf-01"])])
def test_a_host_that_was_ill_recovers_from_a_step_before_its_own(
    before: list[Alert], put_back: list[str]
) -> None:
    """The gateway's step lets a moved host in again: its old reconciler ends a long start-up sync."""
    hub = Hub(firing(*before))
    watch = hub.watch()
    watch.ill = frozenset(put_back)
    watch.begin()
    hub.answers = [firing(SLOW, EXIT)]
    assert watch.check(["gtw-01", "inf-01"], waiting=["inf-01"]) == Verdict(), "its firewall had its step"
    assert watch.check(["gtw-01", "inf-01"]) == Verdict()
    hub.answers = [firing(SLOW, SILENT)]
    assert watch.check(["gtw-01", "inf-01"]).alerts == (SILENT,), "elsewhere what is new counts as ever"


def test_what_ran_before_on_an_ill_host_is_told_a_moment_after_its_step() -> None:
    """It exited just before its step, which Prometheus has seen a moment later, and tells for minutes."""
    hub = Hub(firing(FAILING))
    watch = hub.watch()
    watch.begin()
    hub.answers = [firing()]
    assert watch.check(["inf-01"]) == Verdict()
    hub.answers = [firing(EXIT)]
    assert watch.check(["inf-01"], 30) == Verdict()


def test_what_showed_in_that_moment_is_asked_for_when_nobody_looked() -> None:
    hub = Hub(firing(FAILING))
    watch = hub.watch()
    watch.begin()
    hub.now = 40.0
    hub.answers = [firing()]
    assert watch.check(["inf-01"]) == Verdict()
    hub.now = 60.0
    hub.answers = [firing(EXIT, SLOW, SILENT), firing(EXIT)]
    assert watch.check(["inf-01"]).alerts == (SILENT, SLOW), "of the ill host, what showed later counts"
    assert hub.asked[-2:] == [(60.0, 61, 0), (60.0, 52, 9)]


def test_a_host_that_was_ill_is_none_any_more_after_that_moment() -> None:
    hub = Hub(firing(FAILING))
    watch = hub.watch()
    watch.begin()
    hub.answers = [firing()]
    watch.check(["inf-01"], 12)
    hub.answers = [firing(EXIT)]
    assert watch.check(["inf-01"]).alerts == (EXIT,)


def test_the_moment_is_looked_at_again_when_prometheus_was_silent() -> None:
    hub = Hub(firing(FAILING))
    watch = hub.watch(budget_s=0)
    watch.begin()
    hub.answers = [firing()]
    watch.check(["inf-01"])
    hub.now = 20.0
    hub.answers = [firing(EXIT), down]
    assert watch.check(["inf-01"]).unknown
    hub.answers = [firing(EXIT), firing(EXIT)]
    assert watch.check(["inf-01"]) == Verdict()


def test_a_silent_prometheus_is_waited_for() -> None:
    hub = Hub(firing(), down, down, firing(SILENT))
    watch = hub.watch()
    watch.begin()
    assert watch.check([]).alerts == (SILENT,)
    assert hub.now == 4


def test_all_checks_together_wait_no_longer_than_the_budget() -> None:
    hub = Hub(down)
    watch = hub.watch(budget_s=7)
    assert "connection refused" in watch.begin().unknown
    assert "connection refused" in watch.check([]).unknown
    assert hub.now == 7
    assert watch.check([]).unknown
    assert hub.now == 7


def test_what_fires_when_prometheus_is_back_is_not_held_against_the_rollout() -> None:
    hub = Hub(down, firing(SILENT))
    watch = hub.watch()
    watch.begin()
    assert watch.check([]) == Verdict()


def test_a_stage_is_watched_for_its_pause_also_without_prometheus() -> None:
    hub = Hub(down)
    watch = hub.watch(budget_s=2)
    watch.begin()
    watch.check([], 30)
    assert hub.now == 30


def test_a_run_that_is_told_to_stop_waits_for_no_prometheus() -> None:
    hub = Hub(down)
    watch = hub.watch(budget_s=600)
    watch.stopped = lambda: True
    watch.begin()
    assert watch.check([]).unknown
    assert hub.now == 0


def test_judge() -> None:
    failure = judge("step 2/4", Verdict(alerts=(SILENT, SLOW)), "continue", 20)
    assert failure is not None
    assert failure.host == "gtw-01"
    assert "Mt5crsGatewaySilent (critical, gtw-01), Mt5crsStartupSyncSlow" in failure.message
    assert "docs/runbook.md#mt5crsgatewaysilent" in failure.remedy
    assert judge("step 2/4", Verdict(), "fail", 20) is None
    unknown = Verdict(unknown="the Hub cannot be reached")
    assert judge("step 2/4", unknown, "continue", 20) is None
    failure = judge("step 2/4", unknown, "fail", 20)
    assert failure is not None
    assert "the Hub cannot be reached" in failure.message
    assert "fleet_alerts_unknown" in failure.remedy


def test_answers_of_prometheus() -> None:
    labels = {
        "__name__": "ALERTS",
        "alertname": "Mt5crsAbnormalExit",
        "alertstate": "firing",
        "host": "inf-01",
        "name": "mt5crs-strategy.service",
        "severity": "critical",
    }
    text = json.dumps({"status": "success", "data": {"result": [{"metric": labels, "value": [0, "1"]}]}})
    assert read(text) == {
        Alert("Mt5crsAbnormalExit", "inf-01", "critical", (("name", "mt5crs-strategy.service"),))
    }
    for bad in ("", "[]", "{}", '{"status": "success"}', '{"status": "error", "error": "bad_data"}'):
        with pytest.raises(UnknownError):
            read(bad)


SETTINGS: dict[str, Any] = {
    "fleet_alerts_unknown_s": 0,
    "fleet_alerts_unknown": "continue",
    "fleet_alerts_firing": "fail",
}


@pytest.fixture
def prometheus(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[Alert]]:
    """What the Hub answers, one after the other; the last one for ever."""
    answers: list[frozenset[Alert]] = [frozenset()]

    def on_hub(_variables: Any) -> Callable[[int, int], frozenset[Alert]]:
        return lambda _within_s, _ago_s: answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(step_check, "on_hub", on_hub)
    return answers


def checks(**settings: Any) -> StepCheck:
    variables = {"monitoring_scrape_interval_s": 0}
    fleet = Fleet(Path("lab.yml"), "lab", dict.fromkeys(MEMBERS, variables), {"hub": ("hub-01",)})
    return StepCheck(fleet, {**SETTINGS, **settings})


def test_a_check_goes_on_where_another_process_has_left_it(prometheus: list[frozenset[Alert]]) -> None:
    """Ansible has a process of its own for every task."""
    prometheus[:] = [frozenset({SLOW}), frozenset({SLOW, SILENT})]
    first = checks()
    first.begin(monitored=True, put_back=["hub-01"])
    assert any("firing or pending already" in text for text in first.said)
    kept = json.loads(json.dumps(first.kept()))
    assert kept["watch"]["ill"] == ["hub-01"]
    second = StepCheck.restored(first.fleet, first.variables, kept)
    assert second.kept() == first.kept()
    failure = second.after("step 1/2", ["inf-01"], [], 0)
    assert failure is not None
    assert "Mt5crsGatewaySilent" in failure.message
    assert "Mt5crsStartupSyncSlow" not in failure.message


def test_alerts_may_be_reported_only(prometheus: list[frozenset[Alert]]) -> None:
    prometheus[:] = [frozenset(), frozenset({SILENT})]
    check = checks(fleet_alerts_firing="report")
    check.begin(monitored=True)
    assert check.after("step 1/2", ["gtw-01"], [], 0) is None
    assert check.said == ["firing since the roll-out began: Mt5crsGatewaySilent (critical, gtw-01)"]


def test_a_fresh_fleet_has_no_prometheus_to_ask(prometheus: list[frozenset[Alert]]) -> None:
    prometheus[:] = [frozenset({SILENT})]
    check = checks()
    check.begin(monitored=False)
    assert "no Prometheus runs on the Hub yet" in check.said[0]
    assert check.after("step 1/2", ["gtw-01"], [], 0) is None
