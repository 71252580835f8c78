"""Prometheus' own tool accepts the configuration; every alert fires when it must, and only then."""

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.fleet.inventory import Fleet
from deploy.fleet.settings import variables_of
from hub_watch import notice
from mt5crs.settings.schema import check_value

from .conftest import specification

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
CASES = sorted(HERE.glob("*.test.yml"))


def run_promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "promtool is missing; `make setup` installs it (Debian package prometheus)"
    return subprocess.run(
        [program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def promtool(*arguments: str, cwd: Path) -> str:
    done = run_promtool(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alerts(configuration: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((configuration / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_configuration_is_valid(configuration: Path) -> None:
    assert "1 rule files found" in promtool("check", "config", "prometheus.yml", cwd=configuration)


def test_rules_are_valid_and_without_lint(configuration: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml", cwd=configuration)


@pytest.mark.parametrize("case", CASES, ids=[case.name.removesuffix(".test.yml") for case in CASES])
def test_alerts_fire_when_they_must(configuration: Path, case: Path) -> None:
    shutil.copy(case, configuration)
    rules = yaml.safe_load((configuration / "alerts.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
        # What never changes is looked at below; promtool wants all of it, or fails.
        rule["annotations"] = {"summary": rule["annotations"]["summary"]}
    (configuration / "alerts.yml").write_text(yaml.safe_dump(rules))
    promtool("test", "rules", case.name, cwd=configuration)


def test_every_alert_is_seen_firing_in_some_case(configuration: Path) -> None:
    fired = {
        test["alertname"]
        for case in CASES
        for group in yaml.safe_load(case.read_text())["tests"]
        for test in group["alert_rule_test"]
        if test["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in alerts(configuration)}


def test_every_alert_says_how_bad_what_and_where_to_read_on(configuration: Path) -> None:
    for alert in alerts(configuration):
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), alert["alert"]
        assert "{{ $labels.host }}" in alert["annotations"]["summary"], alert["alert"]
        assert len(alert["annotations"]["description"]) > 40, alert["alert"]


def test_every_runbook_link_leads_to_a_section(fleet: Fleet, configuration: Path) -> None:
    page = f"https://{fleet.hosts['hub-01']['fleet_address']}:8083/runbook"
    sections = re.findall(r'id="([^"]*)"', (configuration / "consoles/runbook.html").read_text())
    for alert in alerts(configuration):
        where, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (where, anchor) == (page, alert["alert"].lower())
        assert anchor in sections, f"the runbook has no section {anchor}"


def test_prometheus_shows_the_runbook_as_it_is_written(configuration: Path) -> None:
    page = (configuration / "consoles/runbook.html").read_text()
    shown = html.unescape(re.sub(r"<[^>]*>", "", page.partition("<body>")[2]))
    assert shown.strip() == (PROJECT / "docs/runbook.md").read_text().strip()
    assert "{{" not in page, "Prometheus would take it for a template"


def test_the_runbook_may_be_elsewhere(fleet: Fleet) -> None:
    page = "https://wiki.example/runbook"
    rules = specification(fleet.hosts["hub-01"], monitoring_runbook_url=page)["files"]["alerts.yml"]
    assert f'"{page}#mt5crshalted"' in rules["content"]
    assert check_value(variables_of("monitoring")["monitoring_runbook_url"], page, "x")[1] is None
    assert check_value(variables_of("monitoring")["monitoring_runbook_url"], "docs/runbook.md", "x")[1]


def test_the_runbook_has_no_section_for_an_alert_that_is_gone(configuration: Path) -> None:
    sections = set(re.findall(r"^### (Mt5crs\w+)$", (PROJECT / "docs/runbook.md").read_text(), re.MULTILINE))
    posted_by_watchers = {name for name, _ in notice.ALERTS.values()}
    assert sections == {alert["alert"] for alert in alerts(configuration)} | posted_by_watchers
