"""Which environment an inventory is of: what its file says, else its name; the same for vault and rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.fleet.inventory import InventoryError, file_of, resolve
from deploy.fleet.vault_password import environment_of, password_file, vault_files

HOSTS = "all: {hosts: {inf-01: {ansible_host: 192.0.2.1}}, vars: {%s}}\n"


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("eu:\n  vars:\n    fleet_environment: production  # the big one\n", "production"),
        ('{"all": {"vars": {"fleet_environment": "production"}}}', "production"),
        ("eu:\n  vars:\n    # fleet_environment: production\n    other_fleet_environment: x\n", "eu"),
        ('eu:\n  vars:\n    fleet_environment: "{{ inventory_dir }}"\n', "eu"),
        ("a:\n  fleet_environment: one\nb:\n  fleet_environment: two\n", "eu"),
        ("", "eu"),
    ],
)
def test_the_file_says_it_or_is_named_after_it(text: str, environment: str, tmp_path: Path) -> None:
    inventory = tmp_path / "eu.yml"
    inventory.write_text(text)
    assert environment_of(inventory) == environment
    assert environment_of(tmp_path / "nowhere.yml") == "nowhere"


def test_vault_and_password_are_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    inventory = tmp_path / "eu.yml"
    inventory.write_text(HOSTS % "fleet_environment: far")
    vault = tmp_path / "group_vars/far/vault.yml"
    vault.parent.mkdir(parents=True)
    vault.touch()
    assert password_file(inventory) == tmp_path / "config/mt5crs/vault-password-far"
    assert vault_files(inventory) == [vault]


def test_rules_and_records_have_what_the_hosts_say(tmp_path: Path) -> None:
    inventory = tmp_path / "eu.yml"
    inventory.write_text(HOSTS % "fleet_environment: production")
    assert resolve(inventory).environment == "production"
    inventory.write_text(HOSTS % "")
    assert resolve(inventory).environment == "eu"


def test_an_environment_that_only_variables_name_is_refused(tmp_path: Path) -> None:
    """The vault was looked for by another name by then."""
    inventory = tmp_path / "eu.yml"
    inventory.write_text(HOSTS % "")
    own = tmp_path / "host_vars/inf-01.yml"
    own.parent.mkdir()
    own.write_text("fleet_environment: production\n")
    with pytest.raises(
        InventoryError, match=r"of inf-01 is 'production' \(.*host_vars/inf-01.yml:1\)"
    ) as told:
        resolve(inventory)
    assert "below `vars:`" in str(told.value)


def test_a_directory_is_refused_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(HOSTS % "")
    for ask in (resolve, lambda path: file_of([str(path)])):
        with pytest.raises(InventoryError, match=r"is a directory.*name the file \(there: hosts.yml\)"):
            ask(tmp_path)
