"""Leases, halts and the files of a gateway: one in charge of them, and what if they are damaged or lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.backup import on_host
from mt5crs.gateway.control import Control
from mt5crs.gateway.refusal import Refusal
from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.running import Caller, Running


def test_a_longer_lease_made_by_asking_again_is_waited_for_after_a_restart(tmp_path: Path) -> None:
    now = 0.0

    def opened() -> Control:
        return Control(tmp_path / "control.db", "x", monotonic=lambda: now, durable=False)

    control = opened()
    epoch = control.acquire(7, "a", "run-a", 1_000)
    assert control.acquire(7, "a", "run-a", 60_000) == epoch
    control.close()
    control = opened()
    now = 59.0
    with pytest.raises(Refusal, match="LEASE_HELD"):
        control.acquire(7, "b", "run-b", 1_000)
    now = 61.0
    assert control.acquire(7, "b", "run-b", 1_000) == epoch + 1
    control.close()


@pytest.mark.parametrize("act", ["halt", "resume"])
def test_magic_0_is_not_the_fleet(tmp_path: Path, act: str) -> None:
    control = Control(tmp_path / "control.db", "x", durable=False)
    control.halt("FLEET", 0, "ops", "drill")
    with pytest.raises(Refusal, match="BAD_FIELD magic"):
        getattr(control, act)("MAGIC", 0, "ops", "a slip")
    assert [halt.magic for halt in control.halts()] == [0]
    control.close()


def test_a_second_gateway_on_one_state_directory_does_not_start(gateway: Running) -> None:
    assert gateway.process is not None
    own = {"GATEWAY_PORT": 0, "GATEWAY_PUB_PORT": 0, "METRICS_PORT": 0}
    ports = dict(zip(own, map(str, free_ports(3)), strict=True))
    second = subprocess.run(
        [sys.executable, "-m", "mt5crs.gateway"],
        env={**os.environ, **gateway.environment, **ports},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert f"the process {gateway.process.pid} holds" in second.stderr
    assert "end that one" in second.stderr
    gateway.restart()  # one that was killed holds nothing


@pytest.mark.parametrize("name", ["journal.db", "control.db"])
def test_a_damaged_file_is_named_with_a_remedy_and_not_tried_again(gateway: Running, name: str) -> None:
    gateway.kill()
    path = gateway.directory / "state" / name
    path.write_bytes(b"no database at all " * 400)
    for rest in ("-wal", "-shm"):
        path.with_name(name + rest).unlink(missing_ok=True)
    failed = subprocess.run(
        [sys.executable, "-m", "mt5crs.gateway"],
        env={**os.environ, **gateway.environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert failed.returncode == 78
    assert f"{path} is damaged" in failed.stderr
    assert "put a backup in its place" in failed.stderr


def test_a_journal_that_was_lost_halts(gateway: Running, trader: Caller) -> None:
    assert isinstance(trader.order(client_order_id="once"), OrderResult)
    gateway.kill()
    for each in (gateway.directory / "state").glob("journal.db*"):
        each.unlink()
    gateway.start()
    again = gateway.client("strategy")
    again.lease()
    known = again.order(client_order_id="once")  # the books know it: it is answered, not executed again
    assert isinstance(known, OrderResult)
    assert known.replayed
    refused = again.order(client_order_id="another")
    assert isinstance(refused, Error)
    assert refused.code == "HALTED"
    assert "journal.db was missing" in refused.message
    assert len(gateway.books("positions")) == 1


def test_leases_and_halts_that_were_lost_do_not_begin_at_nothing(gateway: Running, trader: Caller) -> None:
    assert isinstance(trader.order(), OrderResult)
    used = trader.epoch
    gateway.kill()
    (gateway.directory / "state" / "control.db").unlink()
    gateway.start()
    again = gateway.client("strategy")
    assert again.lease().epoch == used + 1
    refused = again.order()
    assert isinstance(refused, Error)
    assert refused.code == "HALTED"
    assert "control.db was missing" in refused.message
    gateway.client("ops").ask(requests.Resume, scope="FLEET", reason="looked, no halt")
    assert isinstance(again.order(), OrderResult)


def test_a_gateway_that_replaces_one_without_a_backup_starts_halted(
    gateway: Running, trader: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine is another one: nothing of before is there but what the broker's books show."""
    sent = trader.order(client_order_id="asked")
    assert isinstance(sent, OrderResult)
    gateway.kill()
    for path in (gateway.directory / "state").glob("*.db*"):
        path.unlink()
    monkeypatch.setattr(on_host, "STATE", gateway.directory)
    assert on_host.begin("state") == {"begun": True}
    assert on_host.begin("state") == {"begun": False}, "what is there stays"
    gateway.start()
    again = gateway.client("strategy")
    again.lease()
    refused = again.order()
    assert isinstance(refused, Error)
    assert refused.code == "HALTED"
    gateway.client("ops").ask(requests.Resume, scope="FLEET", reason="looked, no halt")
    told = again.order(client_order_id="asked")
    assert isinstance(told, OrderResult)
    assert (told.replayed, told.deals) == (True, sent.deals), "the books have it, so it is not sent again"
