"""Every rule finds what it is for, and not what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt5crs.review import rules, text_rules
from mt5crs.review.local_gate import own_findings
from mt5crs.review.tree import changed, tree_of
from tests.unit.review.seeded import SEEDS, Seed


def found(path: str, text: str) -> set[str]:
    said = text_rules.check(path, text)
    if path.endswith(".py"):
        said += rules.check(path, text)
    return {finding.rule for finding in said}


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.rule}-{seed.bad[:20]!r}")
def test_a_rule_finds_what_it_is_for(seed: Seed) -> None:
    assert seed.rule in found(seed.path, seed.bad)
    assert seed.rule not in found(seed.path, seed.good)


def test_every_rule_has_a_seeded_defect() -> None:
    own = {rule.id for rule in rules.RULES} | {"MT5CRS000", "MT5CRS101", "MT5CRS102", "MT5CRS103"}
    assert own | {"MT5CRS104", "MT5CRS105", "MT5CRS106"} == {seed.rule for seed in SEEDS}


def test_a_secret_is_not_repeated() -> None:
    seeds = [seed for seed in SEEDS if seed.rule in ("MT5CRS101", "MT5CRS102")]
    for seed in seeds:
        for finding in text_rules.check(seed.path, seed.bad):
            assert finding.quote == ""
            assert seed.bad.split()[-1] not in finding.message


def test_a_vault_is_not_read_as_text() -> None:
    assert (
        text_rules.check("group_vars/all/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\npassword: kT7qWz91LmX4\n")
        == []
    )


def test_the_order_path_itself_sends_orders() -> None:
    assert rules.check("src/mt5crs/gateway/order_manager.py", "self._broker.send(request)\n") == []


OTHERS = frozenset({"tests/unit/hub/axe/axe.min.js.gz"})
"""Packed as they came from elsewhere, and used by tests alone: a README beside each says from where."""


def test_the_product_itself_breaks_no_rule() -> None:
    tree = tree_of(Path(__file__).parents[3])
    own = [file for file in changed(tree, None) if file.path not in OTHERS]
    found = [finding for file in own for finding in own_findings(file)]
    assert [(finding.path, finding.line, finding.rule) for finding in found] == []
