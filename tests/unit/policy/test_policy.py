"""Every rule is broken once, and no waiver that is wrong in any way lets a deployment through."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from pyinfra.api.exceptions import PyinfraError

from deploy import policy_reference
from deploy.fleet.inventory import Fleet, resolve
from deploy.operations import run
from deploy.policy import enforcing
from deploy.policy.facts import BundleFacts, DeployedFile, Facts, HeldFile, Host, KeyPair, Place, Secret
from deploy.policy.gathering import gather
from deploy.policy.judging import judge, line
from deploy.policy.rules import RULES
from deploy.policy.waivers import Waivers, parse
from deploy.rollout import generation
from deploy.rollout.generation import Bundle
from deploy.rollout.impact import identity
from mt5crs.__main__ import main
from mt5crs.settings.schema import SettingsError
from tests.unit.fleets import EXTRA, ansible, make_inventory

SIGNER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICpSc2Q9mC1rJ4tq7rX8n0b3q1yN5c6d7e8f9g0h1i2j test"
GOOD = EXTRA | {"baseline_release_signers": [SIGNER]}
NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)
BY_ID = {rule.id: rule for rule in RULES}
CLIENT = {"name": "one", "key": "a" * 64, "permissions": ["observe"], "magics": []}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inventory(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def fleet(inventory: Path) -> Fleet:
    return resolve(inventory, GOOD)


@pytest.fixture(scope="module")
def facts(fleet: Fleet) -> Facts:
    return gather(fleet)


def test_a_good_fleet_breaks_no_rule(facts: Facts) -> None:
    assert facts.key_pairs
    assert facts.secrets
    assert any(file.holds_secret for file in facts.deployed_files)
    assert [line(one) for one in judge(facts, RULES, Waivers((), ())).findings] == []


def given(facts: Facts, *hosts: str, environment: str = "lab", **values: Any) -> Facts:
    """The same fleet with other settings on some hosts."""
    changed = {
        name: Host(host.groups, {**host.settings, **values}) if name in hosts else host
        for name, host in facts.hosts.items()
    }
    return replace(facts, hosts=changed, environment=environment)


def limits(facts: Facts, phase: str, **values: Any) -> Facts:
    found = {**facts.hosts["inf-01"].settings["fleet_limits"], **values}
    return given(given(facts, "gtw-01", gateway_account_phase=phase), "inf-01", fleet_limits=found)


def bundle(**values: Any) -> BundleFacts:
    return replace(BundleFacts("x.tar", "0" * 40, NOW, ()), **values)


def secret(*of: Secret) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, secrets=of)


LEGACY = {"old": {"address": "10.0.0.9", "permissions": ["trade"], "magics": [7]}}
BREAKS: dict[str, Callable[[Facts], Facts]] = {
    "SET-001": lambda f: replace(f, form_problems=("inf-01: strategy_volume is -1",)),
    "NET-001": lambda f: replace(f, address_problems=("inf-01: ansible_host 10.9.9.255 is …",)),
    "NET-002": lambda f: given(f, "inf-01", strategy_metrics_port=9102),
    "NET-003": lambda f: given(f, "inf-01", strategy_metrics_port=40000),
    "NET-004": lambda f: given(f, "inf-01", fleet_address="8.8.8.8"),
    "NET-005": lambda f: given(f, "inf-01", baseline_ssh_sources=["10.0.0.0/8"]),
    "NET-006": lambda f: given(
        f, "gtw-01", gateway_legacy_port=5557, gateway_account_phase="live", gateway_legacy=LEGACY
    ),
    "NET-007": lambda f: given(f, "hub-01", hub_plain_readers=["192.0.2.7"]),
    "ACC-001": lambda f: given(
        f, "hub-01", fleet_operators=[{**CLIENT, "permissions": ["trade", "administer"]}]
    ),
    "ACC-002": lambda f: given(f, "hub-01", fleet_clients=[CLIENT, {**CLIENT, "name": "two"}]),
    "TRD-001": lambda f: given(
        f, "gtw-01", environment="production", gateway_backend="mt5", gateway_mt5_login=5000001
    ),
    "TRD-002": lambda f: limits(f, "shadow"),
    "TRD-003": lambda f: limits(f, "live", dry_run=True),
    "TRD-004": lambda f: limits(f, "live", max_daily_loss=None),
    "TRD-005": lambda f: given(f, "inf-01", fleet_limits=None),
    "TRD-006": lambda f: given(f, "inf-01", strategy_volume=5.0),
    "TRD-007": lambda f: given(f, "inf-01", strategy_symbol="XAUUSD"),
    "TRD-008": lambda f: given(f, "gtw-01", gateway_sim_login=1),
    "TRD-009": lambda f: given(f, "gtw-01", environment="staging", gateway_sim_faults=True),
    "TRD-010": lambda f: given(
        f, "gtw-01", environment="production", gateway_account_phase="live", gateway_phases=True
    ),
    "TRD-011": lambda f: given(
        f,
        "gtw-01",
        environment="production",
        gateway_account_phase="live",
        gateway_backend="mt5",
        gateway_mt5_login=5000001,
    ),
    "SEC-001": lambda f: replace(
        f, written_plain=(Place("group_vars/all/main.yml", 3, "gateway_mt5_password"),)
    ),
    "SEC-002": lambda f: replace(f, copied_plain=(Place("notes.yml", 3, "vault_x"),)),
    "SEC-003": secret(Secret("a", "f", 64, 16, False), Secret("b", "f", 64, 16, False)),
    "SEC-004": secret(Secret("a", "f", 64, 2, False)),
    "SEC-005": lambda f: replace(f, key_pairs=(KeyPair("client ops", fits=False),)),
    "SEC-006": lambda f: replace(f, held_files=(HeldFile("key", "SSH key", 0o640),)),
    "SEC-007": lambda f: replace(
        f, deployed_files=(DeployedFile("inf-01", "strategy", ".env", 0o640, True),)
    ),
    "SEC-008": lambda f: given(f, "inf-01", baseline_review_signers=EXTRA["baseline_release_signers"]),
    "SEC-009": lambda f: given(
        f,
        "gtw-01",
        "inf-01",
        fleet_secret_expiry={"vault_broker": f"{f.now.date()}", "vault_x": "2999-01-01"},
    ),
    "COD-001": lambda f: replace(f, environment="staging", bundles=(bundle(commit="0" * 40 + "+changes"),)),
    "COD-002": lambda f: replace(f, bundles=(bundle(), bundle(name="y.tar", commit="1" * 40))),
    "COD-003": lambda f: replace(f, bundles=(bundle(unpinned=("zmq",)),)),
    "COD-004": lambda f: replace(f, bundles=(bundle(built=f.now - timedelta(days=181)),)),
}


def test_every_rule_has_one_that_breaks_it() -> None:
    assert set(BREAKS) == set(BY_ID)
    assert len(BY_ID) == len(RULES)


@pytest.mark.parametrize("rule", sorted(BREAKS))
def test_what_breaks_a_rule_is_found(facts: Facts, rule: str) -> None:
    found = {one.rule: one for one in judge(BREAKS[rule](facts), RULES, Waivers((), ())).findings}
    assert rule in found
    assert found[rule].scope in (*facts.hosts, "fleet")
    assert set(found) == {rule}


def waiver(**values: Any) -> dict[str, Any]:
    fields = {
        "rule": "TRD-007",
        "scope": "inf-01",
        "reason": "trial",
        "owner": "Jane Roe",
        "expires": "2026-12-01T00:00:00Z",
        "deployment": "any",
        **values,
    }
    return {name: value for name, value in fields.items() if value is not None}


def read(*of: dict[str, Any], text: str | None = None) -> Waivers:
    given_text = text if text is not None else yaml.safe_dump({"waivers": list(of)})
    return parse(given_text, "w.yml", BY_ID, ("inf-01", "inf-02"), NOW, "0123456789ab")


def test_a_waived_finding_is_shown_and_refuses_nothing(facts: Facts) -> None:
    broken = given(facts, "inf-01", "inf-02", strategy_symbol="XAUUSD")
    verdict = judge(broken, RULES, read(waiver()))
    assert [(one.scope, bool(one.waiver), one.refuses) for one in verdict.findings] == [
        ("inf-01", True, False),
        ("inf-02", False, True),
    ]
    assert judge(broken, RULES, read(waiver(), waiver(scope="inf-02"))).refused is False


def test_a_waiver_for_what_is_not_found_is_told_and_refuses_nothing(facts: Facts) -> None:
    verdict = judge(facts, RULES, read(waiver()))
    assert (verdict.refused, len(verdict.idle)) == (False, 1)
    assert verdict.idle[0].startswith("w.yml:2: nothing is found that it allows (TRD-007 on inf-01)")
    assert judge(given(facts, "inf-01", strategy_symbol="XAUUSD"), RULES, read(waiver())).idle == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"expires": "2026-11-01T00:00:00Z"}, "expired"),
        ({"expires": "2027-02-01T00:00:00Z"}, "90 days"),
        ({"expires": "2026-12-01"}, "expected a time in UTC"),
        ({"expires": "2026-12-01T00:00:00+02:00"}, "expected a time in UTC"),
        ({"expires": "2026-13-01T00:00:00Z"}, "expected a time in UTC"),
        ({"expires": None}, "expires is missing"),
        ({"rule": "TRD-077"}, "did you mean TRD-007"),
        ({"rule": "SET-001"}, "cannot be waived"),
        ({"scope": "inf-09"}, "neither a host"),
        ({"scope": "fleeet"}, "did you mean fleet?"),
        ({"scope": "zzz"}, "there are inf-01, inf-02, fleet"),
        ({"rule": "ZZZ"}, "there is no rule ZZZ; there are SET-001"),
        ({"scope": "*"}, "neither a host"),
        ({"owner": " "}, "owner needs a text"),
        ({"reason": None}, "reason is missing"),
        ({"reason": ["a"]}, "reason needs a text"),
        ({"expire": "x"}, "did you mean expires"),
        ({"deployment": None}, "deployment is missing"),
        ({"deployment": "latest"}, "twelve hexadecimal digits"),
        ({"deployment": "ba9876543210"}, "given for deployment ba9876543210, this is 0123456789ab"),
    ],
)
def test_a_wrong_waiver_refuses(facts: Facts, values: dict[str, Any], said: str) -> None:
    read_ = read(waiver(**values))
    assert read_.good == ()
    assert any(said in problem for problem in read_.problems)
    assert read_.problems[0].startswith("w.yml:")
    assert judge(facts, RULES, read_).refused


@pytest.mark.parametrize("text", ["waivers: [", "x: 1", "- a", "waivers: {}", "waivers:\n- a\n", "a: \tb"])
def test_what_is_no_list_of_waivers_refuses(text: str) -> None:
    assert read(text=text).problems


def test_a_waiver_for_this_deployment_counts() -> None:
    assert len(read(waiver(deployment="0123456789ab")).good) == 1
    twice = "waivers:\n- {rule: TRD-007, rule: TRD-008, scope: fleet, reason: a, owner: b, deployment: any}"
    assert "twice" in read(text=twice).problems[0]


def test_facts_see_copies_modes_and_plain_secrets_but_hold_none(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    fleet = resolve(inventory, GOOD)
    key = fleet.hosts["inf-01"]["vault_client_secret_keys"]["inf-01-strategy"]
    (inventory.parent / "notes.yml").write_text(f"---\n# was {key}\n")
    beside = inventory.parent / "host_vars" / "gtw-01"
    beside.mkdir(parents=True)
    (beside / "main.yml").write_text("---\ngateway_mt5_password: hunter22\n")
    facts = gather(resolve(inventory, GOOD))
    assert [(one.file.rpartition("/")[2], one.line) for one in facts.copied_plain] == [("notes.yml", 2)]
    assert [(one.what, one.line) for one in facts.written_plain] == [("gateway_mt5_password", 2)]
    assert [oct(one.mode) for one in facts.held_files] == ["0o600"]
    assert key not in repr(facts)
    assert "hunter22" not in repr(facts)


def test_a_deployment_is_refused_with_all_reasons(fleet: Fleet, inventory: Path) -> None:
    assert enforcing.require(fleet) == []
    values = {"strategy_symbol": "XAUUSD", "gateway_sim_login": 1}
    with pytest.raises(SettingsError) as refused:
        enforcing.require(resolve(inventory, GOOD | values))
    assert len([one for one in refused.value.problems if "TRD-007" in one or "TRD-008" in one]) == 3


def test_the_identity_of_a_deployment_follows_settings_and_code(
    inventory: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "find_bundle", lambda name: Bundle(Path(name), "0" * 64))
    first = identity(fleet)
    assert identity(resolve(inventory, GOOD)) == first
    assert identity(resolve(inventory, GOOD | {"strategy_volume": 0.02})) != first
    monkeypatch.setattr(generation, "find_bundle", lambda name: Bundle(Path(name), "1" * 64))
    assert identity(fleet) != first


def test_the_command_says_it_and_its_exit_status_too(inventory: Path) -> None:
    runner = CliRunner()
    # Without `-e` the lab's own files are read, a bundle and its key, which need not be there.
    checked = runner.invoke(main, ["--inventory", str(inventory), "policy", "check", "--json"])
    told = json.loads(checked.stdout)
    assert checked.exit_code == (2 if told["refused"] else 0)
    assert told["rules"] == len(RULES)
    shown = runner.invoke(main, ["--inventory", str(inventory), "policy", "check"])
    assert "policy: " in shown.stdout
    assert shown.exit_code == checked.exit_code
    listed = runner.invoke(main, ["--inventory", str(inventory), "policy", "list", "--json"])
    assert [one["id"] for one in json.loads(listed.stdout)] == list(BY_ID)
    explained = runner.invoke(main, ["--inventory", str(inventory), "policy", "explain", "trd-002"])
    assert "dry_run: true" in explained.stdout
    wrong = runner.invoke(main, ["--inventory", str(inventory), "policy", "explain", "TRD-022"])
    assert wrong.exit_code == 2
    assert "did you mean" in wrong.stderr


def test_the_catalogue_is_current() -> None:
    assert policy_reference.PAGE.read_text(encoding="utf-8") == policy_reference.rendered()


def test_ansible_refuses_what_breaks_the_policy(inventory: Path) -> None:
    """The signer that the tests' fleets have is the example."""
    told = ansible(inventory, "hub-01", "-m", "check_settings")
    assert told.returncode != 0
    assert "P0 SEC-008" in told.stdout


@pytest.mark.parametrize(("file", "refused"), [("deploy.py", True), ("rollback.py", False)])
def test_pyinfra_refuses_a_deployment_and_no_way_back(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, file: str, refused: bool
) -> None:
    fleet = resolve(inventory, EXTRA)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(run, "config", SimpleNamespace())  # pyinfra makes it while it starts
    context = click.Context(click.Command("pyinfra"))
    context.params = {"operations": (file,), "inventory": str(inventory.with_suffix(".py")), "yes": True}
    with context:
        if refused:
            with pytest.raises(PyinfraError, match="P0 SEC-008"):
                run.prepare(fleet)
        else:
            run.prepare(fleet)
