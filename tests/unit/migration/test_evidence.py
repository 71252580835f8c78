"""What a move is judged by: links that use the address, what held before, the longest time without a deal."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.commands.migration_evidence import broken, until_good
from deploy.commands.steps import deployment_command
from deploy.migration.page import html, pauses, text

ROUTE = {
    "name": "1 name and route",
    "verdict": "PASS",
    "detail": "10.0.0.31 is 10.0.0.31, reached from 10.0.0.82",
}
WARNED = {"name": "8 dry-run order", "verdict": "WARN", "detail": "halted"}


def test_a_link_has_to_work_and_to_use_the_address() -> None:
    layers = {"inf-02": [ROUTE, WARNED]}
    assert list(broken(layers, "10.0.0.82")) == []
    assert list(broken(layers, "10.0.0.31")) == []
    (other,) = broken(layers, "10.0.0.8")
    assert "does not use 10.0.0.8:" in other
    (failed,) = broken({"inf-02": [{**ROUTE, "verdict": "FAIL", "detail": "no route"}]}, "10.0.0.82")
    assert failed == "link of inf-02, layer 1 name and route: no route"


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([1500, 2000, 9000], {"longest_s": 7.0, "deals": 3}),
        ([5000], {"longest_s": 5.0, "deals": 1}),
        ([10, 99_000], "no deal while it moved, nor directly before"),
    ],
)
def test_the_longest_time_without_a_deal(times: list[int], found: object) -> None:
    assert pauses(times, 1000, 10_000) == found


def test_what_settles_is_waited_for() -> None:
    left = [["a"], ["a"], []]
    assert until_good(lambda: left.pop(0), 60, again_s=0) == []
    assert until_good(lambda: ["a"], 0) == ["a"]


def report(**of: Any) -> dict[str, Any]:
    return {
        "id": "1", "environment": "staging", "host": "inf-02", "from": "10.0.0.22", "to": "10.0.0.82",
        "outcome": "moved", "why_undone": "", "reason": "<b>rack</b>", "who": "me", "began": "then",
        "ended": "now",
        "resumed": 1, "steps": [{"what": "deploy", "seconds": 3.0, "outcome": "done"}],
        "links": {"inf-02": [ROUTE, WARNED]},
        "quiet": {"value": {"7 on inf-02": {"longest_s": 1.25, "deals": 3}}},
        "checklist": [{"state": "bad", "what": "tried", "told": "no halt is recorded"}], "left": ["commit"],
        **of,
    }  # fmt: skip


def test_the_report_says_the_same_in_words_and_as_a_page() -> None:
    words, page = text(report()), html(report())
    for said in ("inf-02 of staging has moved", "1.2 s, 3 deals", "no halt is recorded", "reached from"):
        assert said in words
        assert said in page
    assert "<b>" not in page
    assert "http:" not in page
    assert "https:" not in page
    undone = text(
        report(outcome="restored", why_undone="link of inf-02 is broken", links={}, quiet={"value": {}})
    )
    assert "stays at 10.0.0.22: the move to 10.0.0.82 was taken back" in undone
    assert "taken back because: link of inf-02 is broken" in undone


def test_a_deployment_is_told_strategy_and_reason(tmp_path: Any) -> None:
    inventory = tmp_path / "staging.yml"
    ansible = deployment_command(inventory, strategy="all_at_once", why='a "b"')
    assert ansible[-3:] == ["site.yml", "-e", '{"fleet_strategy": "all_at_once", "why": "a \\"b\\""}']
    inventory.with_suffix(".py").touch()
    pyinfra = deployment_command(inventory, strategy="all_at_once", why="a b")
    assert pyinfra[-5:] == ["deploy.py", "--data", "strategy=all_at_once", "--data", "why=a b"]
    assert deployment_command(inventory)[-1] == "deploy.py"
