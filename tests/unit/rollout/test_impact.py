"""What a changed setting would restart is what a deployment then activates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.fleet.inventory import resolve
from deploy.fleet.services import NAMES
from deploy.rollout import generation, plan
from deploy.rollout.generation import Bundle
from deploy.rollout.impact import impact
from mt5crs.__main__ import main
from tests.unit.fleets import EXTRA, make_inventory

CHANGES: dict[str, tuple[dict[str, Any], str | None, set[tuple[str, str]]]] = {
    "one service on its hosts": (
        {"reconciler_recheck_interval_s": 12.5},
        None,
        {("inf-01", "reconciler"), ("inf-02", "reconciler")},
    ),
    "one service on one host": (
        {"reconciler_recheck_interval_s": 12.5},
        "inf-02",
        {("inf-02", "reconciler")},
    ),
    "nothing, it is the same value": ({"reconciler_sync_timeout_s": 3.0}, None, set()),
}


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generation, "find_bundle", lambda name: Bundle(Path(name), "0" * 64))
    return make_inventory(tmp_path)


@pytest.mark.parametrize("what", CHANGES)
def test_it_names_what_a_plan_would_activate(inventory: Path, what: str) -> None:
    values, on, expected = CHANGES[what]
    before = resolve(inventory, EXTRA)
    after = resolve(inventory, EXTRA | ({} if on else values), {on: values} if on else None)
    found = impact(before, after)
    assert set(found.services) == expected
    # The plan of a fleet on which everything runs as it was wanted before.
    runs = {
        host: {
            "services": {
                name: {
                    "digest": generation.desired(name, before.hosts[host]).digest,
                    "current": f"0001-{name}",
                    "state": "confirmed",
                    "intact": True,
                    "units": {},
                }
                for name in NAMES
                if plan.has_service(before, host, name)
            }
        }
        for host in before.hosts
    }
    made = plan.make(after, runs)
    assert {key for key, work in made.work.items() if work.todo.activate} == expected


def test_a_port_concerns_everyone_who_uses_it(inventory: Path) -> None:
    found = impact(resolve(inventory, EXTRA), resolve(inventory, {**EXTRA, "gateway_port": 5565}))
    assert {
        ("gtw-01", "gateway"), ("gtw-01", "baseline"), ("inf-01", "reconciler"), ("inf-02", "strategy"),
    } <= set(found.services)  # fmt: skip


def command(inventory: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["--inventory", str(inventory), "config", *words])
    return done.exit_code, done.output


def test_explain_shows_the_winner_the_losers_and_where(inventory: Path) -> None:
    beside = inventory.parent / "host_vars" / "inf-01.yml"
    beside.parent.mkdir()
    beside.write_text("---\nreconciler_sync_timeout_s: 4.5\n")
    status, said = command(inventory, "explain", "inf-01", "reconciler_sync_timeout_s")
    assert status == 0, said
    assert "reconciler_sync_timeout_s on inf-01 is 4.5" in said
    wins, loses = (line for line in said.splitlines() if line.startswith(("wins", "loses")))
    assert "host_vars/inf-01.yml:2" in wins
    assert "group_vars/all/defaults.yml:" in loses
    assert "3.0" in loses


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("explain", "inf-1"), "has no host inf-1; did you mean inf-01?"),
        (("explain", "inf-01", "reconciler_sync_timout_s"), "did you mean reconciler_sync_timeout_s?"),
        (("impact", "reconciler_sync_timeout_s"), "is no KEY=VALUE"),
        (("impact", "reconciler_sync_timeout=4"), "did you mean reconciler_sync_timeout_s?"),
        (("impact", "reconciler_sync_timeout_s=soon"), "a deployment would refuse it"),
        (("diff", "nowhere.yml"), "does not exist"),
    ],
)
def test_a_wrong_word_ends_with_cause_and_remedy(inventory: Path, words: tuple[str, ...], cause: str) -> None:
    status, said = command(inventory, *words)
    assert status in (1, 2)
    assert cause in " ".join(said.split()), said


def test_no_secret_is_explained(inventory: Path) -> None:
    status, said = command(inventory, "explain", "gtw-01", "--json")
    assert status == 0, said
    hosts = resolve(inventory, EXTRA).hosts
    secrets = [*hosts["gtw-01"]["vault_gateway_secret_keys"].values(), hosts["gtw-01"]["gateway_secret_key"]]
    assert secrets
    assert not any(str(secret) in said for secret in secrets)
    assert '"vault_gateway_secret_keys", "value": "(secret)"' in said


@pytest.mark.parametrize("name", ["ansible_become_password", "fleet_note"])
def test_what_is_made_of_a_secret_is_one(inventory: Path, name: str) -> None:
    beside = inventory.parent / "host_vars" / "gtw-01.yml"
    beside.parent.mkdir()
    beside.write_text(f"---\n{name}: \"it is {{{{ vault_gateway_secret_keys['gtw-01'] }}}}\"\n")
    secret = resolve(inventory, EXTRA).hosts["gtw-01"]["vault_gateway_secret_keys"]["gtw-01"]
    for words in (("explain", "gtw-01", name), ("explain", "gtw-01"), ("explain", "gtw-01", "--json")):
        status, said = command(inventory, *words)
        assert status == 0, said
        assert name in said
        assert secret[:20] not in said
    # Where a plain name has it from may be read, and a password's own text never.
    status, said = command(inventory, "explain", "gtw-01", name)
    assert ("vault_gateway_secret_keys['gtw-01']" in said) is (name == "fleet_note")


def test_environments_are_compared_and_secrets_only_told_apart(inventory: Path, tmp_path: Path) -> None:
    other = make_inventory(tmp_path / "other")
    status, said = command(inventory, "diff", str(other))
    assert status == 2, said
    assert "gateway_secret_key" in said
    assert str(resolve(other, EXTRA).hosts["gtw-01"]["gateway_secret_key"]) not in said
    assert command(inventory, "diff", str(inventory))[0] == 0


def test_a_setting_that_holds_a_secret_is_told_apart_and_not_shown(inventory: Path, tmp_path: Path) -> None:
    other = make_inventory(tmp_path / "other")
    for path in (inventory, other):
        options = "{token: \"{{ vault_gateway_secret_keys['gtw-01'] }}\"}"
        (path.parent / "group_vars" / "lab" / "options.yml").write_text(
            f"---\nstrategy_strategy_options: {options}\n"
        )
    status, said = command(inventory, "diff", str(other))
    assert status == 2, said
    assert "strategy_strategy_options" in said
    for path in (inventory, other):
        secret = resolve(path, EXTRA).hosts["gtw-01"]["vault_gateway_secret_keys"]["gtw-01"]
        assert secret not in said
