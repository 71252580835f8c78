"""Prometheus' own tool accepts the configuration; every alert fires when it must, and only then."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
CASES = sorted(HERE.glob("*.test.yml"))


def promtool(*arguments: str, cwd: Path) -> str:
    program = shutil.which("promtool")
    assert program, "promtool is missing; `make setup` installs it (Debian package prometheus)"
    done = subprocess.run(
        [program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alerts(configuration: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((configuration / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_configuration_is_valid(configuration: Path) -> None:
    assert "1 rule files found" in promtool("check", "config", "prometheus.yml", cwd=configuration)


def test_rules_are_valid_and_without_lint(configuration: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml", cwd=configuration)


@pytest.mark.parametrize("case", CASES, ids=[case.name.removesuffix(".test.yml") for case in CASES])
def test_alerts_fire_when_they_must(configuration: Path, case: Path) -> None:
    shutil.copy(case, configuration)
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
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert "{{ $labels.host }}" in alert["annotations"]["summary"], alert["alert"]
        assert alert["annotations"]["runbook_url"].endswith("#" + alert["alert"].lower()), alert["alert"]


def test_every_runbook_link_leads_to_a_section(configuration: Path) -> None:
    for alert in alerts(configuration):
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (PROJECT / page).read_text(), flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{page} has no section {anchor}"


def test_the_runbook_has_no_section_for_an_alert_that_is_gone(configuration: Path) -> None:
    sections = set(re.findall(r"^### (Mt5crs\w+)$", (PROJECT / "docs/runbook.md").read_text(), re.MULTILINE))
    assert sections == {alert["alert"] for alert in alerts(configuration)}
