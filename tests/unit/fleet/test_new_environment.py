"""A new environment is made whole, or nothing of it is; what is wrong is told at once."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import new_environment
from deploy.fleet.inventory import resolve
from deploy.fleet.settings import check
from deploy.fleet.vault_password import password_file
from deploy.new_environment import NewEnvironmentError, Wanted, make

SIGNER = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvYmJ5Ym9iYnlib2JieWJvYmJ5Ym9iYnlib2JieWJv release@example.org\n"
)


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    for name, text in (("key", "x"), ("known_hosts", "x"), ("signer.pub", SIGNER)):
        (tmp_path / name).write_text(text)
    return Wanted(
        "eu",
        ["10.9.9.1"],
        ["10.9.9.3"],
        ["10.9.9.2", "10.9.9.4"],
        ["10.9.9.0/24"],
        ["10.9.9.200"],
        6000001,
        ["EURUSD"],
        str(tmp_path / "key"),
        str(tmp_path / "known_hosts"),
        [tmp_path / "signer.pub"],
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Where the environment gets its place."""
    made = tmp_path / "project"
    made.mkdir()
    return made


def there(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}


def test_what_is_made_can_be_deployed(wanted: Wanted, project: Path) -> None:
    made = make(wanted, project, reach=False)
    assert there(project) == {
        *("inventory/eu.py", "inventory/eu.yml"),
        *(f"group_vars/eu/{name}.yml" for name in ("main", "keys", "vault")),
    }
    inventory = project / "inventory/eu.yml"
    assert made[-1] == inventory, "the inventory is what makes it an environment"
    assert stat.S_IMODE(password_file(inventory).stat().st_mode) == 0o600
    shutil.move(project / "group_vars", project / "inventory/group_vars")  # where Ansible looks in a test
    fleet = resolve(inventory, {"fleet_bundle": "README.md"})
    assert (fleet.environment, check(fleet)) == ("eu", [])
    assert [fleet.hosts[host]["fleet_magic_number"] for host in fleet.in_group("inf")] == [202401, 202402]
    assert fleet.hosts["eu-gtw-01"]["gateway_limits"]["202401"]["dry_run"] is True


def test_everything_that_is_wrong_is_told_at_once(wanted: Wanted, project: Path) -> None:
    wrong = replace(
        wanted, name="Hub", networks=["10.9.9.1/24"], ssh_key="/no/key", signers=[Path("/no.pub")]
    )
    with pytest.raises(NewEnvironmentError) as told:
        make(wrong, project)
    lines = str(told.value).splitlines()
    assert [line.partition(":")[0].partition(" is ")[0] for line in lines] == [
        "'Hub'",
        "--network 10.9.9.1/24",
        "--ssh-key /no/key",
        "--signer /no.pub",
    ]
    assert there(project) == set()


def test_what_a_deployment_would_refuse_is_refused_before_anything_is_there(
    wanted: Wanted, project: Path, tmp_path: Path
) -> None:
    with pytest.raises(NewEnvironmentError, match=r"192\.0\.2\.9 is a placeholder"):
        make(replace(wanted, hub=["192.0.2.9"]), project, reach=False)
    assert (there(project), (tmp_path / "config").exists()) == (set(), False)


def test_hosts_that_do_not_let_in_are_named(
    wanted: Wanted, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(variables: dict[str, str], *_words: object, **_options: object) -> object:
        good = variables["ansible_host"] != "10.9.9.4"
        return new_environment.ssh.Reply(0 if good else None, "", "" if good else "Connection refused")

    monkeypatch.setattr(new_environment.ssh, "run", run)
    with pytest.raises(NewEnvironmentError, match=r"^eu-inf-02 \(10\.9\.9\.4\) does not let in: "):
        make(wanted, project)
    assert there(project) == set()


@pytest.mark.parametrize("place", ["inventory/eu.yml", "group_vars/eu/main.yml", "inventory/eu.py"])
def test_nothing_is_replaced(wanted: Wanted, project: Path, place: str) -> None:
    (project / place).parent.mkdir(parents=True)
    (project / place).write_text("mine")
    with pytest.raises(NewEnvironmentError, match="exists already; nothing is replaced"):
        make(wanted, project, reach=False)
    assert there(project) == {place}


def test_interrupted_it_leaves_nothing(
    wanted: Wanted, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, moved = shutil.move, []

    def third_fails(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 3:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(shutil, "move", third_fails)
    with pytest.raises(KeyboardInterrupt):
        make(wanted, project, reach=False)
    assert there(project) == set()
    assert not (tmp_path / "config/mt5crs/vault-password-eu").exists()
