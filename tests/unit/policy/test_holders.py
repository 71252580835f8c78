"""Who holds which secret, and how old each is by the audit log."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import click
import pytest
from click.testing import CliRunner

from deploy.commands import secrets
from deploy.commands.secrets import judged, known_since
from deploy.coordination.audit_log import Log
from deploy.fleet.inventory import Fleet
from deploy.fleet.vault_password import next_file, password_file
from deploy.policy.holders import CONTROLLER, Age, ages, holders
from mt5crs.__main__ import main
from tests.unit.fleets import SIGNER, make_fleet

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return make_fleet(tmp_path_factory.mktemp("holders"))


def test_every_key_is_named_with_its_holder_and_what_it_may(fleet: Fleet) -> None:
    found = {(one.kind, one.name): one for one in holders(fleet)}
    strategy = found["client key", "inf-01-strategy"]
    assert (strategy.held, strategy.may) == ("inf-01", "trade (202401)")
    assert strategy.accepted_from == fleet.hosts["inf-01"]["fleet_address"]
    ops = found["client key", "ops"]
    assert (ops.held, ops.may) == (CONTROLLER, "observe, administer")
    controllers = fleet.hosts["gtw-01"]["baseline_ssh_sources"]
    assert ops.accepted_from == ", ".join([*controllers, fleet.hosts["hub-01"]["fleet_address"]])
    assert found["gateway key", "gtw-01"].held == "gtw-01"
    assert found["release signer", "test"].may == "sign code that hosts accept"
    listed = {name for kind, name in found if kind == "client key"}
    assert listed == set(fleet.hosts["gtw-01"]["vault_client_secret_keys"])
    text = json.dumps([vars(one) for one in found.values()])
    assert not [key for key in fleet.hosts["gtw-01"]["vault_client_secret_keys"].values() if key in text]
    assert SIGNER.split()[1] not in text


def test_operators_of_the_page_are_named_and_their_digests_are_not(fleet: Fleet) -> None:
    digest = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
    more = {"hub_operators": {"alice": digest}, "hub_readers": ["192.168.7.0/24"]}
    named = replace(fleet, hosts={**fleet.hosts, "hub-01": {**fleet.hosts["hub-01"], **more}})
    (alice,) = [one for one in holders(named) if one.kind == "operator's token"]
    assert (alice.name, alice.held) == ("alice", "that person")
    assert alice.may == "halt and acknowledge on the Hub's page"
    assert "192.168.7.0/24" in alice.accepted_from
    assert fleet.hosts["hub-01"]["fleet_address"] in alice.accepted_from
    assert digest not in json.dumps([vars(one) for one in holders(named)])
    assert not [one for one in holders(fleet) if one.kind == "operator's token"]


def test_an_age_is_exact_once_the_log_has_seen_a_change() -> None:
    first = {"at": "2026-01-01T00:00:00.000Z", "settings": {"vault_a.x": {}, "vault_a.y": {}}}
    change = {"what": "secret.changed", "at": "2026-11-01T00:00:00.000Z", "changed": {"vault_a.x": []}}
    found = ages([change], [first])
    assert found["vault_a.x"] == Age(datetime(2026, 11, 1, tzinfo=timezone.utc), exact=True)
    assert found["vault_a.y"] == Age(datetime(2026, 1, 1, tzinfo=timezone.utc), exact=False)
    assert ages([], []) == {}


@pytest.mark.parametrize(("days", "which"), [(400, "old"), (365, "soon"), (336, "soon"), (335, ""), (0, "")])
def test_a_key_is_old_after_its_days_and_due_before(days: int, which: str) -> None:
    old, soon = judged({"v": "ops"}, {"v": Age(NOW - timedelta(days=days), exact=False)}, {"v": 365}, NOW)
    assert (bool(old), bool(soon)) == (which == "old", which == "soon")
    assert all(f"ops is at least {days} days old" in line for line in [*old, *soon])


def test_what_may_be_older_than_the_log_is_said_to_be() -> None:
    began, later = NOW - timedelta(days=3), NOW - timedelta(days=1)
    both = {"a": Age(later, exact=True), "b": Age(began, exact=False)}
    assert known_since({"a": "ops", "b": "strategy"}, both) == began
    assert known_since({"a": "ops", "new": "never deployed"}, both) is None


def run(fleet: Fleet, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["--inventory", str(fleet.inventory), "secrets", *words])
    return done.exit_code, done.output


def test_check_does_not_call_good_what_it_could_not_look_at(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(_: object) -> Any:
        raise click.ClickException("the Hub is silent")

    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"\x07" * 32
    signer = f"ssh-ed25519 {base64.b64encode(blob).decode()} release"
    hosts = {host: {**of, "baseline_release_signers": [signer]} for host, of in fleet.hosts.items()}
    fleet = replace(fleet, hosts=hosts)
    monkeypatch.setattr(secrets, "fleet_of", lambda _: fleet)
    monkeypatch.setattr(secrets, "log_of", silent)
    monkeypatch.setattr(secrets, "readable_by_others_in_the_fleet", lambda _: (5, []))
    status, text = run(fleet, "check")
    assert (status, "unknown: how old the keys are: the Hub is silent" in text) == (1, True), text
    monkeypatch.setattr(secrets, "log_of", lambda _: Log(b"", b"", None, (), {}))
    status, text = run(fleet, "check")
    assert (status, "how old the keys are: no configuration was deployed since" in text) == (1, True), text
    soon = (datetime.now(timezone.utc) + timedelta(days=9)).date()
    ends = {
        "vault_client_secret_keys.ops": str(soon),
        "vault_clients": "2999-01-01",
    }
    dated = {host: {**of, "fleet_secret_expiry": ends} for host, of in fleet.hosts.items()}
    monkeypatch.setattr(secrets, "fleet_of", lambda _: replace(fleet, hosts=dated))
    next_file(password_file(fleet.inventory)).write_text("x")
    status, text = run(fleet, "check")
    assert status == 2
    assert "vault_client_secret_keys.ops is to be replaced by" in text
    assert "fleet_secret_expiry names vault_clients, and no secret is called so" in text
    assert "`secrets rotate vault` finishes it" in text
    next_file(password_file(fleet.inventory)).unlink()
    monkeypatch.setattr(secrets, "fleet_of", lambda _: fleet)
    monkeypatch.setattr(secrets, "log_of", silent)
    mode = ["/opt/.env of inf-01 has mode 0644, must be 0600; deploy again"]
    monkeypatch.setattr(secrets, "readable_by_others_in_the_fleet", lambda _: (5, mode))
    assert run(fleet, "check")[0] == 2
    assert run(fleet, "who", "--json")[0] == 0
