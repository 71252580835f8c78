"""Every series that an alert rule, or a test of one, names is one that the program in question exports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mt5crs.local_fleet.rehearsal import Fleet
from tests.promql import Selector, Series, samples, selectors, series_of, without
from tests.unit.monitoring.exported import of_debian, of_hub, of_hub_watch, of_review, of_services

from .test_rules import CASES, alerts

_LABEL_USED = re.compile(r"\$labels\.(\w+)|\b(?:by|on)\s*\(([^)]*)\)")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Series]]:
    """The series of a fleet that trades."""
    directory = tmp_path_factory.mktemp("exported")
    with Fleet(directory) as fleet:
        for service in ("gateway", "reconciler", "strategy"):
            fleet.start_ready(service)
        # They are brought up to date once a second, and what is not known yet is left out.
        fleet.wait(
            lambda: any(series.name == "mt5crs_gateway_drawdown" for series in of_services(fleet)), "money"
        )
        others = of_debian() + of_review(directory) + of_hub(directory) + of_hub_watch(directory)
        yield of_services(fleet) + others


def test_selectors_are_found() -> None:
    found = selectors(
        'max by (host, x) (rate(a_total{job="b", c=~"d|e"}[5m])) * 100 > 5e6 and on (host) up == 1'
    )
    assert found == {Selector("a_total", (("job", "=", "b"), ("c", "=~", "d|e"))), Selector("up")}
    series = next(iter(samples('a_total{c="d"} 3', job="b")))
    assert [selector.selects(series) for selector in sorted(found, key=str)] == [True, False]


def test_every_series_that_a_rule_asks_for_is_exported(configuration: Path, exported: list[Series]) -> None:
    missing = [
        f"{alert['alert']}: {selector}"
        for alert in alerts(configuration)
        for selector in selectors(alert["expr"])
        if not any(map(selector.selects, exported))
    ]
    assert missing == []


def test_every_label_that_a_rule_goes_by_is_on_its_series(
    configuration: Path, exported: list[Series]
) -> None:
    for alert in alerts(configuration):
        wanted = {
            name.strip()
            for found in _LABEL_USED.findall(alert["expr"] + str(alert["annotations"]))
            for name in ",".join(found).split(",")
            if name.strip()
        }
        asked_for = selectors(alert["expr"])
        there = {
            label
            for series in exported
            if any(selector.selects(series) for selector in asked_for)
            for label in series.labels
        }
        assert wanted <= there, f"{alert['alert']}: nothing that it asks for has {wanted - there}"


@pytest.mark.parametrize("case", CASES, ids=[case.name.removesuffix(".test.yml") for case in CASES])
def test_tests_of_rules_are_fed_with_exported_series(case: Path, exported: list[Series]) -> None:
    real = {(series.name, frozenset(without(series.labels, ["host"]).items())) for series in exported}
    invented = [
        text
        for group in yaml.safe_load(case.read_text())["tests"]
        for text in (one["series"] for one in group["input_series"])
        for series in [series_of(text)]
        if (series.name, frozenset(without(series.labels, ["host"]).items())) not in real
    ]
    assert invented == []
