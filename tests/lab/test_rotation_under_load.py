"""Secrets are rotated while the gateway is asked a thousand times a second: nothing is lost, old keys end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.fleet.inventory import resolve
from deploy.vaults import store
from lab.handle import wait_until
from tests.lab.engines import OVERRIDES, Fleet

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.slow(reason="rotations are deployments, which the lifecycle matrix tries under order flow"),
]

PROGRAM = Path(__file__).with_name("load.py")
RATE = 250
"""Requests a second of each of the four keys; what a client may is twice that."""
HOST = "inf-02"
"""Its strategy's key is rotated, and somebody goes on with the old one."""


def secrets(fleet: Fleet, *words: str) -> str:
    program = str(Path(sys.executable).with_name("mt5crs"))
    done = subprocess.run(
        [program, "--inventory", str(fleet.inventory), "secrets", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Loads:
    """What asks all the time, and what it saw once it has been told to stop."""

    def __init__(self, fleet: Fleet, pool: ThreadPoolExecutor) -> None:
        self._lab, self._pool = fleet.lab, pool
        self._stop = f"/run/{uuid.uuid4().hex}"
        self._running: dict[str, Future[dict[str, Any]]] = {}

    def start(self, host: str, service: str, rate: int, kept: str = "") -> None:
        name = f"{host} {service} {kept}".strip()
        self._running[name] = self._pool.submit(self._run, host, service, rate, kept)

    def _run(self, host: str, service: str, rate: int, kept: str) -> dict[str, Any]:
        launch = f'exec "$(readlink -f /opt/mt5crs/{service}/current/venv)/bin/python" -c "$@"'
        asked = ["sh", "-c", launch, "sh", PROGRAM.read_text(), service, str(rate), self._stop, kept]
        done = self._lab.exec(host, asked, timeout_s=600, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def stop(self) -> dict[str, dict[str, Any]]:
        for host in ("inf-01", "inf-02"):
            self._lab.exec(host, ["touch", self._stop])
        found = {name: of.result(timeout=120) for name, of in self._running.items()}
        for host in ("inf-01", "inf-02"):
            self._lab.exec(host, ["rm", "-f", self._stop])
        return found


@contextmanager
def under_load(fleet: Fleet) -> Iterator[Loads]:
    with ThreadPoolExecutor(8) as pool:
        made = Loads(fleet, pool)
        for host in ("inf-01", "inf-02"):
            for service in ("strategy", "reconciler"):
                made.start(host, service, RATE)
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def keys_kept(fleet: Fleet) -> Iterator[None]:
    """The lab has its keys and its vault's password again afterwards."""
    password = fleet.inventory.parent / "vault-password"
    kept = {path: path.read_bytes() for path in (password, *fleet.group_vars.iterdir()) if path.is_file()}
    yield
    for path in fleet.inventory.parent.glob("vault-password.*"):
        path.unlink()  # the former one
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.usefixtures("keys_kept")
@pytest.mark.parametrize(
    ("words", "most_s"),
    [
        (("client", f"{HOST}-strategy"), 10.0),
        (("client", "all"), 10.0),
        (("gateway", "all"), 60.0),
        (("vault",), 10.0),
    ],
    ids=["one client", "all clients", "gateway", "vault"],
)
def test_no_request_is_lost_and_the_old_key_ends(fleet: Fleet, words: tuple[str, ...], most_s: float) -> None:
    found = rotated(fleet, *words, deployed=words != ("vault",))
    held = found.pop(f"{HOST} strategy kept")
    assert held["refused"] == (words != ("vault",)), "who holds the old key is thrown out"
    judge(found, most_s)


def rotated(fleet: Fleet, *words: str, deployed: bool = True) -> dict[str, dict[str, Any]]:
    """What clients saw while this was rotated and deployed; one of them keeps the key that it has."""
    with under_load(fleet) as loads:
        loads.start(HOST, "strategy", 20, "kept")
        said = secrets(fleet, "rotate", *words)
        if deployed:
            assert "to be deployed" in said
            deploy(fleet)
        wait_until(fleet.running, 60, "every service to run")
        found = loads.stop()
    print(json.dumps({"rotated": words, **found}, indent=1))
    return found


def deploy(fleet: Fleet) -> None:
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]


def judge(found: dict[str, dict[str, Any]], most_s: float) -> None:
    assert {of["lost"] for of in found.values()} == {0}
    assert max(of["longest_ms"] for of in found.values()) < most_s * 1000


@pytest.fixture
def of_others(fleet: Fleet, keys_kept: None) -> None:
    """The fleet is deployed with a password of the broker and a webhook out of its vault."""
    vault = store.open_vault(fleet.inventory)
    values = {"gateway_mt5_password": "FirstDay-7301", "monitoring_webhook_url": "http://192.0.2.1/old"}
    lines = "".join(f"vault_{name}: {value}\n" for name, value in values.items())
    store.replace(vault.path, store.seal(vault.text + lines, vault.password))
    refers = {name: f"{{{{ vault_{name} }}}}" for name in values}
    refers |= {"monitoring_webhook_networks": ["192.0.2.1"]}
    (fleet.group_vars / OVERRIDES).write_text(yaml.safe_dump(refers))
    deploy(fleet)


@pytest.mark.usefixtures("of_others")
@pytest.mark.parametrize(
    ("kind", "new", "most_s"), [("broker", "SecondDay-7302", 60.0), ("webhook", "http://192.0.2.1/new", 2.0)]
)
def test_what_others_give_out_is_replaced_under_load(
    fleet: Fleet, tmp_path: Path, kind: str, new: str, most_s: float
) -> None:
    given = tmp_path / "new"
    given.touch(0o600)
    given.write_text(new)
    before = fleet.pids()
    found = rotated(fleet, kind, "--from-file", str(given))
    assert not found[f"{HOST} strategy kept"]["refused"]
    judge(found, most_s)
    restarted = {service for (host, service), pid in fleet.pids().items() if pid != before[host, service]}
    assert restarted == ({"gateway"} if kind == "broker" else set())


@pytest.fixture
def signers(fleet: Fleet) -> Iterator[Callable[[Sequence[str]], None]]:
    """Says who signs releases; of the lab alone, whose environment's file belongs to all labs."""
    files = [fleet.inventory.parent / "host_vars" / host.name / OVERRIDES for host in fleet.plan.hosts]

    def say(keys: Sequence[str]) -> None:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump({"baseline_release_signers": list(keys)}))

    yield say
    for file in files:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the lab has others there
            file.parent.rmdir()


def test_a_release_key_comes_and_goes_under_load(
    fleet: Fleet, tmp_path: Path, signers: Callable[[Sequence[str]], None]
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "new")], check=True)
    old = resolve(fleet.inventory).hosts["gtw-01"]["baseline_release_signers"]
    before = fleet.pids()
    with under_load(fleet) as loads:
        for keys in ([*old, (tmp_path / "new.pub").read_text().strip()], old):
            signers(keys)
            deploy(fleet)
            there = fleet.lab.exec("gtw-01", ["cat", "/etc/mt5crs/allowed_signers"]).stdout
            assert [key.split()[1] in there for key in keys] == [True] * len(keys)
            assert there.count("mt5crs-bundle") == len(keys)
        found = loads.stop()
    print(json.dumps({"rotated": "signing", **found}, indent=1))
    judge(found, 2.0)
    assert fleet.pids() == before
