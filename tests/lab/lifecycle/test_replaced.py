"""Another machine takes a gateway's place, and gives it back; then the gateway's machine dies for good."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.decommission.replaced import DIRECTORY
from lab import ssh
from lab.handle import wait_until
from tests.lab.lifecycle.changes import GATEWAY, SPARE
from tests.lab.lifecycle.conftest import boot
from tests.lab.lifecycle.course import OUTPUT, Course
from tests.lab.lifecycle.test_matrix import BROKER

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(1200),
    pytest.mark.slow(reason="the unit tests write the files and go on after a kill; needs a lab of its own"),
]

OTHER = "gtw-02"
UNIT = "mt5crs-gateway.service"


class Replaced:
    """The fleet, with a machine beside it that may become its gateway."""

    def __init__(self, course: Course) -> None:
        self.course, self.lab = course, course.fleet.lab
        self.own = course.description.inventory.parent / "host_vars"
        self.address = {
            GATEWAY: self.lab.plan.host(GATEWAY).address,
            OTHER: self.lab.plan.host(SPARE).address,
        }
        self.machine = {GATEWAY: GATEWAY, OTHER: SPARE}

    def call(self, *words: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """`mt5crs --inventory …`, as from anywhere."""
        command = [str(Path(sys.executable).with_name("mt5crs"))]
        return subprocess.run(
            [*command, "--inventory", str(self.course.description.inventory), *words],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def replace(self, former: str, new: str, *more: str) -> subprocess.CompletedProcess[str]:
        """`mt5crs --inventory … replace`, with the variables of the one for the other, as it asks for."""
        (self.own / f"{new}.yml").write_bytes((self.own / f"{former}.yml").read_bytes())
        words = ("replace", former, new, self.address[new], "--reason", "drill", "--yes")
        return self.call(*words, *more)

    def take_books(self, former: str, new: str) -> None:
        """The simulated broker is on the gateway's machine; a real one goes on without either."""
        self.lab.exec(self.machine[former], ["systemctl", "stop", UNIT])
        books = self.lab.exec(self.machine[former], ["base64", BROKER]).stdout
        to = ["sh", "-c", f"mkdir -p {Path(BROKER).parent} && base64 -d >{BROKER}"]
        self.lab.exec(self.machine[new], to, input_text=books)

    def said(self, gateway: str, *words: str) -> Any:
        told = self.call(*words, "--json", timeout_s=60)
        return json.loads(told.stdout)[gateway]

    def switch_on(self) -> None:
        """Boot what is off; a lab's files are those of a lab then, and are put back."""
        files = (self.course.description.inventory, self.lab.directory.known_hosts)
        texts = [path.read_bytes() for path in files]
        boot()
        for path, text in zip(files, texts, strict=True):
            path.write_bytes(text)

    def held(self, gateway: str) -> set[int]:
        """What the broker holds."""
        return {one["identifier"] for one in self.said(gateway, "positions", "--all")["positions"]}

    def trades_again(self, gateway: str) -> None:
        """It is halted; resumed, every magic number opens a position."""
        halts = self.said(gateway, "status")["halts"]
        assert [halt["magic"] for halt in halts] == [0], halts
        before = self.held(gateway)
        assert self.call("resume", "--reason", "looked").returncode == 0
        wanted = set(self.course.magics().values())

        def both() -> bool:
            found = self.said(gateway, "positions", "--all")["positions"]
            seen.update(one["magic"] for one in found if one["identifier"] not in before)
            return seen >= wanted

        seen: set[int] = set()
        wait_until(both, 60, f"a position of each of {wanted}", seen=lambda: seen)
        orders = self.said(gateway, "orders")
        assert not orders.get("unresolved"), orders


@pytest.fixture
def replaced(course: Course) -> Iterator[Replaced]:
    """The fleet; the file of known hosts has the other machine, as a person would have written it."""
    course.description.write()
    known = set(DIRECTORY.glob("*.json"))
    made = Replaced(course)
    ssh.write_keys(course.description.directory, made.lab.plan)
    yield made
    (made.own / f"{OTHER}.yml").unlink(missing_ok=True)
    for path in set(DIRECTORY.glob("*.json")) - known:
        path.unlink()


def test_another_machine_takes_its_place_and_gives_it_back(replaced: Replaced) -> None:
    course = replaced.course
    named = replaced.call("replace", GATEWAY, OTHER, replaced.address[OTHER], "--reason", "drill", "--dry")
    assert (named.returncode, f"copy it for {OTHER}" in named.stderr) == (1, True), named.stderr
    refused = replaced.replace(GATEWAY, OTHER, "--lost", "--no-backup")
    assert refused.returncode == 1
    for why in ("so it is not lost", "something answers from here", "something answers to inf-02"):
        assert why in refused.stderr
    inventory = course.description.inventory.read_bytes()

    replaced.take_books(GATEWAY, OTHER)
    looked = replaced.replace(GATEWAY, OTHER, "--dry")
    assert looked.returncode == 0, looked.stderr
    assert "nothing was changed" in looked.stdout
    assert course.description.inventory.read_bytes() == inventory
    done = replaced.replace(GATEWAY, OTHER)
    assert done.returncode == 0, done.stdout + done.stderr
    left = replaced.lab.exec(
        GATEWAY, ["sh", "-c", "ls /opt/mt5crs; find / -xdev -name .env -path '*mt5crs*'"]
    )
    assert left.stdout.split() == ["baseline"]
    replaced.trades_again(OTHER)

    replaced.take_books(OTHER, GATEWAY)
    back = replaced.replace(OTHER, GATEWAY)
    assert back.returncode == 0, back.stdout + back.stderr
    replaced.trades_again(GATEWAY)


def test_its_machine_dies_and_another_takes_its_place_from_the_backup(replaced: Replaced) -> None:
    lab = replaced.lab
    assert replaced.call("backup", "run").returncode == 0
    replaced.take_books(GATEWAY, OTHER)
    lab.podman.run("stop", "--time", "0", lab.container(GATEWAY))
    try:
        refused = replaced.replace(GATEWAY, OTHER)
        assert (refused.returncode, "say with --lost" in refused.stderr) == (1, True), refused.stderr
        done = replaced.replace(GATEWAY, OTHER, "--lost")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "secrets rotate broker" in done.stdout
        replaced.trades_again(OTHER)
        refused_too = replaced.course.roll_back("fleet")
        assert refused_too.status != 0
        assert "leave this host out of the rollback" in refused_too.output, refused_too.output[-OUTPUT:]
    finally:
        replaced.switch_on()
    # It comes back after all, with a gateway that starts at boot: one call stops it for good.
    lab.wait_ready(GATEWAY)
    again = replaced.replace(GATEWAY, OTHER, "--lost")
    assert again.returncode == 0, again.stdout + again.stderr
    state = lab.exec(GATEWAY, ["systemctl", "is-active", UNIT], check=False).stdout.strip()
    assert state in ("inactive", "failed")
    assert (
        "mt5crs" not in lab.exec(GATEWAY, ["sh", "-c", "ls /etc/systemd/system | grep gateway || :"]).stdout
    )
    replaced.take_books(OTHER, GATEWAY)
    back = replaced.replace(OTHER, GATEWAY)
    assert back.returncode == 0, back.stdout + back.stderr
    replaced.trades_again(GATEWAY)
