"""`replace`: what it writes, in which order, and that it goes on wherever it ended. No host is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.commands import replace as command
from deploy.commands import replacement_course as course
from deploy.commands import replacement_evidence as evidence
from deploy.decommission import on_host, replaced
from deploy.decommission.replacing import Seen
from deploy.fleet.inventory import Fleet, resolve
from mt5crs.__main__ import main
from tests.unit.fleets import EXTRA, make_inventory

WORDS = ("replace", "gtw-01", "gtw-02", "10.9.9.15", "--reason", "its disk died", "--yes")
OLD = "10.9.9.14"


class Hosts:
    """In place of the hosts: what was asked of them, in order, and how the deployments end."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.deployments = [0]
        self.dead = False

    def deploy(self, words: list[str]) -> int:
        self.done.append("deploy")
        assert "alerts=report" in words or any('"fleet_alerts_firing": "report"' in one for one in words)
        return self.deployments.pop(0)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hosts:
    made = Hosts()

    @contextmanager
    def alone(_fleet: Fleet, _why: str) -> Iterator[None]:
        yield

    def look(_fleet: Fleet, _after: Fleet | None, renaming: Any, **told: Any) -> Seen:
        down = "no route" if made.dead else None
        return Seen(renaming.former, renaming.new, renaming.address, down, own_files=told["own"])

    def act(what: str) -> Any:
        return lambda *_of: made.done.append(what)

    def call(_fleet: Fleet, host: str, verb: str, *_words: str, **_stdin: str) -> dict[str, Any]:
        if verb == "list":
            return {"backups": []}
        made.done.append(f"{verb} {host}")
        return {"content": ""}

    monkeypatch.setattr(course, "alone_for", alone)
    monkeypatch.setattr(evidence, "look", look)
    monkeypatch.setattr(command, "statuses", lambda _fleet: {})
    monkeypatch.setattr(course, "deploy", made.deploy)
    monkeypatch.setattr("deploy.backup.storing.call", call)
    monkeypatch.setattr("deploy.fleet.settings.check", missing_keys)
    monkeypatch.setattr(
        "deploy.policy.enforcing.verdict_of", lambda *_a, **_k: type("", (), {"refusing": []})
    )
    monkeypatch.setattr(replaced, "DIRECTORY", tmp_path / "replaced")
    for what in ("fence", "remove"):
        monkeypatch.setattr(on_host, what, act(what))
    return made


def missing_keys(fleet: Fleet) -> list[str]:
    """What a deployment would refuse: who has no key of the new gateway, or the gateway no secret one."""
    return [str(one) for one in fleet.unresolved if "key" in one.name]


def run(inventory: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["--inventory", str(inventory), *WORDS, *more])


def everything(inventory: Path) -> Mapping[str, bytes]:
    return {str(path): path.read_bytes() for path in inventory.parent.rglob("*") if path.is_file()}


def test_another_machine_takes_its_place_and_all_that_refers_to_it_does(hosts: Hosts, tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    own = inventory.parent / "host_vars" / "inf-02.yml"
    own.parent.mkdir()
    own.write_text("fleet_gateway: gtw-01  # ours\n")
    before = everything(inventory)
    looked = run(inventory, "--dry")
    assert looked.exit_code == 0, looked.output
    assert "gtw-02 at 10.9.9.15 takes the place of gtw-01 at 10.9.9.14" in looked.output
    assert "no boot starts it again" in looked.output
    assert (everything(inventory), hosts.done) == (before, [])

    done = run(inventory)
    assert done.exit_code == 0, done.output
    assert hosts.done == ["fence", "take gtw-01", "restore gtw-02", "deploy", "fence", "remove"]
    groups = yaml.safe_load(inventory.read_text())["lab"]["children"]
    assert groups["gateway"]["hosts"] == {"gtw-02": {"ansible_host": "10.9.9.15"}}
    assert own.read_text() == "fleet_gateway: gtw-02  # ours\n"
    fleet = resolve(inventory, EXTRA)
    keys = fleet.hosts["inf-02"]["fleet_gateway_public_keys"]
    assert keys.keys() == {"gtw-02"}
    assert fleet.hosts["inf-02"]["reconciler_gateway_public_key"] == keys["gtw-02"]
    again = run(inventory)
    assert (again.exit_code, "already (phase done)" in again.output) == (0, True)
    assert hosts.done[6:] == []


def test_what_failed_goes_on_where_it_ended(hosts: Hosts, tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    hosts.deployments = [1, 0]
    failed = run(inventory)
    assert failed.exit_code == 1
    assert "gtw-01 stays stopped" in failed.output
    assert "call this again" in failed.output
    hosts.done.clear()
    done = run(inventory)
    assert done.exit_code == 0, done.output
    assert hosts.done == ["deploy", "fence", "remove"]


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_killed_while_it_writes_it_goes_on(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Inventory, the variables of an Inf, keys: whichever is the last that was written."""
    inventory = make_inventory(tmp_path)
    own = inventory.parent / "host_vars" / "inf-02.yml"
    own.parent.mkdir()
    own.write_text("fleet_gateway: gtw-01\n")
    with monkeypatch.context() as patch:
        left = [nth]

        def killed(real: Any) -> Any:
            def act(*of: Any, **told: Any) -> Any:
                if "reports" not in str(of[0]) and "replaced" not in str(of[0]):
                    left[0] -= 1
                    if left[0] == 0:
                        raise KeyboardInterrupt
                return real(*of, **told)

            return act

        from deploy import keys
        from deploy.fleet import restoring

        patch.setattr(restoring, "write", killed(restoring.write))
        patch.setattr(keys, "make", killed(keys.make))
        assert run(inventory).exit_code != 0
    done = run(inventory)
    assert done.exit_code == 0, done.output
    assert own.read_text() == "fleet_gateway: gtw-02\n"
    assert missing_keys(resolve(inventory, EXTRA)) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("gtw-1", "gtw-02", "10.9.9.15"), "no gateway gtw-1"),
        (("inf-01", "gtw-02", "10.9.9.15"), "no gateway inf-01"),
        (("gtw-01", "inf-01", "10.9.9.15"), "inf-01 is in the inventory already"),
        (("gtw-01", "gtw-02", "gtw-02.example"), "is no address"),
        (("gtw-01", "gtw-02", "10.9.9.15", "--no-backup"), "go with --lost"),
        (("gtw-01", "gtw-02", "10.9.9.15", "--lost"), "answers, so it is not lost"),
    ],
)
def test_a_wrong_word_changes_nothing(hosts: Hosts, tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    inventory = make_inventory(tmp_path)
    before = everything(inventory)
    asked = ["--inventory", str(inventory), "replace", *words, "--reason", "its disk died", "--yes"]
    refused = CliRunner().invoke(main, asked)
    assert refused.exit_code != 0
    assert why in refused.output
    assert (everything(inventory), hosts.done) == (before, [])


def test_variables_of_the_former_alone_are_named_first(hosts: Hosts, tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    own = inventory.parent / "host_vars" / "gtw-01.yml"
    own.parent.mkdir()
    own.write_text("gateway_log_level: DEBUG\n")
    refused = run(inventory)
    assert (refused.exit_code, "copy it for gtw-02" in refused.output) == (1, True)
    own.with_name("gtw-02.yml").write_bytes(own.read_bytes())
    assert run(inventory).exit_code == 0
    assert hosts.done[0] == "fence"


def test_one_that_is_lost_is_emptied_when_it_answers_after_all(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = make_inventory(tmp_path)
    hosts.dead = True
    answers = type("", (), {"status": None})()
    monkeypatch.setattr("deploy.remote.ssh.run", lambda *_a, **_k: answers)
    done = run(inventory, "--lost", "--no-backup")
    assert done.exit_code == 0, done.output
    assert hosts.done == ["begin gtw-02", "deploy"]
    assert "secrets rotate broker" in done.output
    answers.status = 0
    assert run(inventory, "--lost").exit_code == 0
    assert hosts.done[2:] == ["fence", "remove"]
