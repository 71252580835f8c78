"""Going back to an earlier configuration: the same bytes on every host, nothing let in that was not named."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.commands import config_history
from deploy.commands.config_history import Kept, kept
from deploy.coordination.audit_log import Log
from deploy.fleet import restoring
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.rendering import render
from deploy.fleet.snapshot import snapshot_of
from deploy.rollout.plan import has_service
from mt5crs.__main__ import main
from mt5crs_release.records.audit_chain import Head, records_of
from mt5crs_release.records.audit_log import AuditLog
from mt5crs_release.storage.paths import Host
from tests.unit.fleets import EXTRA, make_inventory

HOSTS = {"hub": ["hub-01"], "inf": ["inf-01"], "gateway": ["gtw-01"]}
LIMIT = "fleet_limits"
LIMITS = {
    "dry_run": False,
    "symbols": ["EURUSD"],
    "max_order_volume": 0.1,
    "max_position_volume": 1.0,
    "max_daily_loss": 500.0,
    "max_slippage_points": 50,
    "max_consecutive_failures": 5,
}


class History:
    """A fleet on this machine whose configuration changes, and the log of it."""

    def __init__(self, directory: Path) -> None:
        self.inventory = make_inventory(directory, HOSTS)
        self.log = AuditLog(Host(directory / "hub"))
        self.beside = self.inventory.parent
        self.names = [name for group in HOSTS.values() for name in group]
        given = yaml.safe_dump(EXTRA)
        for name in self.names:
            self.write(f"host_vars/{name}/own.yml", f"# what `make bundle` gives a lab\n{given}")

    def write(self, name: str, text: str) -> None:
        path = self.beside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def fleet(self) -> Fleet:
        return resolve(self.inventory)

    def deploy(self) -> dict[str, str]:
        """Record what is configured now; what would be on the hosts then."""
        fleet = self.fleet()
        self.log.append([{"what": "deployment.begun", "by": "jane"}], snapshot_of(fleet), "an-id")
        return rendered(fleet)

    def files(self) -> dict[str, str]:
        """Every file of variables beside the inventory that is no key's."""
        found = [path for kind in ("host_vars", "group_vars") for path in (self.beside / kind).rglob("*.yml")]
        return {str(path): path.read_text() for path in found if path.name not in ("keys.yml", "vault.yml")}

    def read(self, _: object = None) -> Log:
        head = self.log._read_head(strict=False)
        assert head is not None
        return Log(self.log.records.read_bytes(), self.log.snapshots.read_bytes(), Head(**head), (), {})

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["--inventory", str(self.inventory), "config", *words])


def rendered(fleet: Fleet) -> dict[str, str]:
    """Every file of every host, as its service's specification brings it."""
    services = ("gateway", "reconciler", "strategy", "monitoring", "baseline")
    return {
        f"{host} {service}": render(f"release/{service}.json.j2", fleet.hosts[host])
        for host in fleet.hosts
        for service in services
        if has_service(fleet, host, service)
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"))


@pytest.fixture
def history(prepared: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    prepared.log = AuditLog(Host(tmp_path / "hub"))
    for path in (prepared.beside / "host_vars").rglob("*.yml"):
        if path.name != "own.yml":
            path.unlink()
    monkeypatch.setattr(config_history, "log_of", prepared.read)
    monkeypatch.setattr(config_history, "acted", lambda *_, **__: None)
    return prepared


def random_change(rng: random.Random, history: History) -> None:
    """One file of variables anew: other values, another comment, or no file at all."""
    host = rng.choice(history.names)
    name = rng.choice(
        (f"host_vars/{host}/tuned.yml", f"host_vars/{host}/more.yml", "group_vars/lab/site.yml")
    )
    path = history.beside / name
    if path.exists() and rng.random() < 0.25:
        path.unlink()
        return
    values = {
        "gateway_queue_limit": rng.randrange(100, 999),
        "strategy_tick_interval_s": rng.choice((1.0, 2.5, 10.0)),
        "reconciler_sync_retry_count": rng.randrange(1, 9),
        "monitoring_retention_days": rng.randrange(1, 90),
        "baseline_journal_keep_days": rng.randrange(1, 90),
    }
    chosen = rng.sample(sorted(values), rng.randrange(1, 4))
    lines = [f"# change {rng.random()}: as it was typed,   spaces too", "---"]
    history.write(name, "\n".join([*lines, *(f"{one}:   {values[one]}" for one in chosen)]) + "\n")


def test_after_random_changes_every_configuration_comes_back_to_the_byte(history: History) -> None:
    rng = random.Random(20261130)  # noqa: S311 -- the same changes each time
    wanted, files = [history.deploy()], [history.files()]
    while len(wanted) < 5:
        random_change(rng, history)
        found = history.deploy()
        if history.log.snapshots.read_bytes().count(b"\n") > len(wanted):
            wanted.append(found)
            files.append(history.files())
    for number in (2, 5, 1):
        done = history.run("rollback", str(number), "--yes")
        assert done.exit_code == 0, done.output
        assert rendered(history.fleet()) == wanted[number - 1], f"configuration {number}"
        assert history.files() == files[number - 1], f"configuration {number}"
        assert "every setting is as in" in done.output or "already" in done.output


def test_a_limit_goes_back_only_by_name(history: History) -> None:
    history.write("host_vars/inf-01/limits.yml", yaml.safe_dump({LIMIT: {**LIMITS, "max_daily_loss": 900.0}}))
    history.deploy()
    tight = yaml.safe_dump({LIMIT: {**LIMITS, "max_daily_loss": 100.0}})
    history.write("host_vars/inf-01/limits.yml", tight)
    history.deploy()
    refused = history.run("rollback", "1", "--yes")
    assert refused.exit_code == 1
    assert "nothing was changed" in refused.output
    assert "--with fleet_limits" in refused.output
    assert '"max_daily_loss": 100.0' in refused.output
    assert (history.beside / "host_vars/inf-01/limits.yml").read_text() == tight
    assert history.run("rollback", "1", "--yes", "--with", LIMIT).exit_code == 0
    assert (history.run("rollback", "2", "--yes", "--with", "fleet_limit").exit_code) == 2
    assert (
        "did you mean fleet_limits?" in history.run("rollback", "2", "--yes", "--with", "fleet_limit").output
    )
    assert "900.0" in (history.beside / "host_vars/inf-01/limits.yml").read_text()


def test_it_asks_and_a_no_changes_nothing(history: History) -> None:
    history.write("host_vars/gtw-01/tuned.yml", "gateway_queue_limit: 300\n")
    history.deploy()
    history.write("host_vars/gtw-01/tuned.yml", "gateway_queue_limit: 400\n")
    done = history.run("rollback", "1")  # no answer: end of input
    assert done.exit_code == 1
    assert "-gateway_queue_limit: 400" in done.output
    assert "+gateway_queue_limit: 300" in done.output
    assert "what a deployment would restart is not known" in done.output  # README.md is no bundle
    assert (history.beside / "host_vars/gtw-01/tuned.yml").read_text() == "gateway_queue_limit: 400\n"
    told = json.loads(history.run("rollback", "1", "--json").output)
    assert told["files"] == ["inventory/host_vars/gtw-01/tuned.yml"]
    assert (history.beside / "host_vars/gtw-01/tuned.yml").read_text() == "gateway_queue_limit: 400\n"


def test_a_no_leaves_no_directory_and_a_yes_makes_it(history: History, tmp_path: Path) -> None:
    history.write("host_vars/gtw-01/tuned.yml", "gateway_queue_limit: 300\n")
    history.deploy()
    there = history.beside / "host_vars"
    away = there.rename(tmp_path / "away")
    try:
        assert history.run("rollback", "1").exit_code == 1  # no answer: end of input
        assert not there.exists()
        done = history.run("rollback", "1", "--yes", "--with", "baseline_release_signers")
        assert done.exit_code == 0, done.output
        assert (there / "gtw-01/tuned.yml").read_text() == "gateway_queue_limit: 300\n"
    finally:
        shutil.rmtree(there, ignore_errors=True)
        away.rename(there)


def test_a_broken_log_and_an_unknown_number_are_refused(history: History) -> None:
    history.write("host_vars/gtw-01/tuned.yml", "gateway_queue_limit: 300\n")
    history.deploy()
    done = history.run("rollback", "7")
    assert (done.exit_code, "has 1 to 1" in done.output) == (2, True)
    content = history.log.snapshots.read_bytes()
    history.log.snapshots.write_bytes(content.replace(b"queue_limit: 300", b"queue_limit: 999"))
    done = history.run("rollback", "1", "--yes")
    assert (done.exit_code, "the audit log is broken" in done.output) == (1, True)


def test_what_a_deployment_would_refuse_is_not_written(history: History) -> None:
    history.write("host_vars/gtw-01/tuned.yml", "gateway_queue_limit: 0\n")
    history.deploy()
    history.write("host_vars/gtw-01/tuned.yml", "gateway_queue_limit: 400\n")
    done = history.run("rollback", "1", "--yes")
    assert (done.exit_code, "a deployment would refuse 1" in done.output) == (1, True)
    assert (history.beside / "host_vars/gtw-01/tuned.yml").read_text() == "gateway_queue_limit: 400\n"


def test_secrets_keys_defaults_and_hosts_stay_as_they_are() -> None:
    text, secret = {"text": "a: 1\n"}, {"secret": "abcd", "why": "encrypted"}
    then: dict[str, Any] = {
        "group_vars/all/defaults.yml": text,
        "group_vars/all/main.yml": text,
        "inventory/group_vars/lab/keys.yml": {"text": "fleet_client_public_keys: {}\n"},
        "inventory/group_vars/lab/vault.yml": secret,
        "inventory/lab.yml": text,
        "policy/waivers/lab.yml": text,
        "host_vars/same.yml": secret,
    }
    now = {name: {"text": "b: 2\n"} for name in then} | {
        "inventory/group_vars/lab/vault.yml": {**secret, "secret": "ef01"},
        "host_vars/same.yml": secret,
    }
    made = restoring.plan(then, now)
    assert list(made.files) == ["group_vars/all/main.yml"]
    assert made.left == {
        "group_vars/all/defaults.yml": "it belongs to the code",
        "inventory/group_vars/lab/keys.yml": "keys go with their vault",
        "inventory/group_vars/lab/vault.yml": "then encrypted, so only its digest is kept",
        "inventory/lab.yml": "it is no file of variables",
        "policy/waivers/lab.yml": "it is no file of variables",
    }


def test_what_follows_from_a_named_setting_need_not_be_named() -> None:
    changed = ["fleet_limits", "gateway_limits", "baseline_ssh_sources"]
    assert restoring.to_be_named(changed, ["fleet_limits"]) == ["baseline_ssh_sources"]
    assert restoring.to_be_named(changed, changed) == []


def test_the_history_has_names_and_how_the_deployment_ended(history: History) -> None:
    history.deploy()
    history.write("host_vars/gtw-01/tuned.yml", "gateway_queue_limit: 300\n")
    history.deploy()
    history.log.append(
        [{"what": "deployment.ended", "by": "jane", "deployment": "an-id", "outcome": "failed"}]
    )
    found = kept(records_of(history.log.records.read_bytes()))
    assert [(one.n, one.changed, one.outcome) for one in found] == [
        (1, ("the first",), "failed"),
        (2, ("gateway_queue_limit",), "failed"),
    ]
    assert isinstance(found[0], Kept)
    text = history.run("history").output
    assert text.index("gateway_queue_limit") < text.index("the first")
    assert [one["n"] for one in json.loads(history.run("history", "--json").output)] == [1, 2]


def test_a_file_is_written_in_one_step_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "main.yml"
    restoring.write(path, "a: 1\n")
    path.chmod(0o600)
    restoring.write(path, "a: 2\r\n")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"a: 2\r\n", 0o600)
    restoring.write(path, None)
    restoring.write(path, None)
    assert list(path.parent.iterdir()) == []
