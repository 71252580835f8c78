"""`mt5crs … secrets rotate`: each kind replaces what it is about and nothing else, and shows no secret."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.commands import rotate as command
from deploy.commands.named_fleet import of_fleet
from deploy.fleet.curve import pair, public_half
from deploy.fleet.inventory import resolve
from deploy.fleet.vault_password import read_password, vault_lib
from deploy.vaults import store
from mt5crs.__main__ import main
from mt5crs.hub import signature
from mt5crs.local_fleet.rehearsal import Fleet
from mt5crs.operate.gateways import ask
from tests.unit.fleets import EXTRA, make_inventory
from tests.unit.operate.test_gateways import halt
from tests.unit.operate.test_gateways import inventory as two_gateways

CANARY = "Hunter2Canary"
NEW = "New2CanaryHunter"
SIGNING = f"whsec_{'Canary2s' * 5}"
WATCH_SIGNING = f"whsec_{'Watch2sx' * 5}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inventory = make_inventory(tmp_path_factory.mktemp("made"))
    beside = inventory.parent / "group_vars"
    (beside / "gateway.yml").write_text('gateway_mt5_password: "{{ vault_broker }}"\n')
    (beside / "hub.yml").write_text(
        'monitoring_webhook_url: "{{ vault_channel }}"\nhub_webhook_secret: "{{ vault_signing }}"\n'
    )
    (beside / "inf.yml").write_text('monitoring_hub_watch_secret: "{{ vault_watch_signing }}"\n')
    text = opened(inventory)
    more = f"vault_broker: {CANARY}  # since May\nvault_channel: https://example.org/{CANARY}\n"
    more += f"vault_signing: {SIGNING}\nvault_watch_signing: {WATCH_SIGNING}\n"
    vault_of(inventory).write_bytes(store.seal(text + more, read_password(inventory)))
    return inventory


@pytest.fixture
def inventory(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parents[1], tmp_path / ".lab")
    return tmp_path / ".lab/unit/inventory.yml"


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(command, "acted", lambda what, **values: told.append((what, values)))
    return told


def vault_of(inventory: Path) -> Path:
    return inventory.parent / "group_vars/lab/vault.yml"


def opened(inventory: Path) -> str:
    return bytes(vault_lib(read_password(inventory)).decrypt(vault_of(inventory).read_bytes())).decode()


def files(inventory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in inventory.parent.rglob("*") if path.is_file()}


def run(inventory: Path, *words: str) -> Result:
    done = CliRunner().invoke(main, ["--inventory", str(inventory), "secrets", "rotate", *words])
    texts = [*yaml.safe_load(opened(inventory)).values(), read_password(inventory), CANARY, NEW]
    values = [inner for each in texts for inner in (each.values() if isinstance(each, dict) else [each])]
    assert not [value for value in values if value in done.output], "a secret is shown"
    return done


def test_a_clients_key_is_replaced_and_what_follows_is_told(
    inventory: Path, acts: list[tuple[str, dict[str, Any]]]
) -> None:
    before = yaml.safe_load(opened(inventory))
    done = run(inventory, "client", "inf-01-strategy")
    assert done.exit_code == 0, done.output
    assert "made  client inf-01-strategy" in done.output
    assert "while the deployment is at it, both" in done.output
    assert "site.yml" in done.output
    after = yaml.safe_load(opened(inventory))
    changed = {
        name
        for name, key in after["vault_client_secret_keys"].items()
        if key != before["vault_client_secret_keys"][name]
    }
    assert changed == {"inf-01-strategy"}
    assert "# since May" in opened(inventory)
    assert acts == [("secret.rotated", {"kind": "client", "names": ["inf-01-strategy"]})]


@pytest.mark.parametrize(
    "words",
    [
        ("client", "all"),
        ("gateway", "gtw-01"),
        ("vault",),
        ("broker",),
        ("webhook", "hub-01"),
        ("webhook-secret",),
        ("hub-watch-secret",),
    ],
)
def test_a_plan_changes_nothing(
    inventory: Path, acts: list[tuple[str, dict[str, Any]]], words: tuple[str, ...]
) -> None:
    before = files(inventory)
    done = run(inventory, *words, "--plan")
    assert done.exit_code == 0, done.output
    assert (files(inventory), acts) == (before, [])


@pytest.mark.parametrize(
    ("kind", "entry", "first"),
    [
        ("webhook-secret", "vault_signing", SIGNING),
        ("hub-watch-secret", "vault_watch_signing", WATCH_SIGNING),
    ],
)
def test_a_new_secret_signs_beside_the_one_before_and_no_other(
    inventory: Path, acts: list[tuple[str, dict[str, Any]]], kind: str, entry: str, first: str
) -> None:
    kept = [first]
    for _ in range(2):
        done = run(inventory, kind)
        assert done.exit_code == 0, done.output
        assert "the old one ends when the receiver takes it no more" in done.output
        new, *former = yaml.safe_load(opened(inventory))[entry].split(" ")
        assert former == kept[-1:]
        assert len(signature.keys(new)[0]) == 32
        kept.append(new)
        assert not [each for each in kept if each in done.output]
    assert acts == [("secret.rotated", {"kind": kind, "names": [entry]})] * 2


def test_all_clients_at_once(inventory: Path, acts: object) -> None:
    before = yaml.safe_load(opened(inventory))["vault_client_secret_keys"]
    done = run(inventory, "client", "all")
    assert done.output.count("made  client") == len(before) == 7
    after = resolve(inventory, EXTRA).hosts["hub-01"]
    for name, key in after["vault_client_secret_keys"].items():
        assert key != before[name]
        assert public_half(key) == after["fleet_client_public_keys"][name]
    assert "take the old key of ops until the new one is deployed" in done.output
    assert after["vault_client_former_secret_keys"] == {"ops": before["ops"]}


def test_a_gateways_plan_says_who_misses_it_and_the_former_key_stays_known(
    inventory: Path, acts: object
) -> None:
    before = resolve(inventory, EXTRA).hosts["gtw-01"]["fleet_gateway_public_keys"]
    done = run(inventory, "gateway", "gtw-01")
    assert done.exit_code == 0, done.output
    assert "the Inf hosts come before the gateway and take both keys" in done.output
    assert "site.yml\n" in done.output
    after = resolve(inventory, EXTRA).hosts["gtw-01"]
    assert after["fleet_gateway_former_public_keys"] == before
    assert run(inventory, "gateway", "gtw-01").exit_code == 0
    twice = resolve(inventory, EXTRA).hosts["gtw-01"]["fleet_gateway_former_public_keys"]["gtw-01"]
    assert twice == f"{after['fleet_gateway_public_keys']['gtw-01']} {before['gtw-01']}", (
        "none is deployed yet"
    )
    assert after["fleet_gateway_public_keys"] != before


@pytest.mark.parametrize(
    ("former_operator", "former_gateway"), [(True, False), (False, True), (True, True), (False, False)]
)
def test_a_halt_gets_through_between_a_rotation_and_its_deployment(
    fleet: Fleet, former_operator: bool, former_gateway: bool
) -> None:
    fleet.start_ready("gateway")
    deployed = two_gateways(fleet).hosts["gtw-01"]
    rotated: dict[str, Any] = {}
    if former_operator:  # twice, in fact
        rotated["vault_client_former_secret_keys"] = {"ops": f"{pair()[1]} {fleet.secrets['ops']}"}
        rotated["vault_client_secret_keys"] = {"ops": pair()[1]}
    if former_gateway:
        rotated["fleet_gateway_former_public_keys"] = deployed["fleet_gateway_public_keys"]
        rotated["fleet_gateway_public_keys"] = {"gtw-01": pair()[0], "gtw-02": pair()[0]}
    (target, _) = of_fleet(two_gateways(fleet, **rotated), None)
    (answer,) = ask([target], halt)
    assert answer.value is not None, answer.error
    (answer,) = ask([replace(target, formers=())], halt)
    assert (answer.value is None) is (former_operator or former_gateway)
    assert (
        "GATEWAY_PUBLIC_KEY" in answer.error or "refuses the key" in answer.error or answer.value is not None
    )


def test_the_vaults_password_is_replaced(inventory: Path, acts: list[tuple[str, dict[str, Any]]]) -> None:
    old, text = read_password(inventory), opened(inventory)
    done = run(inventory, "vault")
    assert done.exit_code == 0, done.output
    assert (read_password(inventory) != old, opened(inventory)) == (True, text)
    assert old not in done.output
    assert str(inventory.parent / "vault-password.former") in done.output
    assert acts == [("vault.rekeyed", {"files": ["vault.yml"]})]


@pytest.mark.parametrize("name", [[], ["gtw-01"], ["vault_broker"]])
def test_the_brokers_password_comes_from_a_file_of_ones_own(
    inventory: Path, tmp_path: Path, acts: list[tuple[str, dict[str, Any]]], name: list[str]
) -> None:
    given = tmp_path / "new"
    given.write_text(f"{NEW}\n")
    given.chmod(0o600)
    done = run(inventory, "broker", *name, "--from-file", str(given))
    assert done.exit_code == 0, done.output
    assert "vault_broker: gateway_mt5_password of gtw-01" in done.output
    assert f'vault_broker: "{NEW}"  # since May\n' in opened(inventory)
    assert acts == [("secret.rotated", {"kind": "broker", "names": ["vault_broker"]})]


def test_it_is_asked_for_without_echo(inventory: Path, acts: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def prompt(_text: str, **options: Any) -> str:
        asked.update(options)
        return NEW

    monkeypatch.setattr(command.click, "prompt", prompt)
    terminal = type("Terminal", (), {"isatty": staticmethod(lambda: True)})
    monkeypatch.setattr(command, "sys", type("Sys", (), {"stdin": terminal}))
    assert run(inventory, "broker").exit_code == 0
    assert (asked["hide_input"], asked["confirmation_prompt"], asked["err"]) == (True, True, True)
    assert NEW in opened(inventory)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["broke"], "did you mean broker?"),
        (["cafe"], "there are broker, client"),
        (["client", "inf-01-strategie"], "did you mean inf-01-strategy?"),
        (["gateway", "gtw-1"], "did you mean gtw-01?"),
        (["broker", "gtw-02"], "did you mean gtw-01?"),
        (["broker"], "no terminal to ask"),
        (["watchdog"], "no host has monitoring_watchdog_url from the vault"),
        (["windows-account"], "no host has baseline_windows_account_password"),
        (["broker", "--from-file", "open"], "chmod 600"),
        (["broker", "--from-file", "empty"], "must hold the secret and nothing else"),
        (["broker", "--from-file", "two"], "must hold the secret and nothing else"),
        (["broker", "--from-file", "same"], "is the value that vault_broker has already"),
        (["broker", "--from-file", "quote"], "cannot be written to .env"),
        (["broker", "--from-file", "braces"], "an expression for Ansible"),
        (["broker", "--from-file", "none"], "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    inventory: Path, tmp_path: Path, acts: list[object], words: list[str], said: str
) -> None:
    texts = {
        "open": NEW,
        "empty": "\n",
        "two": f"{NEW}\n{NEW}\n",
        "same": CANARY,
        "quote": f"{NEW}'",
        "braces": f"{NEW}{{{{",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644 if name == "open" else 0o600)
    before = files(inventory)
    done = run(
        inventory,
        *(
            str(tmp_path / word) if words[1:2] == ["--from-file"] and n == 2 else word
            for n, word in enumerate(words)
        ),
    )
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert (files(inventory), acts) == (before, [])


def test_without_a_vault_it_says_how_to_make_one(inventory: Path, acts: object) -> None:
    runner = CliRunner()
    vault_of(inventory).unlink()
    for words in (["vault"], ["client", "all"], ["gateway", "all"], ["broker"]):
        done = runner.invoke(main, ["--inventory", str(inventory), "secrets", "rotate", *words])
        assert done.exit_code == 1
        assert "secrets init" in done.output, words


def test_with_a_wrong_password_nothing_changes(inventory: Path, acts: object) -> None:
    (inventory.parent / "vault-password").write_text("another\n")
    before = files(inventory)
    for words in (["vault"], ["client", "all"], ["gateway", "all"], ["broker"]):
        done = CliRunner().invoke(main, ["--inventory", str(inventory), "secrets", "rotate", *words])
        assert (done.exit_code, done.output.count("Error")) == (1, 1), done.output
    assert files(inventory) == before
