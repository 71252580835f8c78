"""Rules of users find what they are for, and a file with any slip refuses, naming file and line."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deploy.fleet.vault_password import PROJECT
from deploy.policy import enforcing, own
from deploy.policy.facts import Facts, Host
from deploy.policy.judging import judge
from deploy.policy.rule import Broken
from deploy.policy.waivers import Waivers, parse
from mt5crs.settings.schema import SettingsError
from tests.unit.fleets import make_fleet

PAGE = PROJECT / "docs" / "policy-rules.md"
(EXAMPLE,) = re.findall(r"```rego\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SETTINGS = {"strategy_symbol", "gateway_port"}
FACTS = Facts(
    environment="production",
    now=datetime(2026, 11, 1, tzinfo=timezone.utc),
    hosts={
        "inf-01": Host(("inf",), {"strategy_symbol": "EURUSD"}),
        "inf-02": Host(("inf",), {"strategy_symbol": "USDJPY"}),
    },
)


def read(directory: Path, **files: str) -> own.Own:
    policy = directory / "policy"
    policy.mkdir()
    for name, text in files.items():
        (policy / f"{name}.rego").write_text(text)
    return own.read(policy, FACTS, SETTINGS)


def test_the_documented_example_finds_the_host_and_can_be_waived(tmp_path: Path) -> None:
    found = read(tmp_path, one_symbol=EXAMPLE)
    assert found.problems == ()
    (rule,) = found.rules
    assert (rule.id, rule.severity) == ("OWN-001", "P1")
    assert list(rule.look(FACTS)) == [Broken("inf-02", "strategy_symbol is USDJPY")]
    verdict = judge(FACTS, found.rules, Waivers((), ()))
    assert verdict.refused
    text = """\
waivers:
  - rule: OWN-001
    scope: inf-02
    reason: agreed
    owner: Ann
    expires: "2026-11-20T00:00:00Z"
    deployment: any
"""
    waivers = parse(text, "w.yml", {rule.id: rule}, FACTS.hosts, FACTS.now, "")
    assert not judge(FACTS, found.rules, waivers).refused, waivers.problems


def test_no_files_are_no_rules_and_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    assert own.read(tmp_path, FACTS, SETTINGS) == own.Own()


def slips() -> Iterator[tuple[str, str, str]]:
    """What is wrong, the file, what is said of it."""
    yield "unclosed", EXAMPLE.replace('agreed anew.",\n}', 'agreed anew.",\n'), ":5: this is unclosed"
    yield "no package", EXAMPLE.replace("package fleet.one_symbol", ""), ":1: its first statement is not"
    yield "no rule", EXAMPLE.replace("rule :=", "regel :="), ":1: it does not say rule"
    yield "no example", EXAMPLE.replace("example :=", "sample :="), ":1: it does not say example"
    yield "severity", EXAMPLE.replace('"P1"', '"high"'), ":5: `severity` is 'high'"
    yield "id", EXAMPLE.replace("OWN-001", "NET-001"), ":5: `id` is 'NET-001'"
    yield "field", EXAMPLE.replace('"title"', '"name"'), ":5: `rule` is an object with id"
    yield "empty", re.sub('"reason": ".*"', '"reason": " "', EXAMPLE), ":5: `reason` of the rule"
    yield (
        "setting",
        EXAMPLE.replace("strategy_symbol", "strategy_symbl"),
        ":17: there is no setting strategy_symbl",
    )
    yield "silent", EXAMPLE.replace("of.groups", "of.group"), ":21: it finds nothing in its own example"
    yield "scope", EXAMPLE.replace('"scope": host', '"scope": "Hub"'), ":13: `broken` names 'Hub'"
    yield "shape", EXAMPLE.replace('{"scope": host, "text": text}', "text"), ":13: `broken` has"
    yield "function", EXAMPLE.replace("sprintf(", "format("), "gives no answer"
    yield "error", EXAMPLE.replace('  "inf" in', '  1 / 0 == 1\n  "inf" in'), "ends with an error"


@pytest.mark.parametrize(("text", "said"), [slip[1:] for slip in slips()], ids=[slip[0] for slip in slips()])
def test_a_slip_refuses_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    assert text != EXAMPLE
    found = read(tmp_path, mine=text)
    assert found.rules == ()
    assert any(re.match(f"policy/mine.rego.*(?:{said})", one) for one in found.problems), found.problems
    verdict = judge(FACTS, (), Waivers((), ()), "", found.problems)
    assert verdict.refused
    assert any(one.startswith("rule policy/mine.rego:") for one in verdict.refusing)


def test_a_bad_file_takes_no_good_one_with_it_and_numbers_are_their_own(tmp_path: Path) -> None:
    found = read(tmp_path, a=EXAMPLE, b=EXAMPLE.replace("one_symbol", "other"), c="{")
    assert [rule.id for rule in found.rules] == ["OWN-001"]
    assert [one.partition(": ")[0] for one in found.problems] == ["policy/b.rego:5", "policy/c.rego:1"]


def test_an_evaluator_that_dies_or_is_not_there_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = read(tmp_path, a=EXAMPLE)
    assert (found.rules, found.problems) == (
        (),
        ("policy/a.rego:1: the evaluator of Rego ended without an answer",),
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert "make setup" in own.read(tmp_path / "policy", FACTS, SETTINGS).problems[0]


def test_facts_of_another_fleet_are_judged_anew(tmp_path: Path) -> None:
    read(tmp_path, a=EXAMPLE)
    lab = own.read(tmp_path / "policy", replace(FACTS, environment="lab"), SETTINGS)
    assert list(lab.rules[0].look(FACTS)) == []


def test_a_fleet_as_ansible_reads_it_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = make_fleet(tmp_path)
    policy = tmp_path / "policy"
    policy.mkdir()
    text = EXAMPLE.replace('!= "lab"', '== "lab"').replace('!= "EURUSD"', '== "EURUSD"')
    text = text.replace("USDJPY", "EURUSD").replace('"environment": "production"', '"environment": "lab"')
    (policy / "a.rego").write_text(text)
    (policy / "b.rego").write_text("package b\nrule := {\n")
    monkeypatch.setattr(own, "DIRECTORY", policy)
    verdict = enforcing.verdict_of(fleet, identified=False)
    found = [(one.severity, one.scope, one.text) for one in verdict.findings if one.rule == "OWN-001"]
    assert found == [("P1", host, "strategy_symbol is EURUSD") for host in ("inf-01", "inf-02")]
    assert verdict.unreadable == ("policy/b.rego:2: this is unclosed",)
    with pytest.raises(SettingsError) as refused:
        enforcing.require(fleet)
    assert any(one.startswith("rule policy/b.rego:2: ") for one in refused.value.problems)
