"""No secret of a vault in what the commands on secrets print, run, record or crash with."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from deploy.commands import rotate, secrets, vault
from deploy.fleet.vault_password import read_password, vault_lib
from deploy.vaults import store
from mt5crs.__main__ import main
from tests.unit.fleets import make_inventory

SIGNING = f"whsec_{'Canary4x7q9z' * 4}"
WATCH_SIGNING = f"whsec_{'Canary5x7q9z' * 4}"
CANARIES = [*(f"Canary{number}x7q9z" for number in range(5)), SIGNING, WATCH_SIGNING]
COMMANDS = [
    ["who", "--json"],
    ["check"],
    ["view"],
    ["view", "--json"],
    ["view", "--show", "vault_broker"],
    ["view", "--show", "vault_brokr", "--to-pipe"],
    ["edit"],
    ["init"],
    ["rotate", "vault", "--plan"],
    ["rotate", "vault"],
    ["rotate", "client", "all"],
    ["rotate", "gateway", "gtw-01"],
    ["rotate", "broker", "--plan"],
    ["rotate", "broker", "--from-file", "NEW"],
    ["rotate", "webhook", "--from-file", "BAD"],
    ["rotate", "signing"],
    ["rotate", "signed-webhook", "--from-file", "NEW"],
    ["rotate", "webhook-secret", "--plan"],
    ["rotate", "webhook-secret"],
    ["rotate", "hub-watch-secret"],
]
WRITING = [["view"], ["edit"], ["rotate", "vault"], ["rotate", "client", "all"]]
WRITING += [["rotate", "broker", "--from-file", "NEW"]]
"""Commands that open or write the vault, made to fail in the middle."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inventory = make_inventory(tmp_path_factory.mktemp("made"))
    beside = inventory.parent / "group_vars"
    (beside / "gateway.yml").write_text('gateway_mt5_password: "{{ vault_broker }}"\n')
    (beside / "hub.yml").write_text(
        'monitoring_webhook_url: "{{ vault_channel }}"\nhub_webhook_url: "{{ vault_signed }}"\n'
        'hub_webhook_secret: "{{ vault_signing }}"\n'
    )
    (beside / "inf.yml").write_text('monitoring_hub_watch_secret: "{{ vault_watch_signing }}"\n')
    more = f"vault_broker: {CANARIES[0]}\nvault_channel: https://example.org/{CANARIES[1]}\n"
    more += f"vault_signed: https://example.org/{CANARIES[4]}\nvault_signing: {SIGNING}\n"
    more += f"vault_watch_signing: {WATCH_SIGNING}\n"
    password, path = read_password(inventory), beside / "lab/vault.yml"
    path.write_bytes(
        store.seal(bytes(vault_lib(password).decrypt(path.read_bytes())).decode() + more, password)
    )
    return inventory


@pytest.fixture
def inventory(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made.parents[1], tmp_path / ".lab")
    for name, text in (("NEW", CANARIES[2]), ("BAD", f"{CANARIES[3]}'")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\nsed -i 's/{CANARIES[0]}/*{CANARIES[2]}/' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.setattr(secrets, "log_of", silent)
    monkeypatch.setattr(secrets, "readable_by_others_in_the_fleet", lambda _: (0, []))
    return tmp_path / ".lab/unit/inventory.yml"


def silent(_: object) -> None:
    raise click.ClickException("the Hub is silent")


def all_of(inventory: Path) -> set[str]:
    """Every secret that is in the vault now, its passwords, and the canaries."""
    path, password = inventory.parent / "group_vars/lab/vault.yml", read_password(inventory)
    values = yaml.safe_load(vault_lib(password).decrypt(path.read_bytes())).values()
    texts = [inner for each in values for inner in (each.values() if isinstance(each, dict) else [each])]
    return {*texts, password, *CANARIES}


@pytest.mark.parametrize(
    ("words", "crash"),
    [*((words, False) for words in COMMANDS), *((words, True) for words in WRITING)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "crash" if value else "",
)
def test_no_secret_comes_out(
    inventory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    words: list[str],
    crash: bool,
) -> None:
    told: list[str] = []
    real = subprocess.Popen.__init__

    def started(self: Any, arguments: Any, *rest: Any, **more: Any) -> None:
        told.append(json.dumps([arguments, {**(more.get("env") or {}), "EDITOR": ""}], default=str))
        real(self, arguments, *rest, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", started)
    for module in (vault, rotate):
        monkeypatch.setattr(module, "acted", lambda what, **values: told.append(json.dumps([what, values])))
    if crash:

        def crashes(*_: object) -> None:
            raise RuntimeError("out of order")

        for name in ("replace", "seal", "opened"):
            monkeypatch.setattr(store, name, crashes)
    before = all_of(inventory)
    with caplog.at_level(logging.DEBUG):
        done = CliRunner().invoke(
            main,
            [
                *("--inventory", str(inventory), "secrets"),
                *(str(tmp_path / word) if word in ("NEW", "BAD") else word for word in words),
            ],
        )
    told += [done.output, caplog.text]
    if done.exc_info is not None:
        told += traceback.format_exception(*done.exc_info)
    found = [place for secret in before | all_of(inventory) for place in told if secret in place]
    assert found == []


def test_a_terminal_is_shown_one_value(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts: list[str] = []
    monkeypatch.setattr(vault, "acted", lambda what, **values: acts.append(f"{what} {values}"))
    monkeypatch.setattr(vault, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    done = CliRunner().invoke(
        main, ["--inventory", str(inventory), "secrets", "view", "--show", "vault_broker"]
    )
    assert done.output == f"{CANARIES[0]}\n"
    assert acts == ["secret.shown {'name': 'vault_broker'}"]
