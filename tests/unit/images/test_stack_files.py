"""What a stack is given: secrets of its own, an access list, and one place for addresses and ports."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from deploy.controller import programs
from images import build, checks, cli, stack
from images.errors import ImageError
from images.services import SERVICES, USER
from images.stack_files import DEFAULT_NAME, Stack, operator_settings, prepare
from lab import machine
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.protocol.curve import public_of
from mt5crs.settings import envfile
from mt5crs.settings.schema import load
from tests.unit.images.test_build import with_bundle
from tests.unit.release.test_provenance import Release

NETWORK = "10.203.9.0/24"


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Who the files are given to, in turn; who runs the tests may give nothing away."""
    given: list[int] = []
    monkeypatch.setattr(os, "fchown", lambda _file, user, _group: given.append(user))
    return given


def prepared(directory: Path, name: str = "mt5crs-x") -> Stack:
    own = Stack.of(directory, name)
    prepare(own, "1.2.3-abc", lambda: NETWORK, lambda count: range(20_000, 20_000 + count))
    return own


def test_each_secret_is_private_and_given_to_who_reads_it(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    secrets = list((own.directory / "secrets").iterdir())
    assert {path.name for path in secrets} == {"gateway", "reconciler", "strategy", "ops"}
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    assert owners.count(USER) == len(SERVICES)
    assert {
        path.stat().st_mode & 0o777
        for path in (own.directory.parent, own.directory, own.directory / "secrets")
    } == {0o700}


def test_the_access_list_has_public_keys_and_where_they_are_used(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    told = json.loads((own.directory / "access/access.json").read_text())
    for name, client in told["clients"].items():
        assert client["key"] == public_of((own.directory / "secrets" / name).read_text().strip())
    assert {name: client.get("addresses") for name, client in told["clients"].items()} == {
        "reconciler": ["10.203.9.3"], "strategy": ["10.203.9.4"], "ops": None,
    }  # fmt: skip
    permissions = {name: client["permissions"] for name, client in told["clients"].items()}
    assert permissions == {"reconciler": ["observe"], "strategy": ["trade"], "ops": ["observe", "administer"]}


def test_a_second_start_keeps_keys_network_ports_and_own_settings(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    (own.directory / "gateway.env").write_text("LOG_LEVEL=DEBUG\n")
    before = {path: path.read_text() for path in own.directory.rglob("*") if path.is_file()}
    prepare(own, "1.2.4-def", lambda: pytest.fail("a network again"), lambda _: pytest.fail("ports again"))  # type: ignore[arg-type]
    after = {path: path.read_text() for path in own.directory.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after[path]} == {"stack.env"}
    assert after[own.settings] == before[own.settings].replace("1.2.3-abc", "1.2.4-def")


def test_only_the_stack_of_the_documentation_has_the_usual_ports(tmp_path: Path, owners: list[int]) -> None:
    assert prepared(tmp_path, DEFAULT_NAME).values()["MT5CRS_PORT"] == "5555"
    assert prepared(tmp_path).values()["MT5CRS_PORT"] == "20000"


def test_an_operators_settings_are_what_commands_read(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    assert envfile.read(own.operator) == operator_settings(own, own.values())
    made = load(ConnectionSettings, envfile.read(own.operator))
    assert (made.gateway_host, made.gateway_port, made.client_name) == ("127.0.0.1", 20_000, "ops")
    assert made.client_secret_key == (own.directory / "secrets/ops").read_text().strip()


def test_compose_yml_finds_all_that_it_asks_for(tmp_path: Path, owners: list[int]) -> None:
    """And what it runs is confined in every service."""
    text = stack.COMPOSE.read_text()
    asked = set(re.findall(r"\$\{(MT5CRS_\w+)", text))
    assert asked == set(prepared(tmp_path).values())
    services = yaml.safe_load(text)["services"]
    assert set(services) == {each.name for each in SERVICES}
    for name, service in services.items():
        assert (service["read_only"], service["cap_drop"], service["user"]) == (
            True,
            ["ALL"],
            f"{USER}:{USER}",
        )
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["secrets"] == [name]
        assert {"mem_limit", "cpus", "pids_limit"} <= set(service)
        assert [port for port in service["ports"] if not port.startswith("127.0.0.1:")] == []
    assert services["strategy"]["depends_on"]["reconciler"] == {"condition": "service_healthy"}


GOOD = {
    "uid": ["10001"] * 4, "capabilities": [0, 0, 0], "privileges": "1", "written": [], "read_only": True,
    "secrets": {"gateway": ["0o600", USER]}, "programs": ["mt5crs", "python3", "python3.13"],
    "environment": ["GATEWAY_SECRET_KEY_FILE=/run/secrets/gateway", "LC_ALL=C.UTF-8", ""],
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"uid": ["0", "0", "0", "0"]}, "runs as user 0"),
        ({"capabilities": [0, 0, 1024]}, "has capabilities"),
        ({"privileges": "0"}, "may gain privileges"),
        ({"read_only": False}, "root file system can be written"),
        ({"written": ["/etc"]}, "can write to /etc"),
        ({"secrets": {"gateway": ["0o644", USER]}}, "not one of mode 0600"),
        ({"secrets": {"gateway": ["0o600", USER], "strategy": ["0o600", USER]}}, "not one of mode 0600"),
        ({"programs": ["mt5crs", "python3", "python3.13", "sh"]}, "has programs"),
        ({"environment": ["GATEWAY_SECRET_KEY=abc"]}, "environment holds GATEWAY_SECRET_KEY"),
    ],
)
def test_what_a_container_may_not_is_said(wrong: dict[str, object], said: str) -> None:
    assert checks.confinement_problems(GOOD, "gateway") == []
    (problem,) = checks.confinement_problems(GOOD | wrong, "gateway")
    assert said in problem


@pytest.mark.parametrize("name", ["stack", "mt5crs-", "mt5crs-A", "mt5crs-../x"])
def test_a_name_that_podman_would_not_take_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="no name of a stack"):
        Stack.of(tmp_path, name)


def test_a_stack_that_was_never_started_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["down", "--name", "mt5crs-never"]) == 1
    assert "mt5crs-never was never started" in capsys.readouterr().err


def test_images_that_were_tampered_with_are_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(with_bundle(tmp_path))
    release.images.write_bytes(b"other" * 100)
    (tmp_path / build.LATEST).write_text(json.dumps({"file": release.images.name, "tag": "t"}))
    monkeypatch.setattr(build, "signing_key", lambda _root: release.key)
    monkeypatch.setattr(stack, "_connected", lambda _stack: pytest.fail("podman was asked"))
    assert cli.main(["--out", str(tmp_path), "up", "--name", "mt5crs-x"]) == 1
    said = capsys.readouterr().err
    assert "images.tar is not the file that was signed" in said
    assert "do not use it" in said


def test_without_podman_it_says_what_brings_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(with_bundle(tmp_path))
    (tmp_path / build.LATEST).write_text(json.dumps({"file": release.images.name, "tag": "t"}))
    monkeypatch.setattr(build, "signing_key", lambda _root: release.key)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "require", lambda name: programs.require(f"{name}-that-is-missing"))
    assert cli.main(["--out", str(tmp_path), "up", "--name", "mt5crs-x"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("images: podman-that-is-missing is missing: ")
    assert said.count("\n") == 1


def test_a_signing_key_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(with_bundle(tmp_path))
    (tmp_path / build.LATEST).write_text(json.dumps({"file": release.images.name, "tag": "t"}))
    monkeypatch.setenv("MT5CRS_SIGNING_KEY", str(tmp_path / "missing"))
    assert cli.main(["--out", str(tmp_path), "up", "--name", "mt5crs-x"]) == 1
    assert "names" in (said := capsys.readouterr().err)
    assert "which is no file. Put the release key there" in said
