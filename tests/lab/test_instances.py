"""Two strategies on one machine: each is deployed, changed, taken back, ended while the other trades."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy import keys
from deploy.decommission.record import DIRECTORY
from lab.handle import wait_until
from tests.lab.engines import Fleet
from tests.lab.test_blue_green import HOST, TOOL, Node
from tests.lab.test_operator import operate
from tests.lab.units_and_alerts import asked

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

TREND = f"{HOST}-trend"
# So small a share that what runs beside it keeps its own.
OWN = {"fleet_instance": "trend", "fleet_port_offset": 100, "strategy_memory_percent": 15}
UNITS = ("mt5crs-reconciler@trend.service", "mt5crs-strategy@trend.service")


@pytest.fixture
def described(fleet: Fleet) -> Iterator[Path]:
    """The inventory names a second Inf on the machine, as people write it; afterwards it is as it was."""
    text, known = fleet.inventory.read_text(), set(DIRECTORY.glob(f"*-{TREND}-*"))
    tree = yaml.safe_load(text)
    tree["lab"]["children"]["inf"]["hosts"][TREND] = {"ansible_host": fleet.plan.host(HOST).address, **OWN}
    fleet.inventory.write_text("---\n" + yaml.safe_dump(tree, sort_keys=False))
    keys.make(fleet.inventory)
    own = fleet.inventory.parent / "host_vars" / f"{TREND}.yml"
    own.parent.mkdir(exist_ok=True)
    yield own
    own.unlink(missing_ok=True)
    if not any(own.parent.iterdir()):
        own.parent.rmdir()
    if TREND in fleet.inventory.read_text():
        leave(fleet)
    fleet.inventory.write_text(text)
    for path in set(DIRECTORY.glob(f"*-{TREND}-*")) - known:
        path.unlink()


def leave(fleet: Fleet) -> subprocess.CompletedProcess[str]:
    """`mt5crs --inventory … decommission inf-01-trend`; ann looks after its positions."""
    program = str(Path(sys.executable).with_name("mt5crs"))
    words = ("decommission", TREND, "--reason", "drill", "--hand-over", "ann", "--yes")
    return subprocess.run(
        [program, "--inventory", str(fleet.inventory), *words],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def processes(fleet: Fleet) -> dict[str, str]:
    """Main process of each unit of the instance."""
    show = ["systemctl", "show", "-p", "MainPID", "--value"]
    return {unit: fleet.lab.exec(HOST, [*show, unit]).stdout.strip() for unit in UNITS}


def generation(fleet: Fleet) -> str:
    """Which one the instance's strategy is on, confirmed."""
    told = fleet.lab.exec(HOST, [TOOL, "status", "--instance", "trend", "--json"]).stdout
    strategy = json.loads(told)["services"]["strategy"]
    assert strategy["state"] == "confirmed"
    return str(strategy["current"])


def test_two_strategies_on_one_machine(fleet: Fleet, described: Path) -> None:
    others = fleet.pids()
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert fleet.pids() == others, "one that was there was restarted"
    first, second = Node(fleet), Node(fleet, TREND)
    assert first.magic != second.magic
    for node in (first, second):
        node.wait_for_trades(1)
    # The machine's node exporter tells of both; Prometheus knows whose it is, by the unit's usual name.
    active = 'node_systemd_unit_state{name="mt5crs-strategy.service", state="active"}'
    synced = "mt5crs_reconciler_startup_sync_failures_consecutive"
    wait_until(lambda: asked(fleet.lab, active).get(TREND) == 1, 30, "its unit in Prometheus")
    wait_until(lambda: TREND in asked(fleet.lab, synced), 30, "what its reconciler left in Prometheus")
    assert asked(fleet.lab, "node_textfile_scrape_error")[HOST] == 0

    # Changed by one engine and taken back by each: nothing else moves.
    before, former = generation(fleet), processes(fleet)
    described.write_text("---\n" + yaml.safe_dump({"strategy_order_timeout_s": 5.5}))
    ran = fleet.playbook("site.yml")
    assert ran.status == 0, ran.output[-3000:]
    assert generation(fleet) != before
    for back in (
        fleet.playbook("rollback.yml", "--tags", "strategy", "--limit", TREND),
        fleet.pyinfra("--limit", TREND),
        fleet.rollback_with_pyinfra("strategy", "--limit", TREND),
    ):
        assert back.status == 0, back.output[-3000:]
    assert generation(fleet) == before
    now = processes(fleet)
    assert (now[UNITS[0]], now[UNITS[1]] != former[UNITS[1]]) == (former[UNITS[0]], True)
    assert fleet.pids() == others

    second.wait_for_trades(1)
    for node in (first, second):
        node.assert_nothing_doubled()

    # Nothing of it stays open, which would alarm in another test on this lab.
    fleet.lab.exec(HOST, ["systemctl", "stop", UNITS[1]])
    magic = ("--magic", str(second.magic))
    why = ("--reason", "drill")
    for words in (("halt", *magic, *why), ("flatten", *magic), ("resume", *magic, *why)):
        done = operate(fleet, *words)
        assert done.returncode == 0, done.stdout + done.stderr

    gone = leave(fleet)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "the other services of its machine" in gone.stdout
    (data,) = re.findall(r"^its data: (\S+)", gone.stdout, re.MULTILINE)
    with tarfile.open(data) as kept:
        journal = kept.extractfile("journal.log")
        assert journal is not None
        logged = journal.read().decode()
    assert '"service":"strategy"' in logged, logged[:500]
    assert "mt5crs-strategy.service" not in logged, "those of the other one"
    left = "ls -d /opt/mt5crs/*@* /var/lib/mt5crs/*@* /etc/systemd/system/*@trend* 2>/dev/null; true"
    assert fleet.lab.exec(HOST, ["sh", "-c", left]).stdout == ""
    assert fleet.pids() == others
    first.wait_for_trades(1)
