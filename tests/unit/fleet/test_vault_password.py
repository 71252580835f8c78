"""Which vault password an ansible command gets; nothing is encrypted with one that is thrown away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.fleet.inventory import InventoryError, resolve
from deploy.fleet.vault_password import (
    PROJECT,
    VaultPasswordMissingError,
    inventory_of,
    password_file,
    read_password,
)
from tests.unit.fleets import make_inventory

ANSIBLE_VAULT = str(Path(sys.executable).with_name("ansible-vault"))
NOT_SAID = "for which environment"


def vault(*words: str, home: Path, given: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-vault as a user does: in the project, with our ansible.cfg."""
    return subprocess.run(
        [ANSIBLE_VAULT, *words],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **variables},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", [("encrypt_string", "canary"), ("encrypt", "plain.yml"), ("encrypt",)])
def test_nothing_is_encrypted_with_a_password_that_nobody_keeps(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    plain = tmp_path / "plain.yml"
    plain.write_text("a: 1\n")
    done = vault(
        *(str(plain) if word == "plain.yml" else word for word in words), home=tmp_path, given="a: 1\n"
    )
    assert done.returncode != 0
    assert NOT_SAID in done.stderr
    assert "ANSIBLE_INVENTORY=inventory/<environment>.yml ansible-vault" in done.stderr
    assert "ANSIBLE_VAULT" not in done.stdout
    assert plain.read_text() == "a: 1\n"


def test_a_new_environment_without_password_encrypts_nothing(tmp_path: Path) -> None:
    done = vault("encrypt_string", "canary", home=tmp_path, ANSIBLE_INVENTORY="inventory/staging.yml")
    assert done.returncode != 0
    assert "vault-password-staging does not exist" in done.stderr
    assert "$ANSIBLE_VAULT" not in done.stdout


def test_a_vault_is_seen_edited_and_rekeyed_by_its_path_alone(tmp_path: Path) -> None:
    vault_file = make_inventory(tmp_path).parent / "group_vars" / "lab" / "vault.yml"
    seen = vault("view", str(vault_file), home=tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert "secret" in seen.stdout
    edited = vault("edit", str(vault_file), home=tmp_path, EDITOR="sed -i '$a added: 1'")
    assert edited.returncode == 0, edited.stderr
    assert "added: 1" in vault("view", str(vault_file), home=tmp_path).stdout
    new = tmp_path / "new-password"
    new.write_text("another\n")
    rekeyed = vault("rekey", "--new-vault-password-file", str(new), str(vault_file), home=tmp_path)
    assert rekeyed.returncode == 0, rekeyed.stderr
    new.replace(vault_file.parents[2] / "vault-password")
    (vault_file.parents[2] / "vault-password").chmod(0o600)
    assert "added: 1" in vault("view", str(vault_file), home=tmp_path).stdout


READS = ["/usr/bin/python3", "/x/bin/ansible-playbook", "--syntax-check", "site.yml"]
VAULT = ["/usr/bin/python3", "/x/bin/ansible-vault"]


@pytest.mark.parametrize(
    ("command", "variable", "inventory"),
    [
        (READS, "", None),
        ([*READS, "-i", "inventory/staging.yml"], "", "inventory/staging.yml"),
        ([*VAULT, "encrypt_string", "x"], "inventory/staging.yml", "inventory/staging.yml"),
        ([*VAULT, "edit", "inventory/group_vars/production/vault.yml"], "", "inventory/production.yml"),
        ([*VAULT, "edit", "group_vars/production/vault.yml"], "", "inventory/production.yml"),
        ([*VAULT, "view", ".lab/two/group_vars/lab/vault.yml"], "", ".lab/two/inventory.yml"),
    ],
)
def test_environment_of_a_command(
    command: list[str], variable: str, inventory: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    found = inventory_of(command, variable)
    assert (found.absolute() if found else None) == (PROJECT / inventory if inventory else None)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (None, NOT_SAID),
        (["python3", "-m", "ansible", "vault", "encrypt", "x.yml"], NOT_SAID),
        ([*VAULT, "rekey", "inventory/group_vars/staging/v.yml", "group_vars/lab/v.yml"], "staging and lab"),
        ([*VAULT, "encrypt", "--vault-password-file", "mine", "x.yml"], "names another vault password"),
    ],
)
def test_a_command_that_may_encrypt_says_for_what(
    command: list[str] | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    with pytest.raises(VaultPasswordMissingError, match=reason):
        inventory_of(command, "")


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o640])
def test_a_password_that_others_can_read_opens_no_vault(mode: int, tmp_path: Path) -> None:
    """pyinfra and `mt5crs --inventory` as well as Ansible, whose own loader would take it, or run it."""
    inventory = make_inventory(tmp_path)
    path = password_file(inventory)
    path.chmod(mode)
    with pytest.raises(InventoryError, match=f"others can read .*; run `chmod 600 {path}`"):
        resolve(inventory)


def test_a_password_that_may_be_executed_is_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = make_inventory(tmp_path)
    path = password_file(inventory)
    path.chmod(0o700)
    resolve(inventory)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(path))
    with pytest.raises(VaultPasswordMissingError, match=r"may be executed.*`chmod 600"):
        read_password(inventory)
