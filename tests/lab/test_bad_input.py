"""Bad input ends in one clear error and a non-zero exit status, and what ran before still runs."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lab import faults
from lab.state import PROJECT
from tests.lab.engines import Fleet, Ran
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ENGINES = ("pyinfra", "ansible")
CANARY = "a canary that fails late is put back by this engine in every run (test_strategies.py)"
# Both engines ask the same check; Ansible is asked about each kind of mistake in the long run only.
ENGINES_OF_ONE_CHECK = ("pyinfra", pytest.param("ansible", marks=pytest.mark.slow(reason=OTHER_ENGINE)))


def deploy(fleet: Fleet, engine: str, *arguments: str, **environment: str) -> Ran:
    if engine == "pyinfra":
        return fleet.pyinfra(*arguments, **environment)
    return fleet.playbook("site.yml", *arguments, **environment)


@pytest.fixture
def undisturbed(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, which must come out of the test with the same processes on the same generations."""
    pids, generations = fleet.pids(), fleet.generations()
    yield fleet
    assert fleet.generations() == generations
    assert fleet.pids() == pids
    assert fleet.running()


@pytest.mark.parametrize("engine", ENGINES_OF_ONE_CHECK)
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reconciler_sync_timout_s": 3}, "did you mean reconciler_sync_timeout_s?"),
        ({"reconciler_sync_timeout_s": "soon", "gateway_backend": "mt4"}, ": 2 problems"),
        (
            {"fleet_networks": ["10.0.0.0/8"], "fleet_address": "10.255.255.255"},
            "is the broadcast address of",
        ),
        (
            {"fleet_networks": ["10.203.0.0/16"], "fleet_address": "10.203.0.0"},
            "is the address of network",
        ),
        ({"fleet_address": "192.0.2.9"}, "placeholder reserved for documentation"),
        ({"vault_gateway_secret_keys": {}}, "create it with `python -m deploy.keys"),
        ({"fleet_bundle": "dist/none.tar"}, "build it with `make bundle`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings(undisturbed: Fleet, engine: str, settings: dict[str, Any], expected: str) -> None:
    undisturbed.override(**settings)
    ran = deploy(undisturbed, engine)
    undisturbed.override()
    assert ran.status != 0
    assert expected in ran.output, ran.output[-3000:]
    assert "nothing was touched" in ran.output
    assert "Traceback" not in ran.output


def test_settings_on_the_command_line(undisturbed: Fleet) -> None:
    ran = undisturbed.playbook("site.yml", "-e", "strategy_volum=2")
    assert ran.status != 0
    assert "did you mean strategy_volume?" in ran.output


@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_vault_password(undisturbed: Fleet, engine: str, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("not the one")
    wrong.chmod(0o600)
    ran = deploy(undisturbed, engine, ANSIBLE_VAULT_PASSWORD_FILE=str(wrong))
    assert ran.status != 0
    assert "Decryption failed" in ran.output or "wrong password" in ran.output, ran.output[-2000:]
    assert "vault.yml" in ran.output
    assert "Traceback" not in ran.output


@pytest.mark.parametrize("engine", ENGINES)
def test_limit_that_matches_nothing(undisturbed: Fleet, engine: str) -> None:
    ran = deploy(undisturbed, engine, "--limit", "typo")
    assert ran.status != 0
    assert "typo" in ran.output


@pytest.mark.parametrize("option", ["--no-wait", "--serial"])
def test_an_order_that_would_be_unsafe(undisturbed: Fleet, option: str) -> None:
    ran = undisturbed.pyinfra(option)
    assert ran.status != 0
    assert "breaks the order of a deployment" in ran.output


def current_bundle() -> Path:

    return (
        PROJECT
        / "dist"
        / json.loads((PROJECT / "dist" / "latest.json").read_text())["bundles"]["linux"]["file"]
    )


def repacked(source: Path, target: Path, change: dict[str, bytes | None]) -> None:
    """Copy of a bundle with some members replaced (None: left out)."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old.getmembers():
            file = old.extractfile(member)
            content = change.get(member.name, file.read() if file else b"")
            if content is None:
                continue
            member.size = len(content)
            new.addfile(member, BytesIO(content))


@pytest.fixture
def bad_bundle(request: pytest.FixtureRequest) -> Iterator[str]:
    """A bundle of the kind asked for, in dist/, where a deployment looks for it."""
    source, target = current_bundle(), PROJECT / "dist" / f"bad-{request.param}.tar"
    with tarfile.open(source) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        text = manifest.read()
    altered = text.replace(b'"content": "', b'"content": "0000')
    changes: dict[str, dict[str, bytes | None]] = {
        "tampered": {"manifest.json": altered},
        "unsigned": {"manifest.json": altered, "manifest.json.sig": None},
    }
    repacked(source, target, changes[request.param])
    yield f"dist/{target.name}"
    target.unlink()


@pytest.mark.parametrize(
    ("bad_bundle", "engine"),
    [
        ("tampered", "pyinfra"),
        ("unsigned", "ansible"),
        pytest.param("tampered", "ansible", marks=pytest.mark.slow(reason=OTHER_ENGINE)),
        pytest.param("unsigned", "pyinfra", marks=pytest.mark.slow(reason=OTHER_ENGINE)),
    ],
    indirect=["bad_bundle"],
)
def test_bundle_that_is_not_ours(undisturbed: Fleet, engine: str, bad_bundle: str) -> None:
    undisturbed.override(fleet_bundle=bad_bundle)
    ran = deploy(undisturbed, engine)
    undisturbed.override()
    assert ran.status != 0
    assert "sign" in ran.output.lower(), ran.output[-3000:]
    assert ran.record["outcome"] == "failed"
    assert ran.record["failures"][0]["remedy"]


@pytest.mark.parametrize("engine", ENGINES_OF_ONE_CHECK)
def test_host_that_cannot_be_reached(undisturbed: Fleet, engine: str) -> None:
    lab = undisturbed.lab
    faults.cut(lab, "inf-02", "controller")
    undisturbed.override(strategy_tick_interval_s=2.5)
    try:
        ran = deploy(undisturbed, engine)
    finally:
        faults.heal(lab.plan.name)
        undisturbed.override()
    assert ran.status != 0
    (failure,) = ran.record["failures"]
    assert failure["host"] == "inf-02"
    assert "time" in failure["message"].lower(), failure
    assert failure["remedy"]
    assert ran.record["outcome"] == "failed"


@pytest.mark.parametrize("engine", ENGINES_OF_ONE_CHECK)
def test_disk_full(undisturbed: Fleet, engine: str) -> None:
    lab = undisturbed.lab
    place = "/opt/mt5crs/strategy/generations"
    # What is there is copied onto a file system of its own that has no room for more files.
    lab.exec("inf-02", ["sh", "-c", FILL.format(place=place)])
    undisturbed.override(strategy_tick_interval_s=2.5)
    try:
        ran = deploy(undisturbed, engine)
    finally:
        lab.exec("inf-02", ["umount", "-l", place])
        undisturbed.override()
    assert ran.status != 0
    failure = ran.record["failures"][0]
    assert failure["host"] == "inf-02"
    assert "space" in failure["message"].lower(), failure
    assert failure["remedy"]


FILL = """set -e
cp -a {place} /tmp/kept
mount -t tmpfs -o nr_inodes=$(($(find {place} | wc -l) + 2)) tmpfs {place}
cp -a /tmp/kept/. {place}/
rm -rf /tmp/kept"""


@pytest.mark.parametrize(
    "engine", [pytest.param("pyinfra", marks=pytest.mark.slow(reason=CANARY)), "ansible"]
)
def test_unhealthy_release_is_put_back_everywhere(undisturbed_services: Fleet, engine: str) -> None:
    """A strategy that cannot start: the reconciler before it goes back too, the next host is not begun."""
    fleet = undisturbed_services
    fleet.override(reconciler_recheck_interval_s=12.0, strategy_strategy="nowhere:Nothing")
    ran = deploy(fleet, engine)
    fleet.override()
    assert ran.status != 0
    record = ran.record
    assert record["outcome"] == "failed"
    assert {failure["step"].split()[-1] for failure in record["failures"]} == {"strategy"}
    assert any(failure["journal"] for failure in record["failures"])
    assert record["put_back"] == ["reconciler on inf-01"]


@pytest.fixture
def undisturbed_services(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, which must come out of the test on the same generations, running, the gateway untouched."""
    generations, gateway = fleet.generations(), fleet.pids()["gtw-01", "gateway"]
    yield fleet
    assert fleet.generations() == generations
    assert fleet.running()
    assert fleet.pids()["gtw-01", "gateway"] == gateway


def test_gateway_down_while_an_inf_host_is_deployed(fleet: Fleet) -> None:
    generations = fleet.generations()
    fleet.lab.exec("gtw-01", ["systemctl", "stop", "mt5crs-gateway.service"])
    fleet.override(reconciler_recheck_interval_s=13.0)
    try:
        ran = fleet.pyinfra("--limit", "inf-01")
    finally:
        fleet.override()
        fleet.lab.exec("gtw-01", ["systemctl", "start", "mt5crs-gateway.service"])
    assert ran.status != 0
    assert ran.record["failures"][0]["host"] == "inf-01"
    assert ran.record["failures"][0]["journal"]
    assert fleet.generations() == generations


def hiding(directory: Path, other: Path) -> tuple[str, ...]:
    """What runs a command that sees the other directory in the place of this one."""
    script = 'mount --bind "$2" "$1" && shift 2 && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh", str(directory), str(other))


def test_missing_tool_names_the_command(undisturbed: Fleet, tmp_path: Path) -> None:
    # Other tests use dist/ at the same time: only this run sees one without the tool.
    without = tmp_path / "dist"
    ignored = shutil.ignore_patterns("mt5crs-release", ".cache", "mt5crs-images-*")
    shutil.copytree(PROJECT / "dist", without, ignore=ignored)
    ran = undisturbed.pyinfra(before=hiding(PROJECT / "dist", without))
    assert ran.status != 0
    assert "build it with `make bundle`" in ran.output
