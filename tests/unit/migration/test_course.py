"""Killed at any step, a move goes on when it is called again, or is taken back to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from deploy.commands import migrate, migration_course, migration_evidence
from deploy.fleet import restoring
from deploy.fleet.inventory import Fleet
from deploy.migration import journal, source
from mt5crs.operate.chosen import Chosen

HOST, OLD, NEW = "inf-02", "10.9.9.13", "10.9.9.82"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIARZfSSwWsf5iqe8LMXEmbjFXzi4Np+e23i1SQnVmw/U"


INVENTORY = f"""\
# the fleet
inf:
  hosts:
    {HOST}:
      ansible_host: {OLD}  # rack 4
"""


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it."""


class World:
    """The fleet's hosts, as far as a move sees them: what they were deployed with, what they send from."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.inventory = directory / "staging.yml"
        self.inventory.write_text(INVENTORY)
        self.known_hosts = self.inventory.with_name("known_hosts")
        self.known_hosts.write_text(f"{OLD} {KEY}\n")
        self.first = (self.inventory.read_bytes(), self.known_hosts.read_bytes())
        self.deployed, self.sends, self.acts = OLD, OLD, list[tuple[str, Any]]()
        self.fails: dict[str, bool] = {}
        self.steps, self.killed_at = 0, 0
        patch.setattr(migration_course, "deploy", self._step(self.deploy))
        patch.setattr(source, "send_from", self._step(self.send_from))
        patch.setattr(restoring, "write", self._step(restoring.write))
        patch.setattr(journal, "write", self._step(restoring.write.__wrapped__))  # type: ignore[attr-defined]
        patch.setattr(migration_course, "fleet_of", self.fleet)
        patch.setattr(migration_course, "statuses", lambda _fleet: {"hub-01": "not asked in this test"})
        patch.setattr(migration_course, "deploying", lambda _fleet: None)
        patch.setattr(migration_course, "decision_of", lambda *_: SimpleNamespace(results=()))
        patch.setattr(migration_course, "acted", lambda what, **told: self.acts.append((what, told)))
        patch.setattr(migration_course, "_GOOD_WITHIN_S", 0)
        patch.setattr(migration_evidence, "links", self.links)
        patch.setattr(migration_evidence, "quiet", lambda *_: {"value": {}})
        patch.setattr("deploy.fleet.vault_password.PROJECT", directory)
        patch.setattr(migrate, "_begin", self.begin)

    def _step(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            self.steps += 1
            if self.steps == self.killed_at:
                raise Killed
            done = act(*given, **named)
            self.steps += 1
            if self.steps == self.killed_at:
                raise Killed
            return done

        wrapped.__wrapped__ = act  # type: ignore[attr-defined]
        return wrapped

    def begin(self, *_given: Any, **_named: Any) -> journal.Journal:
        made = journal.Journal(
            id="1", inventory=str(self.inventory), host=HOST, old=OLD, new=NEW, who="me", reason="rack",
            began="then", known_hosts=str(self.known_hosts), added=[f"{NEW} {KEY}"], peers=["10.9.9.14"],
        )  # fmt: skip
        made.write()
        return made

    def fleet(self, inventory: Path) -> Fleet:
        of = {"fleet_address": self.address(), "fleet_gateway": "gtw-01"}
        return Fleet(inventory, "staging", {HOST: of}, {"inf": (HOST,)})

    def address(self) -> str:
        return NEW if NEW in self.inventory.read_text() else OLD

    def deploy(self, _command: object, **_: object) -> int:
        if self.fails.get(self.address()):
            return 1
        self.deployed = self.address()
        return 0

    def send_from(self, _host: object, address: str, _peers: object) -> str:
        self.sends = address
        return ""

    def links(self, *_: object) -> dict[str, list[dict[str, str]]]:
        works = self.deployed == self.sends == self.address() and not self.fails.get(f"link {self.deployed}")
        return {
            HOST: [{"name": "1", "verdict": "PASS" if works else "FAIL", "detail": f"from {self.deployed}"}]
        }

    def call(self, *words: str) -> Result:
        @click.group()
        @click.pass_context
        def root(context: click.Context) -> None:
            context.obj = Chosen(self.inventory)

        root.add_command(migrate.migrate)
        try:
            return CliRunner().invoke(root, ["migrate", HOST, NEW, *words], catch_exceptions=False)
        except Killed:
            return Result(CliRunner(), b"", b"", b"", None, 137, None)

    @property
    def moved(self) -> bool:
        return (self.deployed, self.sends, self.address()) == (NEW, NEW, NEW) and (
            f"{NEW} {KEY}" in self.known_hosts.read_text()
        )

    @property
    def restored(self) -> bool:
        files = (self.inventory.read_bytes(), self.known_hosts.read_bytes())
        return (self.deployed, self.sends, files) == (OLD, OLD, self.first)

    @property
    def open(self) -> bool:
        return journal.path_of(self.inventory).exists()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_move_that_goes_well(world: World) -> None:
    done = world.call()
    assert (done.exit_code, world.moved, world.open) == (0, True, False), done.output
    assert world.acts[0][0] == "host.migrated"
    (report,) = (world.inventory.parent / "reports/migrations").glob("*.json")
    assert '"moved"' in report.read_text()


@pytest.mark.parametrize("fault", [NEW, f"link {NEW}"])
def test_what_fails_is_taken_back(world: World, fault: str) -> None:
    world.fails[fault] = True
    done = world.call()
    assert (done.exit_code, world.restored, world.open) == (1, True, False), done.output
    assert "was taken back" in done.output


def test_what_cannot_be_taken_back_stays_open_until_it_can(world: World) -> None:
    world.fails |= {f"link {NEW}": True, OLD: True}
    done = world.call()
    assert (done.exit_code, world.open) == (1, True)
    assert "migrate inf-02 10.9.9.82 --undo" in done.output
    world.fails.clear()
    again = world.call("--undo")
    assert (again.exit_code, world.restored, world.open) == (1, True, False), again.output


@pytest.mark.parametrize("fault", ["", NEW])
@pytest.mark.parametrize("then", [(), ("--undo",)])
def test_killed_anywhere_it_is_kept_or_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, then: tuple[str, ...]
) -> None:
    killed = 0
    for at in range(1, 60):
        (tmp_path / str(at)).mkdir()
        with monkeypatch.context() as patch:
            world = World(tmp_path / str(at), patch)
            world.fails[fault] = bool(fault)
            world.killed_at = at
            first = world.call()
            if first.exit_code != 137:
                break
            killed += 1
            if not world.open:
                assert world.restored or world.moved  # before the journal was there, or after all was done
                continue
            world.killed_at = 0
            again = world.call(*then)
            assert not world.open, (at, again.output)
            assert world.moved if again.exit_code == 0 else world.restored, (at, again.output)
            assert again.exit_code == (1 if fault or then else 0), (at, again.output)
    assert killed > 10


def test_a_second_move_is_refused_while_one_is_open(world: World) -> None:
    world.killed_at = 6
    assert world.call().exit_code == 137
    with pytest.raises(AssertionError):
        assert not world.open
    made = journal.found(world.inventory)
    assert made is not None
    made.host = "inf-01"
    world.killed_at = 0
    made.write()
    refused = world.call()
    assert refused.exit_code == 1
    assert "inf-01 is moving to 10.9.9.82" in refused.output
    assert "--undo" in refused.output
