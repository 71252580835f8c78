"""A fleet with a modelled Windows gateway: rights before content, three runs, releases, rollback by tag.

Uses the lab MT5CRS_WINDOWS_LAB (default `win`), which it boots if need be. In `make test` that is where
Molecule's scenario has tried the Windows host alone: the other hosts join it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.fleet.inventory import resolve
from lab import fleet as labs
from lab.handle import Lab
from tests.lab.deployers import JUDGED, begin, kept, until
from tests.long_runs import MOLECULE
from tests.windows_model import fleet, scenario

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

NAME = os.environ.get("MT5CRS_WINDOWS_LAB", "win")
INVENTORY = fleet.directory(NAME) / "inventory.yml"
IN_ORDER = (fleet.GATEWAY, "gtw-01", "inf-01")
WINDOWS = "inf-02"  # the lab's name of the host behind gtw-02
ROOT = "/var/lib/winmodel"
_SYSTEM, _ADMINISTRATORS = "S-1-5-18", "S-1-5-32-544"


def play(*words: str) -> subprocess.CompletedProcess[str]:
    """Run site.yml or rollback.yml on the fleet."""
    return scenario.play(*words, name=NAME, inventory=INVENTORY)


def pyinfra(file: str, *words: str, yes: bool = True) -> subprocess.CompletedProcess[str]:
    """Run deploy.py or rollback.py on the fleet."""
    program = str(Path(sys.executable).parent / "pyinfra")
    return subprocess.run(
        [program, *(["-y"] if yes else []), *words, str(INVENTORY.with_suffix(".py")), file],
        cwd=fleet.PROJECT,
        env=fleet.environment(NAME),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@contextmanager
def override(**settings: Any) -> Iterator[None]:
    """Other settings for the whole environment, meanwhile."""
    path = INVENTORY.parent / "group_vars/lab/zz_test.yml"
    path.write_text("---\n" + yaml.safe_dump(settings))
    try:
        yield
    finally:
        path.unlink()


def record(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The record that a run kept."""
    kept = re.findall(r"^report: (\S+)/report\.html$", answer.stdout, re.MULTILINE)
    assert kept, answer.stdout[-3000:] + answer.stderr[-1000:]
    found: dict[str, Any] = json.loads((fleet.PROJECT / kept[-1] / "record.json").read_text())
    return found


def linux_running(lab: Lab) -> str:
    """The generation of the Linux gateway."""
    answer = lab.exec("gtw-01", ["/usr/local/sbin/mt5crs-release", "status", "gateway", "--json"]).stdout
    return str(json.loads(answer)["services"]["gateway"]["current"])


def running() -> dict[str, Any]:
    """The Windows gateway's status, asked on the host itself: Molecule's scenario asks through Ansible."""
    home = f"{ROOT}/fs/C/ProgramData/mt5crs"
    ask = f"exec {home}/python/*/tools/python.exe {home}/bin/mt5crs-release.pyz status --json"
    answer = Lab.open(NAME).exec(WINDOWS, ["sh", "-c", ask]).stdout
    found: dict[str, Any] = json.loads(answer)["services"]["gateway"]
    return found


def linux_gateway(lab: Lab) -> str:
    """Process id of the Linux gateway."""
    return lab.exec("gtw-01", ["systemctl", "show", "-p", "MainPID", "mt5crs-gateway"]).stdout


def changed(answer: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of the Windows host changed something."""
    found = re.search(rf"^{fleet.GATEWAY}\s+: ok=\d+\s+changed=(\d+)", answer.stdout, re.MULTILINE)
    assert found is not None, answer.stdout[-2000:]
    return int(found[1])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The fleet, deployed by the one command: `pyinfra … deploy.py`; a lab booted here is removed."""
    was_there = (fleet.PROJECT / ".lab" / NAME / "lab.json").exists()
    fleet.up(NAME)
    answer = pyinfra("deploy.py")
    assert answer.returncode == 0, answer.stdout[-4000:] + answer.stderr[-2000:]
    lines = answer.stdout.splitlines()
    phases = [line.split("  ")[0] for line in lines if re.search(r"\d+ hosts? ", line)]
    assert phases[0] == "Windows gateways"
    # Step 1 is the baseline, of the Linux hosts. A host that was there may have nothing to do.
    steps = [phase for phase in phases if phase.startswith("Activate ")]
    hosts = [step.split()[2] for step in steps[1:4]]
    assert hosts == [host for host in IN_ORDER if host in hosts or not was_there]
    if steps:
        assert phases.index("Confirm gateway") > phases.index(steps[-1])
    for secret in scenario.secrets_of(INVENTORY):
        assert secret not in answer.stdout + answer.stderr
    yield Lab.open(NAME)
    if not was_there:
        labs.down(NAME, lambda _phase: None)


def effects(lab: Lab) -> list[dict[str, Any]]:
    """Everything that changed the modelled host, in order."""
    text = lab.exec(WINDOWS, ["cat", f"{ROOT}/effects.jsonl"]).stdout
    return [json.loads(line) for line in text.splitlines()]


def state(lab: Lab) -> dict[str, Any]:
    """The modelled host's state."""
    found: dict[str, Any] = json.loads(lab.exec(WINDOWS, ["cat", f"{ROOT}/state.json"]).stdout)
    return found


def check_rights(lab: Lab) -> int:
    """Assert that each `.env` so far was readable by its three owners only, from before it had content."""
    service = state(lab)["users"]["mt5crs"]["sid"]
    protected: set[str] = set()
    count = 0
    for entry in effects(lab):
        if entry["effect"] == "rights" and entry["by"] == "/inheritance:r":
            assert set(entry["readers"]) == {_SYSTEM, _ADMINISTRATORS, service}
            protected.add(entry["path"])
        if entry["effect"] == "content" and entry["path"].endswith("/.env"):
            assert entry["path"].rpartition("/")[0] in protected, "content before rights"
            assert set(entry["readers"]) == {_SYSTEM, _ADMINISTRATORS, service}
            count += 1
    return count


def test_inf_synchronises_with_the_windows_gateway(lab: Lab) -> None:
    address = resolve(INVENTORY).hosts[fleet.GATEWAY]["fleet_address"]
    env = lab.exec("inf-01", ["cat", "/opt/mt5crs/reconciler/current/.env"]).stdout
    assert f"GATEWAY_HOST='{address}'" in env
    for unit in ("mt5crs-reconciler", "mt5crs-strategy"):
        assert lab.exec("inf-01", ["systemctl", "is-active", unit]).stdout.strip() == "active"
    established = lab.exec("inf-01", ["ss", "-Htn", "state", "established", f"dst {address}"]).stdout
    assert f"{address}:5555" in established


@pytest.mark.slow(reason=MOLECULE)
def test_three_runs_change_nothing(lab: Lab) -> None:
    before = effects(lab)
    for _ in range(2):  # the third run after the fixture's
        answer = play("site.yml", "--tags", "baseline,gateway", "--limit", fleet.GATEWAY)
        assert answer.returncode == 0, answer.stdout[-3000:]
        assert changed(answer) == 0
    assert effects(lab) == before


def test_firewall_rules_are_the_inventory(lab: Lab) -> None:
    hosts = resolve(INVENTORY).hosts
    controller = hosts[fleet.GATEWAY]["baseline_ssh_sources"]
    hub, inf = hosts["hub-01"]["fleet_address"], hosts["inf-01"]["fleet_address"]
    found = {
        name: (set(rule["localport"].split(",")), set(rule["remoteip"].split(",")))
        for name, rule in state(lab)["rules"].items()
    }
    assert found == {
        "mt5crs SSH": ({"22"}, set(controller)),
        "mt5crs gateway": ({"5555", "5556"}, {hub, inf, *controller}),
        "mt5crs gateway metrics": ({"9101"}, {hub}),
    }
    assert all(profile["inbound"] == "block" for profile in state(lab)["firewall"].values())


@pytest.mark.slow(reason="a rollback is looked at in every run, and Molecule looks at a deployment")
def test_looking_says_what_would_change_on_both_systems(lab: Lab) -> None:
    first, linux = running()["current"], linux_running(lab)
    with override(gateway_poll_interval_s=0.36):
        looked = pyinfra("deploy.py", "--dry", yes=False)
    assert looked.returncode == 0, looked.stdout[-3000:] + looked.stderr[-1000:]
    assert re.search(r"^ +1 +gateway +gtw-02", looked.stdout, re.MULTILINE)
    assert re.search(r"^gtw-02: would change: .*Stage gateway$", looked.stdout, re.MULTILINE)
    assert (running()["current"], linux_running(lab)) == (first, linux)


def test_a_failing_inf_release_takes_both_gateways_back(lab: Lab) -> None:
    written, first, linux = check_rights(lab), running()["current"], linux_running(lab)
    with override(gateway_poll_interval_s=0.32, strategy_strategy="nowhere:Nothing"):
        answer = pyinfra("deploy.py")
    assert answer.returncode != 0
    found = record(answer)
    assert found["outcome"] == "failed"
    assert {failure["host"] for failure in found["failures"]} == {"inf-01"}
    assert {"gateway on gtw-01", "gateway on gtw-02"} <= set(found["put_back"])
    steps = [
        span["step"] for span in found["spans"] if (span["host"], span["service"]) == ("gtw-02", "gateway")
    ]
    assert steps == ["activate", "put back"], "it was provisional and never confirmed"
    after = running()
    assert (after["current"], linux_running(lab)) == (first, linux)
    assert (after["state"], after["units"]) == ("confirmed", {"mt5crs-gateway.service": "active"})
    assert after["newest"]["state"] == "reverted"
    for secret in scenario.secrets_of(INVENTORY):
        assert secret not in answer.stdout + answer.stderr
    assert check_rights(lab) > written


def test_rollback_by_part_and_by_generation_on_both_systems(lab: Lab) -> None:
    first, linux_first = running()["current"], linux_running(lab)
    answer = play("site.yml", "--tags", "gateway", "-e", '{"gateway_poll_interval_s": 0.33}')
    assert answer.returncode == 0, answer.stdout[-3000:]
    second, linux_second = running()["current"], linux_running(lab)
    assert (second != first, linux_second != linux_first) == (True, True)

    looked = pyinfra("rollback.py", "--data", "part=gateway", "--dry", yes=False)
    assert looked.returncode == 0, looked.stdout[-3000:] + looked.stderr[-1000:]
    assert "gtw-02: would change: Ask for the way back of gateway" in looked.stdout
    # One host that cannot go back stops all of them: the Linux gateway's generation is unknown on Windows.
    refused = pyinfra("rollback.py", "--data", "part=gateway", "--data", f"to={linux_first}")
    assert refused.returncode != 0
    assert {failure["host"] for failure in record(refused)["failures"]} == {"gtw-02"}
    assert (running()["current"], linux_running(lab)) == (second, linux_second)

    answer = pyinfra("rollback.py", "--data", "part=gateway")
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert (running()["current"], linux_running(lab)) == (first, linux_first)
    answer = play("rollback.yml", "--tags", "gateway", "--limit", fleet.GATEWAY, "-e", f"to={second}")
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert (running()["current"], linux_running(lab)) == (second, linux_first)
    check_rights(lab)


@pytest.mark.slow(reason="killed in the middle and run again, it is tried in every run")
def test_a_rollback_of_the_fleet_takes_both_systems_back(lab: Lab) -> None:
    first, linux_first = running()["current"], linux_running(lab)
    with override(gateway_poll_interval_s=0.34):
        answer = pyinfra("deploy.py")
        assert answer.returncode == 0, answer.stdout[-3000:]
        assert first != running()["current"]
        assert linux_first != linux_running(lab)
        answer = pyinfra("rollback.py", "--data", "part=fleet")
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-1000:]
    assert (running()["current"], linux_running(lab)) == (first, linux_first)
    assert (running()["state"], running()["units"]) == ("confirmed", {"mt5crs-gateway.service": "active"})
    undone = {entry["host"] for entry in record(answer)["services"] if entry["changed"]}
    assert undone == {"gtw-01", "gtw-02"}
    check_rights(lab)


def test_a_killed_rollback_of_the_fleet_is_settled_on_both_systems(lab: Lab) -> None:
    first, linux_first = running()["current"], linux_running(lab)
    with override(gateway_poll_interval_s=0.35):
        answer = pyinfra("deploy.py", "--data", "strategy=all_at_once")
        assert answer.returncode == 0, answer.stdout[-3000:]
    released = running()["current"]
    assert released != first
    deployer = begin(INVENTORY, "rollback.py", "--data", "part=fleet", environment=fleet.environment(NAME))
    until(lab, JUDGED)
    os.killpg(deployer.pid, signal.SIGKILL)
    deployer.wait(timeout=60)

    answer = pyinfra("rollback.py", "--data", "part=fleet")
    said = answer.stdout + answer.stderr
    assert answer.returncode == 0, said[-3000:]
    assert f"gateway {first} on {fleet.GATEWAY} put back" in said, said[-3000:]
    assert (running()["current"], linux_running(lab)) == (first, linux_first)
    assert (running()["state"], running()["units"]) == ("confirmed", {"mt5crs-gateway.service": "active"})
    assert kept(lab)["holder"] is None


@pytest.mark.slow(reason=MOLECULE)
def test_failing_release_of_the_windows_gateway_alone(lab: Lab) -> None:
    written, before, linux = check_rights(lab), running(), linux_gateway(lab)
    limit = ("--limit", fleet.GATEWAY)
    answer = play("site.yml", "--tags", "gateway", *limit, "-e", "gateway_bind=192.0.2.1")
    assert answer.returncode != 0
    assert running()["current"] == before["current"]
    assert running()["units"] == {"mt5crs-gateway.service": "active"}
    for secret in scenario.secrets_of(INVENTORY):
        assert secret not in answer.stdout + answer.stderr
    assert linux_gateway(lab) == linux
    assert check_rights(lab) > written


def test_a_terminal_is_required_and_kept_from_replacing_itself(lab: Lab) -> None:
    settings = {
        "gateway_backend": "mt5",
        "gateway_account_phase": "shadow",
        "gateway_mt5_path": "C:/Terminals/broker/terminal64.exe",
        "gateway_mt5_login": 5000001,
        "gateway_mt5_server": "Broker-Demo",
        "gateway_mt5_password": "canary-of-the-terminal",
    }
    prepare = ("windows.yml", "--tags", "prepare", "--limit", fleet.GATEWAY, "-e", json.dumps(settings))
    refused = play(*prepare)
    assert refused.returncode != 0
    assert "install the broker's terminal there" in refused.stdout
    program = f"{ROOT}/fs/C/Terminals/broker/terminal64.exe"
    lab.exec(WINDOWS, ["sh", "-c", f"mkdir -p $(dirname {program}) && touch {program}"])
    staged = play(*prepare)
    assert staged.returncode == 0, staged.stdout[-3000:]
    look = "import os, sys; print(os.getxattr(sys.argv[1], 'user.winmodel.acl').decode())"
    rights = json.loads(lab.exec(WINDOWS, ["python3", "-c", look, program]).stdout)
    service = state(lab)["users"]["mt5crs"]["sid"]
    assert rights["entries"] == [{"sid": service, "type": "deny", "rights": "Write, Delete"}]
    written = lab.exec(
        WINDOWS, ["sh", "-c", f"cat {ROOT}/fs/C/ProgramData/mt5crs/gateway/generations/*/.env"]
    )
    assert "MT5_PATH='C:/Terminals/broker/terminal64.exe'" in written.stdout
    for answer in (refused, staged):
        assert "canary-of-the-terminal" not in answer.stdout + answer.stderr
    assert "canary-of-the-terminal" not in lab.exec(WINDOWS, ["cat", f"{ROOT}/effects.jsonl"]).stdout
    check_rights(lab)


@pytest.mark.slow(reason=MOLECULE)
def test_the_suite_that_verifies_any_fleet_passes(lab: Lab) -> None:
    # What concerns Linux hosts alone is verified on other fleets, and three runs have changed nothing.
    concerns = "not nothing_differs and (test_windows or test_links or test_monitoring or test_firewall)"
    answer = scenario.verify_suite("-k", concerns, name=NAME, inventory=INVENTORY)
    assert answer.returncode == 0, answer.stdout[-4000:]


def test_an_env_file_that_everyone_may_read_is_found(lab: Lab) -> None:
    env = f"{ROOT}/fs/C/ProgramData/mt5crs/gateway/generations/{running()['current']}/.env"
    entry = {"sid": "S-1-1-0", "type": "allow", "rights": "Read"}
    acl = json.dumps({"owner": _SYSTEM, "protected": False, "entries": [entry]})
    change = "import os, sys; os.setxattr(sys.argv[1], 'user.winmodel.acl', sys.argv[2].encode())"
    lab.exec(WINDOWS, ["python3", "-c", change, env, acl])
    try:
        answer = scenario.verify_suite("-k", "test_secrets_are_readable", name=NAME, inventory=INVENTORY)
    finally:
        undo = "import os, sys; os.removexattr(sys.argv[1], 'user.winmodel.acl')"
        lab.exec(WINDOWS, ["python3", "-c", undo, env])
    assert answer.returncode != 0
    assert "/.env grants rights to WD" in answer.stdout


def test_secrets_are_in_no_log_and_no_process_list(lab: Lab) -> None:
    for secret in scenario.secrets_of(INVENTORY):
        logs = lab.exec(WINDOWS, ["cat", f"{ROOT}/effects.jsonl"]).stdout
        logs += lab.exec(WINDOWS, ["cat", f"{ROOT}/fs/C/ProgramData/mt5crs/state/gateway/service.log"]).stdout
        logs += lab.exec(WINDOWS, ["cat", f"{ROOT}/fs/C/ProgramData/mt5crs/gateway/journal.jsonl"]).stdout
        logs += lab.exec(WINDOWS, ["ps", "-eo", "args"]).stdout
        assert secret not in logs


def test_the_other_run_mode_and_back(lab: Lab) -> None:
    limit = ("site.yml", "--tags", "gateway", "--limit", fleet.GATEWAY)
    generations = set()
    for mode in ("logon_task", "service"):
        # What the old mode had started is stopped before the new one can start, longer than an alert waits.
        answer = play(*limit, "-e", f"gateway_run_mode={mode}", "-e", "fleet_alerts_firing=report")
        assert answer.returncode == 0, answer.stdout[-3000:]
        generations.add(running()["current"])
        assert running()["units"] == {"mt5crs-gateway.service": "active"}, answer.stdout
        found = state(lab)
        as_task = mode == "logon_task"
        assert ("\\mt5crs\\mt5crs-gateway" in found["tasks"]) is as_task
        assert ("mt5crs-gateway" in found["services"]) is not as_task
        assert (found["auto_logon"] is not None) is as_task
        if as_task:  # Molecule looks at the other mode
            again = play(*limit, "-e", f"gateway_run_mode={mode}")
            assert again.returncode == 0
            assert changed(again) == 0
    assert len(generations) == 1  # how it is started is no reason for a new generation
