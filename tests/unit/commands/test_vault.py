"""`mt5crs … secrets init|view|edit` with real vaults and editors: no value is shown, nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.commands import vault as command
from deploy.fleet.vault_password import PROJECT, vault_lib
from deploy.vaults import editing, private, store
from mt5crs.__main__ import main
from tests.unit.fleets import HOSTS, inventory_text, make_inventory

CANARY = "Hunter2Canary"


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was told to the audit log."""
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(command, "acted", lambda what, **values: told.append((what, values)))
    return told


@pytest.fixture
def inventory(tmp_path: Path, acts: object) -> Path:
    return make_inventory(tmp_path)


def vault_of(inventory: Path) -> Path:
    return inventory.parent / "group_vars/lab/vault.yml"


def opened(inventory: Path) -> str:
    password = (inventory.parent / "vault-password").read_text().strip()
    return bytes(vault_lib(password).decrypt(vault_of(inventory).read_bytes())).decode()


def written(inventory: Path, text: str) -> None:
    password = (inventory.parent / "vault-password").read_text().strip()
    vault_of(inventory).write_bytes(store.seal(text, password))


def run(inventory: Path, *words: str, **variables: str) -> Result:
    return CliRunner().invoke(main, ["--inventory", str(inventory), "secrets", *words], env=variables)


def script(tmp_path: Path, text: str) -> str:
    """An editor that does this with the file "$1"."""
    path = tmp_path / "editor"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def left_in_memory() -> list[Path]:
    own = f"mt5crs-secrets-{os.getuid()}-{os.getpid()}-*"
    return [path for place in private.in_memory() for path in place.glob(own)]


# --- view


def test_view_shows_names_and_where_they_are_used_and_no_value(inventory: Path) -> None:
    values = yaml.safe_load(opened(inventory))
    shown = run(inventory, "view")
    assert shown.exit_code == 0, shown.output
    lines = {line.split()[0]: line for line in shown.output.splitlines()}
    assert "inf-01 strategy_client_secret_key" in lines["vault_client_secret_keys.inf-01-strategy"]
    assert "gtw-01 gateway_secret_key" in lines["vault_gateway_secret_keys.gtw-01"]
    assert "the controller (observe, administer" in lines["vault_client_secret_keys.ops"]
    told = json.loads(run(inventory, "view", "vault_gateway_secret_keys", "--json").output)
    assert told == [{"name": "vault_gateway_secret_keys.gtw-01", "used_by": ["gtw-01 gateway_secret_key"]}]
    everything = shown.output + json.dumps(told)
    assert not [key for of in values.values() for key in of.values() if key in everything]


def test_a_value_goes_to_no_pipe_unless_told_and_is_recorded(
    inventory: Path, acts: list[tuple[str, dict[str, Any]]]
) -> None:
    name = "vault_client_secret_keys.ops"
    key = yaml.safe_load(opened(inventory))["vault_client_secret_keys"]["ops"]
    refused = run(inventory, "view", "--show", name)
    assert refused.exit_code == 1
    assert "--to-pipe" in refused.output
    assert key not in refused.output
    assert acts == []
    assert run(inventory, "view", "--show", name, "--to-pipe").output == f"{key}\n"
    assert acts == [("secret.shown", {"name": name})]
    assert "--show NAME prints one value" in run(inventory, "view", "--json", "--show", name).output


@pytest.mark.parametrize("words", [("view", "vault_client_secret_key.ops"), ("view", "--show", "vault_q")])
def test_an_unknown_name_is_told_with_the_nearest(inventory: Path, words: tuple[str, ...]) -> None:
    said = run(inventory, *words)
    assert said.exit_code == 1
    assert "did you mean vault_client_secret_keys.ops?" in said.output or "there are vault_" in said.output


# --- edit


def test_edit_shows_changed_names_and_keeps_comments(
    inventory: Path, tmp_path: Path, acts: list[tuple[str, dict[str, Any]]]
) -> None:
    (inventory.parent / "group_vars/gateway.yml").write_text(
        'gateway_mt5_password: "{{ vault_gateway_mt5_password }}"\n'
    )
    written(inventory, opened(inventory) + f"# the broker's\nvault_gateway_mt5_password: {CANARY}\n")
    editor = script(tmp_path, f"sed -i 's/{CANARY}/New{CANARY}/' \"$1\"")
    done = run(inventory, "edit", EDITOR=editor)
    assert done.exit_code == 0, done.output
    assert "changed  vault_gateway_mt5_password" in done.output
    assert CANARY not in done.output
    assert f"# the broker's\nvault_gateway_mt5_password: New{CANARY}\n" in opened(inventory)
    assert stat.S_IMODE(vault_of(inventory).stat().st_mode) == 0o600
    assert f"to be deployed: ansible-playbook -i {inventory} site.yml" in done.output
    assert acts == [("vault.edited", {"added": [], "edited": ["vault_gateway_mt5_password"], "removed": []})]


@pytest.mark.parametrize(
    ("does", "said", "status"),
    [
        (":", "nothing was changed", 0),
        ("echo '# a comment' >> \"$1\"", "only comments or the order changed", 0),
        ("exit 3", "editor ended with 3; nothing was changed", 1),
        ('rm "$1"', "the copy is gone", 1),
        (f'echo "vault_x: *{CANARY}" >> "$1"', "no YAML", 1),
        (f'echo "vault_client_secret_keys: {CANARY}" >> "$1"', "stands 2 times", 1),
        (f'echo "gateway_mt5_pasword: {CANARY}" >> "$1"', "did you mean gateway_mt5_password", 1),
    ],
)
def test_what_an_editor_leaves_is_judged_and_a_bad_one_changes_nothing(
    inventory: Path, tmp_path: Path, does: str, said: str, status: int
) -> None:
    before = vault_of(inventory).read_bytes()
    done = run(inventory, "edit", EDITOR=script(tmp_path, does))
    assert said in done.output
    assert done.exit_code == status
    assert CANARY not in done.output
    assert (vault_of(inventory).read_bytes() == before) is ("comment" not in does)
    assert left_in_memory() == []


def test_a_name_that_nothing_refers_to_is_told_as_such(inventory: Path, tmp_path: Path) -> None:
    done = run(inventory, "edit", EDITOR=script(tmp_path, "echo 'vault_x: abc' >> \"$1\""))
    assert (done.exit_code, "nothing refers to vault_x yet\n" in done.output) == (0, True), done.output


def test_bad_content_can_be_edited_again(
    inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def confirm(*_words: object, **_options: object) -> bool:
        asked.append("again")
        return True

    monkeypatch.setattr(command.click, "confirm", confirm)
    monkeypatch.setattr(command.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    does = f'if [ -e "$0.once" ]; then sed -i "/mine/d" "$1"; echo "vault_mine: {CANARY}" >> "$1"; '
    does += 'else touch "$0.once"; echo "vault_mine: [" >> "$1"; fi'
    inside = [
        *("--inventory", str(inventory), "secrets", "edit"),
    ]
    monkeypatch.setenv("EDITOR", script(tmp_path, does))
    with pytest.raises(SystemExit) as ended:
        main(inside)
    assert ended.value.code in (0, None)
    assert asked == ["again"]
    assert f"vault_mine: {CANARY}" in opened(inventory)


def test_the_copy_is_private_and_what_the_editor_leaves_beside_it_is_gone(
    inventory: Path, tmp_path: Path
) -> None:
    does = 'stat -c "%a" "$1" "$(dirname "$1")" > "$0.seen"; dirname "$1" >> "$0.seen"; cat "$1" > "$1~"; '
    does += 'stat -c "%a" "$1~" >> "$0.seen"'
    assert run(inventory, "edit", EDITOR=script(tmp_path, does)).exit_code == 0
    copy, directory, place, backup = (tmp_path / "editor.seen").read_text().split()
    assert (copy, directory, backup) == ("600", "700", "600")
    assert not Path(place).exists()
    assert not private.in_memory() or Path(place).parent in private.in_memory()


def test_two_edits_at_once_are_refused(inventory: Path, tmp_path: Path) -> None:
    with store.locked(vault_of(inventory).parent):
        said = run(inventory, "edit", EDITOR="true")
    assert said.exit_code == 1
    assert "somebody else is changing the secrets" in said.output


def test_a_vault_that_changed_meanwhile_is_not_overwritten(inventory: Path, tmp_path: Path) -> None:
    other = vault_of(inventory).read_bytes() + b"\n"
    (tmp_path / "other").write_bytes(other)
    does = f'cp "{tmp_path}/other" "{vault_of(inventory)}"; echo "vault_mine: x1" >> "$1"'
    said = run(inventory, "edit", EDITOR=script(tmp_path, does))
    assert "changed by something else meanwhile" in said.output
    assert vault_of(inventory).read_bytes() == other


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_loses_nothing(
    inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    before = vault_of(inventory).read_bytes()
    editor = script(tmp_path, 'echo "vault_mine: x1" >> "$1"')
    real, place = getattr(os, call), str(vault_of(inventory).parent)

    def full(first: Any, *rest: Any, **more: Any) -> Any:
        about = str(Path(f"/proc/self/fd/{first}").readlink()) if isinstance(first, int) else str(first)
        if about.startswith(place):
            raise OSError(number, os.strerror(number))
        return real(first, *rest, **more)

    monkeypatch.setattr(os, call, full)
    said = run(inventory, "edit", EDITOR=editor)
    assert said.exit_code == 1
    assert f"cannot be written: {os.strerror(number)}" in said.output
    assert "was not changed" in said.output
    assert vault_of(inventory).read_bytes() == before
    assert [path.name for path in vault_of(inventory).parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_copy(inventory: Path, tmp_path: Path, number: int) -> None:
    editor = script(
        tmp_path, f'echo "{CANARY}" >> "$1"; echo "$1" > "$0.tmp"; mv "$0.tmp" "$0.at"; exec sleep 60'
    )
    words = [sys.executable, "-m", "mt5crs", "--inventory", str(inventory), "secrets", "edit"]
    process = subprocess.Popen(
        words,
        cwd=PROJECT,
        env={**os.environ, "EDITOR": editor},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    at = tmp_path / "editor.at"
    until(at.exists, process)
    copy = Path(at.read_text().strip())
    assert copy.exists()
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == -number
    assert not copy.parent.exists()
    assert CANARY not in output
    assert CANARY not in opened(inventory)


def test_a_signal_while_the_editor_is_being_started_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def begun(*words: Any, **more: Any) -> subprocess.Popen[bytes]:
        started.append(real(*words, **more))
        os.kill(os.getpid(), signal.SIGTERM)  # before anybody knows the process
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", begun)
    with pytest.raises(private.InterruptedByError), private._ending_raises():
        editing._run([script(tmp_path, "exec sleep 60")], tmp_path)
    assert started[0].poll() is not None


def until(good: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not good():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the editor was not started within 30 s"
        time.sleep(0.02)


def test_what_a_killed_edit_left_is_removed_by_the_next_one(inventory: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    place = (private.in_memory() or [Path("/tmp")])[0]
    left = place / f"mt5crs-secrets-{os.getuid()}-{dead.pid}-x"
    left.mkdir()
    assert run(inventory, "edit", EDITOR="true").exit_code == 0
    assert not left.exists()


# --- what keeps a vault from being opened


def test_each_obstacle_is_one_sentence_with_its_remedy(
    inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str, **variables: str) -> str:
        done = run(inventory, *words, **variables)
        assert done.exit_code == 1
        assert done.output.count("\n") == 1, done.output
        return done.output

    password, vault = inventory.parent / "vault-password", vault_of(inventory)
    good = password.read_text()
    assert "names 'no-such-editor', which is no program" in said("edit", EDITOR="no-such-editor")
    assert "EDITOR is no command" in said("edit", EDITOR="vi '")
    assert "no program on this machine" in said("edit", EDITOR=str(tmp_path))
    assert "this is no terminal" in said("edit", EDITOR="", VISUAL="")  # vi would wait for ever
    password.write_text("another\n")
    assert "a wrong one, or the file is damaged" in said("view")
    assert "a wrong one, or the file is damaged" in said("edit", EDITOR="true")
    password.unlink()
    assert "put it there from your safe" in said("view")
    password.write_text(good)
    password.chmod(0o644)
    assert "chmod 600" in said("view")
    password.chmod(0o600)
    text = opened(inventory)
    vault.write_text(text)
    assert "is not encrypted" in said("view")
    vault.unlink()
    assert "secrets init" in said("view")
    assert "secrets init" in said("edit", EDITOR="true")
    written(inventory, text)
    monkeypatch.setattr(command.os, "access", lambda _path, mode: mode != os.W_OK)
    assert "you cannot write" in said("edit", EDITOR="true")


# --- init


def test_init_makes_vault_and_password_once(tmp_path: Path, acts: list[tuple[str, dict[str, Any]]]) -> None:
    inventory = tmp_path / ".lab/unit/inventory.yml"
    inventory.parent.mkdir(parents=True)
    inventory.write_text(inventory_text(HOSTS))
    made = run(inventory, "init")
    assert made.exit_code == 0, made.output
    password = inventory.parent / "vault-password"
    assert str(password) in made.output
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert set(yaml.safe_load(opened(inventory))) == {"vault_client_secret_keys", "vault_gateway_secret_keys"}
    assert password.read_text().strip() not in made.output
    assert [what for what, _ in acts] == ["vault.made"]

    before = vault_of(inventory).read_bytes()
    again = run(inventory, "init")
    assert (again.exit_code, vault_of(inventory).read_bytes()) == (1, before)
    assert "exists already, and nothing is replaced" in again.output
    vault_of(inventory).unlink()
    assert "bring vault.yml back" in run(inventory, "init").output
    vault_of(inventory).with_name("keys.yml").unlink()
    kept = password.read_text()
    assert "that was there" in run(inventory, "init").output
    assert password.read_text() == kept


def test_init_of_an_inventory_that_is_not_there(tmp_path: Path, acts: object) -> None:
    said = run(tmp_path / "none.yml", "init")
    assert (said.exit_code, said.output.count("\n")) == (1, 1)
    assert "does not exist" in said.output
