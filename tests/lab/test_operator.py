"""The kill switch and its companions, as they are documented: from the controller and on a host."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.handle import wait_until
from mt5crs.broker.sim.clock import BROKER_CLOCK_OFFSET_MS
from tests.lab.engines import Fleet

BOOKS = "/var/lib/mt5crs/gateway/sim/broker.db"

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def operate(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`mt5crs --inventory …` as from another directory of the controller, with nothing in its environment."""
    command = [str(Path(sys.executable).with_name("mt5crs")), "--inventory", str(fleet.inventory), *arguments]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_fleet_is_halted_and_resumed_from_the_controller(fleet: Fleet) -> None:
    halted = operate(fleet, "halt", "--reason", "drill")
    try:
        assert halted.returncode == 0, halted.stderr
        assert "only their owners can read the .env files (6)" in halted.stdout
        status = json.loads(operate(fleet, "status", "--json").stdout)
        assert [halt["reason"] for halt in status["gtw-01"]["halts"]] == ["drill"]
    finally:
        assert operate(fleet, "resume", "--reason", "drill").returncode == 0
    assert operate(fleet, "status").stdout.startswith("gtw-01\ngateway ")
    assert set(json.loads(operate(fleet, "orders", "--json").stdout)) == {"gtw-01"}
    assert operate(fleet, "deployments", "list", "--json").returncode == 0


def test_the_audit_log_has_what_was_done_and_tells_when_it_was_changed(fleet: Fleet) -> None:
    records = "/var/lib/mt5crs/audit-log/records.jsonl"
    shown = json.loads(operate(fleet, "audit-log", "show", "--json", "--last", "1000").stdout)
    assert {"deployment.begun", "configuration.changed", "deployment.ended"} <= {of["what"] for of in shown}
    whole = operate(fleet, "audit-log", "verify")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert f"seen up to record {len(shown)} by gtw-01, inf-01, inf-02" in whole.stdout
    fleet.lab.exec("hub-01", ["sh", "-c", f"cp -p {records} /root/kept && sed -i '$d' {records}"])
    try:
        cut = operate(fleet, "audit-log", "verify")
    finally:
        fleet.lab.exec("hub-01", ["sh", "-c", f"cp -p /root/kept {records}"])
    assert cut.returncode == 2, cut.stdout + cut.stderr
    assert f"record {len(shown)}: is missing: gtw-01, inf-01, inf-02 saw it" in cut.stdout


def test_a_halt_names_every_host_whose_keys_others_can_read(fleet: Fleet) -> None:
    path = "/opt/mt5crs/strategy/current/.env"
    fleet.lab.exec("inf-02", ["chmod", "0640", path])
    try:
        told = operate(fleet, "halt", "--reason", "drill", "--magic", "202402")
    finally:
        fleet.lab.exec("inf-02", ["chmod", "0600", path])
        assert operate(fleet, "resume", "--reason", "drill", "--magic", "202402").returncode == 0
    assert told.returncode == 1
    assert f"the halt is in force, but {path} of inf-02 has mode 0640" in told.stderr


def test_mt5crs_is_on_the_path_of_every_host(fleet: Fleet) -> None:
    assert fleet.lab.ssh("inf-01", "sudo mt5crs status").stdout.startswith("gateway ")
    refused = fleet.lab.ssh("inf-01", "mt5crs status", check=False)
    assert (refused.returncode, "use sudo" in refused.stderr) == (78, True), refused.stderr
    on_the_hub = fleet.lab.ssh("hub-01", "mt5crs status", check=False)
    assert (on_the_hub.returncode, "--inventory" in on_the_hub.stderr) == (1, True), on_the_hub.stderr


RUNTIME = "$(readlink -f /opt/mt5crs/gateway/current/venv)"
"""Of the gateway's host; a file in it is what somebody changes by hand."""


def findings(told: subprocess.CompletedProcess[str], *, stopping: bool = False) -> dict[str, list[str]]:
    """What each check of a preflight found; only of those because of which it is NO-GO, if `stopping`."""
    return {
        one["id"]: [f"{of['scope']}: {of['text']}" for of in one["findings"]]
        for one in json.loads(told.stdout)["checks"]
        if not stopping or (one["priority"], one["verdict"]) == ("P0", "FAIL")
    }


def test_preflight_is_go_and_names_each_thing_that_is_broken(fleet: Fleet) -> None:
    seen: list[dict[str, list[str]]] = []

    def decided() -> bool:
        told = operate(fleet, "preflight", "--json")
        stopping = findings(told, stopping=True)
        assert told.returncode == (2 if stopping else 0), told.stdout + told.stderr
        # An alert looks back: what an earlier test killed fires for five minutes more.
        seen.append({name: found for name, found in stopping.items() if name != "G-OPS-01"})
        return not seen[-1]

    wait_until(decided, 60, "GO", seen=lambda: seen[-1])
    env = "/opt/mt5crs/strategy/current/.env"
    broken = {
        ("inf-02", f"chmod 0640 {env}"): f"chmod 0600 {env}",
        ("inf-01", "systemctl stop mt5crs-strategy"): "systemctl start mt5crs-strategy",
        ("gtw-01", f"echo '#' >> {RUNTIME}/pyvenv.cfg"): f"sed -i '$d' {RUNTIME}/pyvenv.cfg",
        ("inf-02", "nft add rule inet mt5crs inbound tcp dport 9 accept"): "systemctl reload mt5crs-baseline",
        ("hub-01", "systemctl stop prometheus"): "systemctl start prometheus",
    }
    try:
        for host, how in broken:
            fleet.lab.exec(host, ["sh", "-c", how])
        told = operate(fleet, "preflight", "--json")
    finally:
        for (host, _), mend in broken.items():
            fleet.lab.exec(host, ["sh", "-c", mend])
    assert told.returncode == 2, told.stderr
    found = findings(told)
    assert found["G-SEC-01"] == [f"inf-02: {env} has mode 0640 and owner 0, must be 0600 and root (0)"]
    assert "inf-01: mt5crs-strategy.service is inactive" in found["G-SYS-02"]
    changed = "is not as it was staged: pyvenv.cfg of its runtime was changed"
    assert any(text.startswith("gtw-01: gateway (") and text.endswith(changed) for text in found["G-SYS-03"])
    assert found["G-SEC-06"] == ["inf-02: the firewall table inet mt5crs was changed"]
    assert found["G-OPS-01"][0].startswith("hub-01: not known: ")
    assert not any("not known" in text for text in found["G-DAT-13"] + found["G-DAT-14"])


def test_a_gateway_that_lost_its_disk_comes_back_from_a_proven_backup_and_is_halted(fleet: Fleet) -> None:
    assert operate(fleet, "backup", "run").returncode == 0
    drill = operate(fleet, "backup", "drill", "--json")
    assert drill.returncode == 0, drill.stdout + drill.stderr
    proven = json.loads(drill.stdout)
    assert proven["databases"] == 7
    refused = operate(fleet, "backup", "restore", "gtw-01", "gateway", "--yes")
    assert (refused.returncode, "mt5crs-gateway.service is active; stop it first" in refused.stderr) == (
        1,
        True,
    )
    fleet.lab.exec("gtw-01", ["systemctl", "stop", "mt5crs-gateway"])
    try:
        fleet.lab.exec("gtw-01", ["sh", "-c", "rm /var/lib/mt5crs/gateway/*.db*"])
        restored = operate(fleet, "backup", "restore", "gtw-01", "gateway", "--yes")
    finally:
        fleet.lab.exec("gtw-01", ["systemctl", "start", "mt5crs-gateway"])
    try:
        assert restored.returncode == 0, restored.stderr
        assert "what was sent since is lost" in restored.stdout
        told: list[subprocess.CompletedProcess[str]] = []

        def answers() -> bool:
            told.append(operate(fleet, "status", "--json"))
            return told[-1].returncode == 0

        wait_until(answers, 30, "the gateway's answer")
        (halt,) = json.loads(told[-1].stdout)["gtw-01"]["halts"]
        assert halt["reason"].startswith(
            f"restored from backup {proven['id']}. Orders since then may be missing"
        )
    finally:
        assert operate(fleet, "resume", "--reason", "drill").returncode == 0


def test_the_report_of_the_day_agrees_with_the_brokers_books(fleet: Fleet, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []

    def told() -> bool:
        # The day at the broker: it has only just begun when this runs at ten in the evening.
        day = time.strftime("%Y%m%d", time.gmtime(time.time() + BROKER_CLOCK_OFFSET_MS / 1000))
        ran = operate(fleet, "report", "--date", day, "--json", "--output", str(tmp_path / day))
        found.append(json.loads(ran.stdout))
        orders = found[-1]["gateways"][0]["orders"].get("value", ())
        return ran.returncode == 0 and any(one["result"] == "FILLED" for one in orders)

    wait_until(told, 90, "a report in which nothing is unknown, with an order that was filled")
    report = found[-1]
    (gateway,) = report["gateways"]
    assert gateway["money"]["value"]["books"]["equal"]
    assert not report["whole"]
    assert len(list((tmp_path / report["date"].replace("-", "")).iterdir())) == 3
    early = operate(fleet, "report", "--date", "20200101", "--output", str(tmp_path / "early"))
    assert early.returncode == 1
    assert "money: no data: the first deal of account" in early.stdout
    assert "alerts: no data: LookupError: Prometheus has no samples of that day" in early.stdout
    assert len(list((tmp_path / "early").iterdir())) == 3


@pytest.fixture
def active(fleet: Fleet) -> Iterator[None]:
    """Afterwards nobody only reduces: losses in a phase may have brought that, and it outlasts the phases."""
    yield
    fleet.override()
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]
    for magic in ("202401", "202402"):
        done = operate(fleet, "phase", "activate", "--magic", magic, "--reason", "the drill is over")
        assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("active")
def test_a_phase_holds_back_orders_until_somebody_signs_for_more(fleet: Fleet, tmp_path: Path) -> None:
    key = tmp_path / "alice"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    fleet.override(
        fleet_phases=True,
        fleet_phase_signers={"alice": key.with_suffix(".pub").read_text().strip()},
        gateway_sim_leverage=2000,  # 0.01 lots bind 0.55 dollars, and shadow allows 1
        strategy_volume="{{ 0.02 if inventory_hostname == 'inf-02' else 0.01 }}",
    )
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]

    def state(magic: str) -> dict[str, Any]:
        shown = json.loads(operate(fleet, "phase", "show", "--magic", magic, "--json").stdout)["gtw-01"]
        return {**shown, **{fact["name"]: fact["value"] for fact in shown["facts"]}}

    def opened() -> int:
        """Deals at the broker that opened something."""
        look = "SELECT COUNT(*) FROM deals WHERE json_extract(data, '$.entry') = 'IN'"
        code = f"import sqlite3; print(sqlite3.connect('{BOOKS}').execute({look!r}).fetchone()[0])"
        return int(fleet.lab.exec("gtw-01", ["python3", "-c", code]).stdout)

    # The lab may have lost enough today to be reducing at once.
    active = operate(fleet, "phase", "activate", "--magic", "202401", "--reason", "drill")
    assert active.returncode == 0, active.stderr
    before = opened()
    wait_until(lambda: (state("202401").get("dry_runs") or 0) >= 2, 20, "orders are checked")
    log = ["journalctl", "-u", "mt5crs-gateway", "--since", "-1min", "-o", "cat"]
    beyond = "phase live_shadow_atomic_v1: the margin of 0.02 lots of EURUSD"
    wait_until(lambda: beyond in fleet.lab.exec("gtw-01", log).stdout, 20, "an order beyond it is refused")
    assert (state("202401")["profile"], opened()) == ("live_shadow_atomic_v1", before)

    signing = ("--by", "alice", "--key", str(key), "--reason", "drill")
    promote = ("phase", "promote", "--magic", "202401", *signing)
    refused = operate(fleet, *promote)
    assert refused.returncode == 1
    assert "refused: days_without_crash is " in refused.stderr
    done = operate(fleet, *promote, "--override", "--days", "1")
    assert done.returncode == 0, done.stderr
    # What the strategy lost in the lab today may have demoted it again by now, which is recorded as well.
    acts = [(act["act"], act["profile"], act["by"]) for act in state("202401")["acts"]]
    assert ("override", "live_safe_atomic_v1", "alice") in acts
