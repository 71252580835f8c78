"""Settings as files: what a deployment writes without its secrets, and older files read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from deploy.commands import config_exchange
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.layers import HIDDEN
from deploy.fleet.rendering import render
from mt5crs.__main__ import main
from mt5crs.settings.envfile import parse
from tests.unit.fleets import EXTRA, make_inventory


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    hosts = {"hub": ["hub-01"], "inf": ["inf-01"], "gateway": ["gtw-01"]}
    return resolve(make_inventory(tmp_path_factory.mktemp("exchange"), hosts), EXTRA)


@pytest.fixture
def run(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(config_exchange, "fleet_of", lambda _: fleet)

    def command(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(main, ["--inventory", str(fleet.inventory), "config", *words])
        return done.exit_code, done.stdout, done.stderr

    return command


def secrets_of(fleet: Fleet) -> list[str]:
    of = fleet.hosts["inf-01"]
    return [*of["vault_client_secret_keys"].values(), *of["vault_gateway_secret_keys"].values()]


def test_an_env_is_what_a_deployment_writes_without_its_secrets(run: Any, fleet: Fleet) -> None:
    status, text, _ = run("export", "inf-01", "--format", "env", "--service", "strategy")
    written = "".join(
        render(f"{place}/strategy.env.j2", fleet.hosts["inf-01"]) for place in ("env", "env/live")
    )
    assert status == 0
    assert parse(text.replace(HIDDEN, "x")) == {**parse(written), "CLIENT_SECRET_KEY": "x"}
    assert not [secret for secret in secrets_of(fleet) if secret in text]
    assert run("export", "inf-01", "--format", "env", "--service", "strategy", "--secrets")[1] == written
    both = run("export", "inf-01", "--format", "env")[1]
    assert "# reconciler.env of inf-01" in both
    assert "# strategy.env of inf-01" in both


def test_yaml_has_every_declared_setting_without_secrets(run: Any, fleet: Fleet) -> None:
    status, text, _ = run("export", "gtw-01")
    told = yaml.safe_load(text)
    assert status == 0
    assert told["gateway_port"] == 5555
    assert told["gateway_secret_key"] == HIDDEN
    assert not [secret for secret in secrets_of(fleet) if secret in text]
    shown = yaml.safe_load(run("export", "gtw-01", "--secrets")[1])
    assert shown["gateway_secret_key"] == fleet.hosts["gtw-01"]["gateway_secret_key"]


def test_an_exported_env_says_nothing_new(run: Any, tmp_path: Path) -> None:
    for name in ("strategy", "reconciler"):
        file = tmp_path / f"{name}.env"
        file.write_text(run("export", "inf-01", "--format", "env", "--service", name)[1])
        status, text, said = run("import", str(file), "--host", "inf-01")
        assert (status, text) == (0, f"# {file} says nothing else than the inventory does\n")
        assert f"{name}_client_secret_key is a secret" in said
        assert "STATE_DIR is decided by the deployment" in said


@pytest.mark.parametrize("host", ["hub-01", "inf-01", "gtw-01"])
def test_an_exported_yaml_says_nothing_new(run: Any, tmp_path: Path, host: str) -> None:
    file = tmp_path / "host.yml"
    file.write_text(run("export", host)[1])
    service = ["--service", "strategy"] if host == "inf-01" else []
    status, text, said = run("import", str(file), "--host", host, *service)
    assert (status, text) == (0, f"# {file} says nothing else than the inventory does\n"), said
    assert "gateway_mt5_password is a secret: it belongs into the vault (`secrets edit`)" in said


def test_what_is_encrypted_in_an_old_yaml_is_a_secret(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "old.yml"
    file.write_text("strategy_symbol: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\nstrategy_volume: 0.03\n")
    status, text, said = run("import", str(file), "--host", "inf-01", "--service", "strategy")
    assert (status, yaml.safe_load(text)) == (0, {"strategy_volume": 0.03})
    assert "strategy_symbol is a secret" in said


def test_an_old_env_gives_the_lines_for_host_vars(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "old.env"
    canary = "ab" * 32
    file.write_text(
        f"# of 2024\r\nSYNC_TIMEOUT_S=5\r\nSYNC_RETRY_COUNT=3\r\nMAGIC_NUMBER=202401\r\n"
        f"CLIENT_SECRET_KEY={canary}\r\nSTRATEGY_OPTIONS='{{\"a\": 1}}'\r\n"
    )
    status, text, said = run("import", str(file), "--host", "inf-01", "--service", "strategy")
    assert (status, yaml.safe_load(text)) == (
        0,
        {"strategy_sync_timeout_s": 5.0, "strategy_strategy_options": {"a": 1}},
    )
    assert "# now 3.0" in text
    assert canary not in text + said
    assert "strategy_client_secret_key is a secret" in said
    assert run("import", str(file), "--host", "inf-01")[0] == 2  # whose settings?


def test_an_old_yaml_may_have_either_kind_of_name(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yml"
    file.write_text("GATEWAY_PORT: '5599'\ngateway_queue_limit: 300\n")
    status, text, _ = run("import", str(file), "--host", "gtw-01")
    assert (status, yaml.safe_load(text)) == (0, {"gateway_port": 5599, "gateway_queue_limit": 300})


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (
            "a.env",
            "SYNC_TIMEOUT=5\nVOLUME=abc\n",
            (":1: SYNC_TIMEOUT is unknown; did you mean SYNC_TIM", ":2: "),
        ),
        ("a.env", "VOLUME 1\n", ("line 1",)),
        ("a.yml", "strategy_volume: '1'\nstrategy_volum: 1\n", (":1: ", ":2: strategy_volum is unknown")),
        ("a.env", "VOLUM=1\nFOO\nVOLUME=abc\n", (": line 2 is neither", ":1: VOLUM is unknown", ":3: ")),
        ("a.yml", "strategy_volume: 1\nstrategy_volume: 2\n", (":2: strategy_volume is there a second",)),
        ("a.env", "# nothing\n", ("has no setting in it",)),
        ("a.yml", "- 1\n", ("no mapping",)),
        ("a.yml", "a: [\n", (":2: no YAML",)),
        ("a.yml", "VOLUME: 1\nstrategy_volume: 1\n", (":2: strategy_volume is said a second time",)),
    ],
)
def test_every_mistake_is_told_with_its_line(
    run: Any, tmp_path: Path, name: str, content: str, why: tuple[str, ...]
) -> None:
    file = tmp_path / name
    file.write_text(content)
    status, text, said = run("import", str(file), "--host", "inf-01", "--service", "strategy")
    assert (status, text) == (1, "")
    assert "nothing was taken over" in said or "has no setting" in said
    assert not [part for part in why if part not in said], said


def test_wrong_words_are_one_sentence(run: Any) -> None:
    assert "did you mean inf-01" in run("export", "inf-1")[2]
    assert "has no host zzz; there are hub-01, inf-01, gtw-01\n" in run("export", "zzz")[2]
    assert "hub-01 has no strategy; it has hub" in run("export", "hub-01", "--service", "strategy")[2]
    assert "gtw-01 has no strategy" in run("export", "gtw-01", "--service", "strategy")[2]
