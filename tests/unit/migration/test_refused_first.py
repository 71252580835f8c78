"""What refuses a move is said first and alone: no consequence of what will not be, no host asked in vain."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.commands import migrate
from deploy.migration.decision import OnHost, Seen
from mt5crs.__main__ import main
from tests.unit.fleets import make_inventory

OLD = "10.9.9.12"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIARZfSSwWsf5iqe8LMXEmbjFXzi4Np+e23i1SQnVmw/U"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    made = make_inventory(tmp_path)
    made.with_name("known_hosts").write_text(f"{OLD} {KEY}\n")
    return made


def refused(inventory: Path, *words: str) -> str:
    before = inventory.read_bytes()
    done = CliRunner().invoke(main, ["--inventory", str(inventory), "migrate", *words, "--dry"])
    assert done.exit_code != 0, done.output
    assert "moves from" not in done.output
    assert inventory.read_bytes() == before
    return done.output


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.9.9.255", "is the broadcast address of 10.9.9.0/24 (RFC 919)"),
        ("10.9.9.0", "10.9.9.0/24"),
        ("10.9.8.1", "10.9.9.0/24"),
        ("10.9.9.14", "10.9.9.14"),
        ("255.255.255.255", "255.255.255.255"),
        ("127.0.0.1", "127.0.0.1"),
        ("224.0.0.1", "224.0.0.1"),
        ("10.9.9.256", "is no address"),
    ],
)
def test_what_the_inventory_refuses_asks_no_host(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    def asked(*_: object) -> Any:
        raise AssertionError("a host was asked")

    for name in ("decision_of", "_look", "statuses"):
        monkeypatch.setattr(migrate, name, asked)
    assert why in refused(inventory, "inf-01", address)


def test_what_the_host_refuses_comes_before_consequences(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = "10.9.9.63"
    on_host = OnHost("m", {"eth0": [ip_interface(f"{OLD}/26"), ip_interface(f"{new}/26")]})
    seen = Seen(host="inf-01", old=OLD, new=new, of_old=on_host, of_new="m")
    monkeypatch.setattr(migrate, "_after", lambda *_: None)
    monkeypatch.setattr(migrate, "decision_of", lambda *_: SimpleNamespace(results=()))
    monkeypatch.setattr(migrate, "_look", lambda *_, **__: seen)
    assert "is the broadcast address of the host's network 10.9.9.0/26" in refused(inventory, "inf-01", new)


def test_a_host_that_there_is_not_is_told_with_those_that_there_are(inventory: Path) -> None:
    assert "has no host zzz; there are hub-01, inf-01" in refused(inventory, "zzz", "10.9.9.80")
