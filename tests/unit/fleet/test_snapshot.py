"""What the audit log keeps of a configuration: every file that counts, and never a secret."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet import guarded, snapshot
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.settings import PARTS, variables_of
from deploy.fleet.vault_password import PROJECT, password_file
from mt5crs_release.records.configuration_changes import between
from tests.unit.fleets import EXTRA, make_inventory

CANARY = "canary-9f8e7d6c5b4a"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inventory = make_inventory(tmp_path_factory.mktemp("snapshot"))
    host_vars = inventory.parent / "host_vars"
    host_vars.mkdir()
    (host_vars / "inf-01.yml").write_text("# the first one\nstrategy_volume: 0.02\n")
    (host_vars / "inf-02.yml").write_text(f"gateway_mt5_password: {CANARY}\n")
    return inventory


@pytest.fixture(scope="module")
def fleet(inventory: Path) -> Fleet:
    return resolve(inventory, EXTRA)


@pytest.fixture(scope="module")
def taken(fleet: Fleet) -> dict[str, Any]:
    return snapshot.snapshot_of(fleet, EXTRA)


def test_files_are_kept_as_they_are_and_secrets_by_reference(taken: dict[str, Any]) -> None:
    files = taken["files"]
    assert files["inventory/host_vars/inf-01.yml"] == {"text": "# the first one\nstrategy_volume: 0.02\n"}
    assert files["group_vars/lab/main.yml"]["text"] == (PROJECT / "group_vars/lab/main.yml").read_text()
    assert "group_vars/staging/main.yml" not in files  # another environment's
    assert files["inventory/group_vars/lab/vault.yml"]["why"] == "encrypted"
    assert "text" not in files["inventory/group_vars/lab/vault.yml"]
    plain = files["inventory/host_vars/inf-02.yml"]
    assert plain["why"] == "it holds gateway_mt5_password"
    assert "text" not in plain
    assert taken["given"] == sorted(EXTRA)


def test_no_secret_is_in_it(fleet: Fleet, taken: dict[str, Any], inventory: Path) -> None:
    text = json.dumps(taken)
    of = fleet.hosts["inf-01"]
    secrets = [*of["vault_client_secret_keys"].values(), *of["vault_gateway_secret_keys"].values(), CANARY]
    secrets.append(password_file(inventory).read_text().strip())
    assert len(secrets) > 6
    assert not [secret for secret in secrets if secret in text]


def test_a_digest_needs_the_key_and_is_of_one_setting_alone(fleet: Fleet) -> None:
    key = snapshot.key_of(fleet.inventory)
    assert snapshot.digest(key, "a", "1") != snapshot.digest(key, "b", "1")
    assert snapshot.digest(key, "a", "1") != snapshot.digest(b"another", "a", "1")
    assert len(key) == 32


def test_without_a_vault_password_no_secret_has_a_digest(fleet: Fleet, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere.yml"
    alone.write_text("all:\n")
    found = snapshot.snapshot_of(replace(fleet, inventory=alone))
    assert found["key"] == ""
    assert found["secret"]
    assert not set(found["secret"]) & set(found["settings"])


def test_a_rotated_key_and_a_changed_setting_are_told_by_name_and_host(
    fleet: Fleet, taken: dict[str, Any]
) -> None:
    hosts = {host: dict(of) for host, of in fleet.hosts.items()}
    for of in hosts.values():
        of["vault_client_secret_keys"] = {**of["vault_client_secret_keys"], "ops": "0" * 64}
        of["fleet_client_public_keys"] = {**of["fleet_client_public_keys"], "ops": "1" * 64}
    hosts["inf-02"]["strategy_volume"] = 0.07
    changes = between(taken, snapshot.snapshot_of(replace(fleet, hosts=hosts), EXTRA))
    assert changes is not None
    assert list(changes.settings) == ["strategy_volume"]
    assert [one["hosts"] for one in changes.settings["strategy_volume"]] == [["inf-02"]]
    assert list(changes.secrets) == ["vault_client_secret_keys.ops"]
    assert list(changes.access) == ["fleet_client_public_keys.ops"]
    assert between(taken, taken) is None


def test_what_is_guarded_is_declared() -> None:
    declared = {name for part in PARTS for name in variables_of(part)}
    named = guarded.ACCESS | guarded.LIMITS | set(guarded.FOLLOWS)
    assert named - declared == set()
    assert {name for of in guarded.FOLLOWS.values() for name in of} <= named


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "inventory/../../x"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, inventory: Path) -> None:
    with pytest.raises(ValueError, match="no file of a configuration"):
        snapshot.path_of(inventory, name)


def test_every_file_is_found_again_where_it_was(fleet: Fleet) -> None:
    for name, path in snapshot.files_of(fleet).items():
        assert snapshot.path_of(fleet.inventory, name) == path
