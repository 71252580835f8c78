"""Another password for a vault: killed at any step, what is there can be opened, and it is finished."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.backup.copies import CopyError, opened, sealed
from deploy.fleet.inventory import InventoryError, resolve
from deploy.fleet.vault_password import (
    former_passwords,
    next_file,
    opens,
    read_password,
    vault_lib,
)
from deploy.vaults import store
from deploy.vaults.password import rotate
from tests.unit.fleets import EXTRA, make_inventory

CANARY = "Hunter2Canary"
CALLS = ("fsync", "replace", "unlink")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet with a vault and, beside it, a plain file with one encrypted value."""
    inventory = make_inventory(tmp_path_factory.mktemp("made"))
    text = store.seal(CANARY, read_password(inventory)).decode()
    block = "".join(f"    {line}\n" for line in text.splitlines())
    (inventory.parent / "group_vars/gateway.yml").write_text(
        f"# an island\ngateway_mt5_password: !vault |\n{block}gateway_sim_faults: false\n"
    )
    return inventory


@pytest.fixture
def inventory(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parents[1], tmp_path / ".lab")
    return tmp_path / ".lab/unit/inventory.yml"


def vault_of(inventory: Path) -> Path:
    return inventory.parent / "group_vars/lab/vault.yml"


def held(inventory: Path) -> tuple[Any, Any]:
    """Everything that the vaults hold, as a deployment resolves it."""
    fleet = resolve(inventory, EXTRA)
    return fleet.hosts["gtw-01"]["vault_gateway_secret_keys"], fleet.hosts["gtw-01"]["gateway_mt5_password"]


def left_over(inventory: Path) -> list[str]:
    names = [path.name for path in inventory.parent.rglob("*") if path.is_file()]
    return [name for name in names if name.endswith((".new", ".old", "-tmp"))]


def test_everything_opens_with_the_new_password_and_nothing_else_changed(inventory: Path) -> None:
    before, old = held(inventory), read_password(inventory)
    done = rotate(inventory)
    new = read_password(inventory)
    assert (done.resumed, len(done.files), new != old, len(new)) == (False, 2, True, 64)
    assert held(inventory) == before
    assert not opens(vault_of(inventory).read_bytes(), old)
    island = (inventory.parent / "group_vars/gateway.yml").read_text()
    assert island.startswith("# an island\ngateway_mt5_password: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n")
    assert island.endswith("\ngateway_sim_faults: false\n")
    for path in (vault_of(inventory), done.in_force, done.former):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert former_passwords(inventory) == [old]
    assert left_over(inventory) == []
    rotate(inventory)
    assert former_passwords(inventory) == [new, old]


def killed_at(number: int, after: bool, call: Callable[[], object]) -> bool:
    """Run it in a process that dies at its n-th step, before or after it; whether it got so far."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*words: Any, **more: Any) -> Any:
                nonlocal count
                count += 1
                if count == number and not after:
                    os._exit(9)
                told = real(*words, **more)
                if count == number:
                    os._exit(9)
                return told

            return step

        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        try:
            call()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), status
    return status == 9


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_step_it_opens_meanwhile_and_is_finished_by_the_next_call(
    made: Path, tmp_path: Path, after: bool
) -> None:
    old, number = read_password(made), 0
    text = vault_lib(old).decrypt(vault_of(made).read_bytes())
    while True:
        number += 1
        place = tmp_path / str(number)
        shutil.copytree(made.parents[1], place / ".lab")
        inventory = place / ".lab/unit/inventory.yml"
        if not killed_at(number, after, lambda: rotate(inventory)):  # noqa: B023 -- called at once
            break
        meanwhile = read_password(inventory)
        assert vault_lib(meanwhile).decrypt(vault_of(inventory).read_bytes()) == text, number
        rotate(inventory)
        new = read_password(inventory)
        assert new != old, number
        assert vault_lib(new).decrypt(vault_of(inventory).read_bytes()) == text, number
        assert (left_over(inventory), former_passwords(inventory)[-1]) == ([], old), number
    assert number > 18, "fewer steps than files written"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_any_step_loses_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    text = vault_lib(read_password(made)).decrypt(vault_of(made).read_bytes())
    number, failed = 0, True
    said: list[str] = []
    while failed:
        number += 1
        place = tmp_path / str(number)
        shutil.copytree(made.parents[1], place / ".lab")
        inventory, count = place / ".lab/unit/inventory.yml", 0
        real = getattr(os, call)

        def full(*words: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:  # noqa: B023
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*words)  # noqa: B023

        with monkeypatch.context() as patched:
            patched.setattr(os, call, full)
            try:
                rotate(inventory)
                failed = False
            except store.VaultError as error:
                said.append(str(error))
        assert vault_lib(read_password(inventory)).decrypt(vault_of(inventory).read_bytes()) == text
        rotate(inventory)
        assert vault_lib(read_password(inventory)).decrypt(vault_of(inventory).read_bytes()) == text
    assert number > 5
    assert all("No space left" in each for each in said)


def test_each_obstacle_changes_nothing(
    inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str) -> None:
        before = {path: path.read_bytes() for path in inventory.parent.rglob("*") if path.is_file()}
        with pytest.raises(store.VaultError, match=said):
            rotate(inventory)
        assert before == {path: path.read_bytes() for path in inventory.parent.rglob("*") if path.is_file()}

    password = inventory.parent / "vault-password"
    other = inventory.parent / "group_vars/elsewhere/vault.yml"
    other.parent.mkdir()
    other.write_bytes(vault_of(inventory).read_bytes())
    refused("which is another environment's")
    other.unlink()
    with store.locked(vault_of(inventory).parent):
        refused("somebody else is changing")
    good = password.read_text()
    password.write_text("another\n")
    refused("cannot be opened with the password")
    password.write_text("\n")
    refused("is empty")
    password.unlink()
    refused("put it there from your safe")
    password.write_text(good)
    script = tmp_path / "ask"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o700)
    with monkeypatch.context() as asked:
        asked.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(script))
        refused("is a script that prints the password")
    with monkeypatch.context() as sealed_off:
        sealed_off.setattr(os, "access", lambda _path, mode, **_: mode != os.W_OK)
        refused("you cannot write")
    (inventory.parent / "host_vars").mkdir()
    (inventory.parent / "host_vars/gtw-01.yml").write_text('x: "$ANSIBLE_VAULT;1.1;AES256\\n6162"\n')
    refused("not written as a block")
    vault_of(inventory).unlink()
    refused("has no vault yet")


def test_a_vault_that_neither_password_opens_says_that_a_change_was_interrupted(inventory: Path) -> None:
    next_file(inventory.parent / "vault-password").write_text("third\n")
    (inventory.parent / "vault-password").write_text("another\n")
    (inventory.parent / "vault-password").chmod(0o600)
    with pytest.raises(InventoryError, match="secrets rotate vault` finishes it"):
        resolve(inventory, EXTRA)


def test_a_copy_from_before_opens_with_the_former_password_alone() -> None:
    import hashlib

    kept = sealed(b"content", "old")
    digest = hashlib.sha256(kept).hexdigest()
    assert opened(kept, "new", digest, ["older", "old"]) == b"content"
    with pytest.raises(CopyError, match="another vault password"):
        opened(kept, "new", digest)


def test_our_own_check_of_a_password_is_ansibles(inventory: Path) -> None:
    content = vault_of(inventory).read_bytes()
    assert opens(content, read_password(inventory))
    assert not opens(content, "another")
    for other in (b"", b"$ANSIBLE_VAULT;1.1;AES256\nzz", content[:-80], content.replace(b"$", b"!")):
        assert not opens(other, read_password(inventory))
