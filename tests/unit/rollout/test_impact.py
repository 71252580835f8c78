"""What a changed setting would restart is what a deployment then activates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.services import NAMES
from deploy.fleet.settings import PARTS, variables_of
from deploy.rollout import generation, plan
from deploy.rollout.generation import Bundle
from deploy.rollout.impact import impact
from mt5crs.__main__ import main
from mt5crs.settings import schema
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
    path = make_inventory(tmp_path)
    # As variables of the hosts: commands take no others, and there need not be a bundle.
    document = json.loads(path.read_text())
    for group in document["lab"]["children"].values():
        for variables in group["hosts"].values():
            variables |= EXTRA
    path.write_text(json.dumps(document))
    return path


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


def running(before: Fleet) -> dict[str, dict[str, Any]]:
    """What hosts say that run everything as a fleet wants it."""
    wanted = {
        (host, name): generation.desired(name, before.hosts[host])
        for host in before.hosts
        for name in NAMES
        if plan.has_service(before, host, name)
    }
    return {
        host: {
            "services": {
                name: {
                    "digest": want.digest,
                    "fixed": want.fixed,
                    "current": f"0001-{name}",
                    "state": "confirmed",
                    "intact": True,
                    "units": {f"{name}.service": "active"},
                }
                for (of, name), want in wanted.items()
                if of == host
            }
        }
        for host in before.hosts
    }


LIVE = {name: declared for part in PARTS for name, declared in variables_of(part).items() if declared.live}
FOLLOWING = {"gateway_limits", "hub_limits"}
"""From the limits of the hosts."""
OTHERWISE: dict[str, Any] = {
    "fleet_limits": {
        "dry_run": True,
        "symbols": ["EURUSD"],
        "max_order_volume": 0.01,
        "max_position_volume": 0.02,
    },
    "fleet_canary_steps": [10, 100],
}


def another(name: str) -> Any:
    """Another good value of a live setting."""
    default = LIVE[name].default
    return OTHERWISE.get(name) or ("DEBUG" if name.endswith("log_level") else default + 1)


def test_what_is_declared_live_restarts_nothing_on_any_host(inventory: Path) -> None:
    document = json.loads(inventory.read_text())
    document["lab"]["children"]["review"] = {"hosts": {"hub-01": {}}}
    inventory.write_text(json.dumps(document))
    before = resolve(inventory, EXTRA)
    on = {"gateway": "gtw-01", "reconciler": "inf-01", "strategy": "inf-01"}
    for part in {declared.part for declared in LIVE.values()} & set(NAMES):
        of = before.hosts[on.get(part, "hub-01")]
        now = generation.desired(part, of)
        for name, declared in LIVE.items():
            if declared.part == part and name not in FOLLOWING:
                then = generation.desired(part, {**of, name: another(name)})
                assert now.taken_over_by(then), f"{name} is read from a file that is read again"
    after = resolve(inventory, EXTRA | {name: another(name) for name in LIVE.keys() - FOLLOWING})
    found = impact(before, after)
    assert found.restarts == ()
    assert {("gtw-01", "gateway"), ("hub-01", "hub"), ("hub-01", "monitoring")} <= set(found.live)
    made = plan.make(after, running(before))
    assert {member for member, work in made.work.items() if work.todo.activate} == set(found.services)
    assert {member for member, work in made.work.items() if work.todo.live} == set(found.live)


@pytest.mark.parametrize(
    "now",
    [
        {"intact": False},
        {"units": {"mt5crs-reconciler.service": "failed"}},
        {"state": "provisional"},
        {"fixed": "0" * 64},
        {"fixed": None},
    ],
)
def test_what_the_host_would_restart_is_not_called_live(inventory: Path, now: dict[str, Any]) -> None:
    before = resolve(inventory, EXTRA)
    seen = running(before)
    seen["inf-01"]["services"]["reconciler"] |= now
    made = plan.make(resolve(inventory, {**EXTRA, "reconciler_log_level": "DEBUG"}), seen)
    assert made.work["inf-02", "reconciler"].todo.live
    assert not made.work["inf-01", "reconciler"].todo.live
    assert made.work["inf-01", "reconciler"].todo.activate


def test_commands_say_that_a_change_restarts_nothing(inventory: Path) -> None:
    status, said = command(inventory, "impact", "reconciler_log_level=DEBUG")
    assert (status, "WITHOUT A RESTART" in said) == (0, True), said
    assert said.splitlines()[1].split() == ["inf-01", "nothing", "reconciler"]
    for words in (("impact",), ("explain", "hub-01", "--what-if")):
        status, said = command(inventory, *words, "hub_recheck_interval_s=61.0")
        assert (status, said.splitlines()[1].split()) == (2, ["hub-01", "hub", "nothing"]), said
    for name, told in (
        ("gateway_log_level", "restarts nothing"),
        ("gateway_port", "gateway on gtw-01 ("),
    ):
        status, said = command(inventory, "explain", "gtw-01", name)
        assert (status, told in said) == (0, True), said


def test_what_is_bound_to_a_service_restarts_with_it(inventory: Path) -> None:
    changed = {"reconciler_recheck_interval_s": 12.5, "strategy_log_level": "DEBUG"}
    found = impact(resolve(inventory, EXTRA), resolve(inventory, EXTRA | changed))
    both = {(host, name) for host in ("inf-01", "inf-02") for name in ("reconciler", "strategy")}
    assert (set(found.restarts), found.live) == (both, ())
    status, said = command(inventory, "impact", "reconciler_recheck_interval_s=12.5", "--host", "inf-01")
    assert (status, said.splitlines()[1].split()) == (2, ["inf-01", "reconciler,", "strategy", "nothing"]), (
        said
    )


def test_a_port_concerns_everyone_who_uses_it(inventory: Path) -> None:
    found = impact(resolve(inventory, EXTRA), resolve(inventory, {**EXTRA, "gateway_port": 5565}))
    assert {
        ("gtw-01", "gateway"), ("gtw-01", "baseline"), ("inf-01", "reconciler"), ("inf-02", "strategy"),
    } <= set(found.services)  # fmt: skip


def test_explain_says_what_changing_a_setting_there_restarts(inventory: Path) -> None:
    name = "reconciler_recheck_interval_s"
    status, said = command(inventory, "explain", "inf-01", name)
    told = "changing it there restarts reconciler on inf-01, inf-02; strategy on inf-01, inf-02 ("
    assert (status, said.splitlines()[-1].startswith(told)) == (0, True), said
    beside = inventory.parent / "host_vars" / "inf-01.yml"
    beside.parent.mkdir()
    beside.write_text(f"---\n{name}: 11.0\n")
    status, said = command(inventory, "explain", "inf-01", name, "--json")
    assert json.loads(said)["restarts"] == [["inf-01", "reconciler"], ["inf-01", "strategy"]]
    # Nobody knows another good value of a mapping.
    assert (
        json.loads(command(inventory, "explain", "gtw-01", "gateway_legacy", "--json")[1])["restarts"] is None
    )


DECLARED = {name: field for part in PARTS for name, field in variables_of(part).items() if not field.required}


def test_another_value_is_good_and_another(inventory: Path) -> None:
    found = {name: (field, schema.another(field, field.default)) for name, field in DECLARED.items()}
    for name, (field, value) in found.items():
        if value is not None:
            assert value != field.default, name
            assert schema.check_value(field, value, name)[1] is None
    missing = {name for name, (field, value) in found.items() if value is None}
    assert not {name for name in missing if isinstance(DECLARED[name].default, (bool, int, float))}


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
