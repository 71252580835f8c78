"""The release tool on a real systemd host: what it promises on crashes, on reboots, when nobody confirms."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import signing
from deploy.bundle.zipapp_build import build_zipapp
from lab import faults
from lab.errors import LabError
from lab.handle import Lab, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
LAB = os.environ.get("MT5CRS_RELEASE_LAB", "rel")
HOST = "gtw-01"
TOOL = "/usr/local/sbin/mt5crs-release"
UNIT = "mt5crs-probe.service"
GOOD = "exec sleep infinity"
UNIT_TEXT = """\
[Unit]
Description=Probe {text}
StartLimitIntervalSec=300
StartLimitBurst=8

[Service]
ExecStart=/opt/mt5crs/probe/current/serve
EnvironmentFile=/opt/mt5crs/probe/current/.env
Restart=always
RestartSec=200ms

[Install]
WantedBy=multi-user.target
"""


def specification(text: str, serve: str = GOOD, **changes: Any) -> dict[str, Any]:
    def file(content: str, mode: str) -> dict[str, str]:
        return {"mode": mode, "owner": "root", "group": "root", "content": content}

    return {
        "format": 1,
        "service": "probe",
        "code": False,
        "files": {
            ".env": file(f"TEXT={text}\n", "0600"),
            "serve": file(f"#!/bin/sh\n{serve}\n", "0755"),
        },
        "units": {UNIT: UNIT_TEXT.format(text=text)},
        "start": [UNIT],
        "health": {
            "command": ["systemctl", "is-active", UNIT],
            "timeout_s": 5,
            "min_healthy_s": 1,
            "healthy_deadline_s": 10,
            "progress_deadline_s": 20,
            "max_restarts": 0,
        },
        "state_format": 1,
        **changes,
    }


class Probe:
    """The tool on one lab host, driven as a deployment would."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.first = ""

    def put(self, path: str, content: bytes, mode: str) -> None:
        script = f"mkdir -p $(dirname {path}) && base64 -d > {path} && chmod {mode} {path}"
        text = base64.b64encode(content).decode()
        self.lab.exec(HOST, ["sh", "-c", script], input_text=text, timeout_s=60)

    def tool(self, *arguments: str, spec: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        text = json.dumps(spec) if spec is not None else None
        command = [TOOL, *arguments, "--json"]
        done = self.lab.exec(HOST, command, input_text=text, timeout_s=120, check=False)
        assert done.stdout.strip(), done.stderr
        return done.returncode, json.loads(done.stdout)

    def deploy(self, spec: dict[str, Any], *, timeout_s: int = 0) -> tuple[int, dict[str, Any]]:
        status, staged = self.tool("stage", "probe", spec=spec)
        assert status == 0, staged
        return self.tool("activate", "probe", "--confirm-timeout", str(timeout_s))

    def status(self) -> dict[str, Any]:
        _, answer = self.tool("status", "probe")
        entry: dict[str, Any] = answer["services"]["probe"]
        return entry

    def description(self) -> str:
        """What systemd believes the unit file says: not what is on disk."""
        done = self.lab.exec(HOST, ["systemctl", "show", "-p", "Description", "--value", UNIT])
        return done.stdout.strip()

    def pid(self) -> int:
        return int(self.lab.exec(HOST, ["systemctl", "show", "-p", "MainPID", "--value", UNIT]).stdout)

    def settled(self, generation: str) -> bool:
        entry = self.status()
        return bool(
            entry["current"] == generation and entry["pending"] is None and entry["units"] == {UNIT: "active"}
        )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        yield Lab.open(LAB)
        return
    except LabError:
        command = [sys.executable, "-m", "lab"]
    subprocess.run([*command, "up", "--name", LAB, "--hosts", "3"], cwd=ROOT, check=True, timeout=280)
    yield Lab.open(LAB)
    subprocess.run([*command, "down", "--name", LAB], cwd=ROOT, check=True, timeout=120)


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """A host with the tool, the boot unit and a confirmed first generation."""
    host = Probe(lab)
    clean = f"systemctl stop {UNIT} 'mt5crs-release-watch-*.timer'; systemctl disable {UNIT};"
    clean += f" rm -rf /opt/mt5crs/probe /etc/systemd/system/{UNIT}; systemctl daemon-reload"
    lab.exec(HOST, ["sh", "-c", clean], check=False)
    host.put(TOOL, build_zipapp(ROOT / "src/mt5crs_release"), "0755")
    host.tool("install-units")
    status, answer = host.deploy(specification("first"))
    assert status == 0, answer
    host.first = answer["generation"]
    return host


def test_install_units_is_idempotent_and_enables_the_boot_unit(probe: Probe) -> None:
    assert probe.tool("install-units") == (0, {"changed": False, "units": []})
    enabled = probe.lab.exec(HOST, ["systemctl", "is-enabled", "mt5crs-release-recover.service"])
    assert enabled.stdout.strip() == "enabled"


def test_unit_is_linked_through_current_and_enabled(probe: Probe) -> None:
    link = probe.lab.exec(HOST, ["readlink", f"/etc/systemd/system/{UNIT}"]).stdout.strip()
    assert link == f"/opt/mt5crs/probe/current/units/{UNIT}"
    assert probe.lab.exec(HOST, ["systemctl", "is-enabled", UNIT]).stdout.strip() == "enabled"
    wants = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
    assert "generations" not in probe.lab.exec(HOST, ["readlink", wants]).stdout
    mode = probe.lab.exec(HOST, ["stat", "-Lc", "%a %U %G", "/opt/mt5crs/probe/current/.env"]).stdout.strip()
    assert mode == "600 root root"


def test_same_specification_changes_nothing_and_restarts_nothing(probe: Probe) -> None:
    before = probe.pid()
    status, staged = probe.tool("stage", "probe", spec=specification("first"))
    assert (status, staged["changed"]) == (0, False)
    status, activated = probe.tool("activate", "probe", "--confirm-timeout", "0")
    assert (status, activated["changed"]) == (0, False)
    assert probe.pid() == before


def test_rollback_restores_unit_and_configuration(probe: Probe) -> None:
    status, second = probe.deploy(specification("second"))
    assert (status, probe.description()) == (0, "Probe second")
    status, back = probe.tool("rollback", "probe")
    assert (status, back["previous"]) == (0, None), back
    assert probe.description() == "Probe first"
    assert back["generation"] != second["generation"]
    env = probe.lab.exec(HOST, ["cat", "/opt/mt5crs/probe/current/.env"]).stdout
    assert env == "TEXT=first\n"


def test_unconfirmed_generation_reverts_when_its_time_is_over(probe: Probe) -> None:
    status, answer = probe.deploy(specification("second"), timeout_s=2)
    assert (status, answer["state"]) == (0, "provisional")
    assert probe.description() == "Probe second"
    wait_until(lambda: probe.settled(probe.first), 40, "the revert")
    assert probe.description() == "Probe first"
    status, late = probe.tool("confirm", "probe", "--generation", answer["generation"])
    assert status == 1
    assert "nobody confirmed it" in late["error"]["message"]


def test_confirmed_generation_stays(probe: Probe) -> None:
    _, answer = probe.deploy(specification("second"), timeout_s=60)
    status, confirmed = probe.tool("confirm", "probe", "--generation", answer["generation"])
    assert (status, confirmed["state"]) == (0, "confirmed")
    timers = probe.lab.exec(HOST, ["systemctl", "list-timers", "--all", "mt5crs-release-watch-*"]).stdout
    assert "0 timers" in timers


@pytest.mark.parametrize("hard", [False, True], ids=["orderly", "power cut"])
def test_unconfirmed_generation_reverts_at_reboot(probe: Probe, hard: bool) -> None:
    status, answer = probe.deploy(specification("second"), timeout_s=600)
    assert (status, answer["state"]) == (0, "provisional")
    faults.reboot(probe.lab, HOST, hard=hard)
    wait_until(lambda: probe.settled(probe.first), 40, "the revert at boot")
    assert probe.description() == "Probe first"
    _, generations = probe.tool("list", "probe")
    reasons = {entry["generation"]: entry["reason"] for entry in generations["generations"]}
    assert "reboot" in reasons[answer["generation"]]


def test_confirmed_generation_survives_a_power_cut(probe: Probe) -> None:
    _, answer = probe.deploy(specification("second"))
    faults.reboot(probe.lab, HOST, hard=True)
    wait_until(lambda: probe.settled(answer["generation"]), 40, "the start")
    assert probe.description() == "Probe second"
    assert probe.status()["intact"]


def test_crash_looping_release_goes_back_with_a_diagnosis(probe: Probe) -> None:
    status, answer = probe.deploy(specification("bad", "echo cannot find the ledger >&2; exit 7"))
    assert status == 1
    assert answer["generation"] == probe.first
    assert (answer["state"], answer["restored_healthy"]) == ("failed", True)
    assert any("cannot find the ledger" in line for line in answer["journal"])
    assert "restarted" in answer["reason"] or "failed" in answer["reason"]
    assert probe.description() == "Probe first"


def test_release_that_dies_within_its_window_goes_back(probe: Probe) -> None:
    status, answer = probe.deploy(specification("mortal", "sleep 4; exit 7"), timeout_s=600)
    assert (status, answer["state"]) == (0, "provisional")
    wait_until(lambda: probe.settled(probe.first), 60, "the revert")
    _, generations = probe.tool("list", "probe")
    states = {entry["generation"]: entry["state"] for entry in generations["generations"]}
    assert states[answer["generation"]] == "failed"


def test_killed_run_is_undone_by_the_watchdog(probe: Probe) -> None:
    """Healthy never comes: the run waits in its gate, is killed there, and the timer takes over."""
    spec = specification("slow")
    spec["health"] |= {"command": ["false"], "healthy_deadline_s": 200, "progress_deadline_s": 300}
    assert probe.tool("stage", "probe", spec=spec)[0] == 0
    script = f"setsid {TOOL} activate probe >/dev/null 2>&1 & echo $!"
    pid = probe.lab.exec(HOST, ["sh", "-c", script]).stdout.strip()
    wait_until(lambda: probe.description() == "Probe slow", 20, "the switch")
    probe.lab.exec(HOST, ["kill", "-KILL", pid])
    wait_until(lambda: probe.settled(probe.first), 40, "the revert")
    assert probe.description() == "Probe first"


STANDBY_UNIT = "mt5crs-probe-standby.service"


@pytest.mark.parametrize(
    "end",
    [
        "kill",
        pytest.param("reboot", marks=pytest.mark.slow(reason="killed and cut off leave the same files")),
    ],
    ids=["killed", "power cut"],
)
def test_standby_that_loses_its_run_is_taken_back(probe: Probe, end: str) -> None:
    """The comparison takes for ever; its run goes, and nothing may be left of the candidate."""
    unit = "[Unit]\nDescription=Standby\n[Service]\nExecStart=/opt/mt5crs/probe/standby/serve\n"
    beside = {
        "units": {STANDBY_UNIT: unit},
        "start": [STANDBY_UNIT],
        "start_timeout_s": 10,
        "check": ["sleep", "600"],
        "check_timeout_s": 600,
    }
    assert probe.tool("stage", "probe", spec=specification("new", standby=beside))[0] == 0
    before = probe.pid()
    script = f"setsid {TOOL} activate probe --standby >/dev/null 2>&1 & echo $!"
    run = probe.lab.exec(HOST, ["sh", "-c", script]).stdout.strip()
    look = ["systemctl", "show", "-p", "ActiveState,LoadState", "--value", STANDBY_UNIT]
    wait_until(lambda: probe.lab.exec(HOST, look).stdout.split() == ["loaded", "active"], 20, "the standby")
    assert probe.pid() == before
    if end == "kill":
        probe.lab.exec(HOST, ["kill", "-KILL", run])
    else:
        faults.reboot(probe.lab, HOST, hard=True)
    wait_until(lambda: probe.settled(probe.first), 40, "the standby taken back")
    assert probe.lab.exec(HOST, look).stdout.split() == ["not-found", "inactive"]
    left = f"ls -d /opt/mt5crs/probe/standby /run/systemd/system/{STANDBY_UNIT} 2>/dev/null; true"
    assert probe.lab.exec(HOST, ["sh", "-c", left]).stdout == ""
    assert probe.description() == "Probe first"
    assert (probe.pid() == before) == (end == "kill")


def test_first_generation_that_fails_leaves_nothing_running(probe: Probe) -> None:
    clean = f"systemctl disable --now {UNIT}; rm -rf /opt/mt5crs/probe /etc/systemd/system/{UNIT}"
    probe.lab.exec(HOST, ["sh", "-c", f"{clean}; systemctl daemon-reload"])
    status, answer = probe.deploy(specification("bad", "exit 3"))
    assert (status, answer["generation"], answer["state"]) == (1, None, "failed")
    assert "nothing ran before" in answer["error"]["message"]
    for path in ("/opt/mt5crs/probe/current", f"/etc/systemd/system/{UNIT}"):
        assert probe.lab.exec(HOST, ["test", "-L", path], check=False).returncode == 1, path
    load = probe.lab.exec(HOST, ["systemctl", "show", "-p", "LoadState", "--value", UNIT]).stdout.strip()
    assert load == "not-found"


def test_stopped_holder_keeps_its_lock_and_is_named(probe: Probe) -> None:
    spec = specification("slow")
    spec["health"] |= {"command": ["false"], "healthy_deadline_s": 200, "progress_deadline_s": 300}
    assert probe.tool("stage", "probe", spec=spec)[0] == 0
    script = f"setsid {TOOL} activate probe >/dev/null 2>&1 & echo $!"
    pid = probe.lab.exec(HOST, ["sh", "-c", script]).stdout.strip()
    wait_until(lambda: probe.description() == "Probe slow", 20, "the switch")
    probe.lab.exec(HOST, ["kill", "-STOP", pid])
    status, answer = probe.tool("confirm", "probe", "--lock-timeout", "0.2")
    assert status == 2
    assert f"kill -CONT {pid}" in answer["error"]["remedy"]
    probe.lab.exec(HOST, ["kill", "-KILL", pid])
    wait_until(lambda: probe.settled(probe.first), 40, "the revert")


def test_code_runs_from_a_runtime_built_without_network(probe: Probe) -> None:
    latest = json.loads((ROOT / "dist" / "latest.json").read_text())["bundles"]["linux"]
    public = signing.public_key(signing.signing_key(ROOT))
    probe.put("/etc/mt5crs/allowed_signers", signing.allowed_signers_line(public).encode(), "0644")
    path = f"/opt/mt5crs/bundles/{latest['file']}"
    probe.put(path, (ROOT / "dist" / latest["file"]).read_bytes(), "0644")
    program = "import mt5crs, zmq, msgspec, time; time.sleep(1e6)"
    serve = f"exec /opt/mt5crs/probe/current/venv/bin/python -c '{program}'"
    status, staged = probe.tool(
        "stage", "probe", "--bundle", path, spec=specification("code", serve, code=True)
    )
    assert (status, staged["bundle"]) == (0, latest["content"]), staged
    status, answer = probe.tool("activate", "probe", "--confirm-timeout", "0")
    assert status == 0, answer
    script = probe.lab.exec(HOST, ["head", "-1", "/opt/mt5crs/probe/current/venv/bin/mt5crs"]).stdout
    interpreter = script.removeprefix("#!").strip()
    assert probe.lab.exec(HOST, [interpreter, "-c", "import sys; print(sys.prefix)"]).stdout.startswith(
        "/opt/mt5crs/runtimes/"
    )
