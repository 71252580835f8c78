"""The gateway takes another log level and other limits over as it runs, and no bad file ends it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mt5crs.__main__ import main
from mt5crs.protocol.replies import Error
from mt5crs.service.live import digest_of
from tests.unit.gateway.running import MAGIC, Running, eventually

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows services are restarted")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "live.env").write_text("LOG_LEVEL='WARNING'\n")
    running = Running(tmp_path, LIVE_SETTINGS_FILE=str(tmp_path / "live.env"))
    running.serial = 1
    yield running.start()
    running.close()


def write(gateway: Running, text: str) -> str:
    """Another file, as a deployment puts it: whole at once. Returns its digest."""
    new = gateway.directory / "new"
    new.write_text(text)
    new.replace(gateway.directory / "live.env")
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)
    return digest_of(text.encode())


def check(gateway: Running) -> tuple[int, str]:
    """What the health gate of a deployment asks."""
    files = ("--settings", f"{gateway.directory}/live.env", "--access", f"{gateway.directory}/clients.json")
    done = CliRunner().invoke(main, ["health", "gateway", "--port", str(gateway.metrics_port), *files])
    return done.exit_code, done.output


def test_another_level_is_in_force_without_a_restart_and_a_bad_one_is_not(gateway: Running) -> None:
    assert gateway.process is not None
    assert '"event":"ready"' not in gateway.log(), "WARNING"
    digest = write(gateway, "LOG_LEVEL='INFO'\n")
    eventually(lambda: gateway.health()["settings"]["in_force"] == digest)
    assert check(gateway)[0] == 0
    eventually(lambda: '"event":"settings.read"' in gateway.log())
    assert gateway.metric(f'mt5crs_settings_in_force_info{{digest="{digest}"}}') == 1

    bad = write(gateway, "LOG_LEVEL='LOUD'\n")
    eventually(lambda: gateway.health()["settings"]["refused"])
    assert gateway.health()["settings"]["refused"]["digest"] == bad
    assert gateway.health()["settings"]["in_force"] == digest
    status, said = check(gateway)
    assert (status, "expected one of DEBUG" in said) == (1, True), said
    assert gateway.metric("mt5crs_settings_refused") == 1
    (gateway.directory / "live.env").unlink()
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: gateway.health()["settings"]["refused"]["digest"] == "")
    assert check(gateway)[0] == 1, "what should be in force is not known"

    write(gateway, "LOG_LEVEL='INFO'\n")
    eventually(lambda: gateway.metric("mt5crs_settings_refused") == 0)
    assert check(gateway)[0] == 0
    assert gateway.process.poll() is None


def test_limits_hold_from_the_moment_that_the_list_is_in_force(gateway: Running) -> None:
    strategy = gateway.client("strategy")
    strategy.lease()
    gateway.limits[str(MAGIC)]["max_order_volume"] = 0.5
    gateway.serial = 2
    gateway.write_clients()
    status, said = check(gateway)
    assert status == 0 or "not version 2" in said, said
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: gateway.health()["access"] == 2)
    assert check(gateway)[0] == 0
    refused = strategy.order(volume=1.0)
    assert isinstance(refused, Error), refused
    assert (refused.field, "0.5" in refused.message) == ("max_order_volume", True), refused


def test_a_flood_of_hang_ups_harms_nothing(gateway: Running) -> None:
    assert gateway.process is not None
    for number in range(200):
        write(gateway, f"LOG_LEVEL='{('INFO', 'ERROR')[number % 2]}'\n")
    eventually(lambda: check(gateway)[0] == 0)
    assert gateway.process.poll() is None
