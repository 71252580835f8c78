"""What a host answers to the one question of a go/no-go: one JSON object, a section for each thing to know.

Runs on the host, as root, with the system's own Python and nothing but its standard library. Changes nothing.
A section that could not be looked at says why: {"error": …} instead of {"value": …}.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import pwd
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, create_connection, socket
from typing import Any

BASE = Path("/opt/mt5crs")
STATE = Path("/var/lib/mt5crs")
TOOL = "/usr/local/sbin/mt5crs-release"
_PROGRAM_S = 20
_ANSWER_S = 5
_ACTS = 50
"""Newest halts and resumes that are told."""
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def run(*words: str, status: int | None = 0) -> str:
    """What a program prints. RuntimeError with its last line when it ends with another status."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=_PROGRAM_S, check=False)
    if status is not None and done.returncode != status:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise RuntimeError(f"{Path(words[0]).name} ended with status {done.returncode}: {said}")
    return done.stdout


def services(instance: str) -> list[str]:
    """Services of an instance (or of none) that have a generation on this host, by their names there."""
    names = sorted(path.parent.name for path in BASE.glob("*/current"))
    return [name for name in names if name.partition("@")[2] == instance]


def plain(name: str) -> str:
    """Which service it is, whatever its instance."""
    return name.partition("@")[0]


def status(instance: str) -> Any:
    """What the release tool says."""
    return json.loads(run(TOOL, "status", "--json", *(["--instance", instance] if instance else [])))


def env_files(instance: str) -> list[dict[str, Any]]:
    """Every `.env` that counts: mode, owner, the names that have no value."""
    found = []
    there = [
        BASE / name / pointer / ".env" for name in services(instance) for pointer in ("current", "standby")
    ]
    for path in sorted(path for path in there if path.exists()):
        of = path.stat()
        empty = []
        for line in path.read_text(encoding="utf-8").splitlines():
            name, is_setting, value = line.strip().partition("=")
            if is_setting and not name.startswith("#") and not value.strip("'\""):
                empty.append(name)
        rights = {"mode": of.st_mode & 0o7777, "uid": of.st_uid}
        found.append({"path": str(path), "service": plain(path.parent.parent.name), "empty": empty, **rights})
    return found


def disks() -> list[dict[str, Any]]:
    """Free space and free inodes of the file systems that services write to."""
    places = [path for path in (BASE, STATE, Path("/var/log")) if path.exists()]
    found = []
    for path in {path.stat().st_dev: path for path in reversed(places)}.values():
        of = os.statvfs(path)
        inodes = 100.0 * of.f_favail / of.f_files if of.f_files else 100.0
        found.append({"path": str(path), "free": 100.0 * of.f_bavail / of.f_blocks, "inodes": inodes})
    return found


def writable(instance: str) -> list[dict[str, Any]]:
    """Whether each service's user can write in its own directory: tried with that user's rights."""
    found = []
    for name in services(instance):
        unit = f"mt5crs-{name}.service"
        user = run("systemctl", "show", "-p", "User", "--value", unit).strip()
        path = STATE / name
        if not user or not path.is_dir():
            continue
        of = pwd.getpwnam(user)
        ids = {"user": of.pw_uid, "group": of.pw_gid, "extra_groups": os.getgrouplist(user, of.pw_gid)}
        test = ["test", "-w", str(path), "-a", "-x", str(path)]
        done = subprocess.run(test, check=False, timeout=_PROGRAM_S, **ids)  # type: ignore[call-overload]
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        found.append({"path": str(path), "user": user, "writable": done.returncode == 0 and not read_only})
    return found


def memory() -> float:
    """Percent of the memory that programs can still have."""
    of = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        of[name] = float(value.split()[0])
    return 100.0 * of["MemAvailable"] / of["MemTotal"]


def clock() -> bool:
    """Whether chrony has set the clock of this host."""
    told = dict(line.split(":", 1) for line in run("chronyc", "tracking").splitlines() if ":" in line)
    return next(value.strip() for name, value in told.items() if name.startswith("Leap")) == "Normal"


def failed_units() -> list[str]:
    """Units of this host that systemd calls failed."""
    lines = run("systemctl", "--failed", "--plain", "--no-legend").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def in_force() -> str:
    """Empty when firewall, sshd and kernel settings are in force, else what is not."""
    done = subprocess.run(
        ["sh", f"{BASE}/baseline/current/in_force.sh", "check"],
        capture_output=True,
        text=True,
        timeout=_PROGRAM_S,
        check=False,
    )
    if done.returncode == 0:
        return ""
    return (done.stderr.strip() or done.stdout.strip() or "the check said nothing").splitlines()[-1]


def interpreters(instance: str) -> list[dict[str, Any]]:
    """The Python of each service's runtime: its version, or why it does not start."""
    found = []
    for name in services(instance):
        python = f"{BASE}/{name}/current/venv/bin/python"
        if not os.path.lexists(BASE / name / "current/venv"):
            continue
        try:
            version = run(
                python, "-c", "import mt5crs, sys; print('%d.%d.%d' % sys.version_info[:3])"
            ).strip()
            found.append({"service": plain(name), "version": version, "error": ""})
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            found.append({"service": plain(name), "version": "", "error": str(error)})
    return found


def databases(instance: str) -> list[dict[str, Any]]:
    """What SQLite says of each service's files, read without changing them."""
    found = []
    for path in (path for name in services(instance) for path in sorted((STATE / name).glob("*.db"))):
        try:
            with _opened(path) as db:
                said = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.Error as error:
            said = f"{error} (looked at for {_PROGRAM_S} s at most)"
        found.append({"path": str(path), "said": said})
    return found


def _opened(path: Path) -> closing[sqlite3.Connection]:
    """A database that is only read, for a limited time: a service goes on writing it."""
    db = sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True, timeout=_ANSWER_S)
    until = time.monotonic() + _PROGRAM_S
    db.set_progress_handler(lambda: int(time.monotonic() > until), 100_000)
    return closing(db)


def health(address: str, port: int) -> Any:
    """What a service says of itself."""
    connection = http.client.HTTPConnection(address, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def state(instance: str) -> dict[str, Any]:
    """What the reconciler publishes, without positions and orders."""
    path = f"/run/mt5crs-reconciler{f'@{instance}' if instance else ''}/state.sock"
    with socket(AF_UNIX, SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(path)
        with connection.makefile("rb") as lines:
            told = json.loads(lines.readline())
    return {name: value for name, value in told.items() if name not in ("positions", "orders")}


def reach(address: str, port: int) -> str:
    """Empty when a connection can be made, else why not."""
    try:
        create_connection((address, port), timeout=_ANSWER_S).close()
    except OSError as error:
        return str(error)
    return ""


def acts() -> list[dict[str, Any]]:
    """The newest resumes, and halts of people, that the gateway recorded."""
    with _opened(STATE / "gateway/control.db") as db:
        rows = db.execute(
            "SELECT at_msc, act, magic FROM acts WHERE client NOT IN ('backup', 'gateway') "
            "ORDER BY at_msc DESC LIMIT ?",
            (_ACTS,),
        )
        return [{"at": at / 1000, "act": act, "magic": magic} for at, act, magic in rows]


def signers() -> dict[str, Any]:
    """Whose bundles this host takes, and who may change that."""
    path = Path("/etc/mt5crs/allowed_signers")
    of = path.stat()
    lines = [line for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]
    return {"mode": of.st_mode & 0o7777, "uid": of.st_uid, "lines": lines}


def ask(url: str) -> Any:
    """A JSON document over HTTP."""
    with _direct(url, timeout=_ANSWER_S) as answer:
        return json.loads(answer.read())


def firing(prometheus: str) -> list[dict[str, str]]:
    """Alerts that fire now."""
    told = ask(f"{prometheus}/api/v1/alerts")["data"]["alerts"]
    return [
        {name: str(one["labels"].get(name, "")) for name in ("alertname", "host", "severity")}
        for one in told
        if one["state"] == "firing" and one["labels"].get("severity") != "info"
    ]


def rules(prometheus: str) -> list[dict[str, str]]:
    """Alert rules that Prometheus has loaded, and how they fare."""
    groups = ask(f"{prometheus}/api/v1/rules?type=alert")["data"]["groups"]
    return [
        {"name": rule["name"], "health": rule["health"], "error": rule.get("lastError", "")}
        for group in groups
        for rule in group["rules"]
    ]


def targets(prometheus: str) -> list[dict[str, str]]:
    """What Prometheus scrapes, and whether it succeeds."""
    told = ask(f"{prometheus}/api/v1/targets?state=active")["data"]["activeTargets"]
    return [
        {
            "job": one["labels"].get("job", ""),
            "host": one["labels"].get("host", ""),
            "health": one["health"],
            "error": one.get("lastError", ""),
        }
        for one in told
    ]


def notified(prometheus: str) -> list[str]:
    """Alertmanagers that Prometheus sends alerts to."""
    return [one["url"] for one in ask(f"{prometheus}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]]


def silences(alertmanager: str) -> list[dict[str, str]]:
    """Alerts that somebody has silenced."""
    told = ask(f"{alertmanager}/api/v2/silences")
    return [
        {
            "by": str(one.get("createdBy", "")),
            "why": str(one.get("comment", "")),
            "what": ", ".join(f"{of['name']}={of['value']}" for of in one["matchers"]),
            "until": str(one["endsAt"]),
        }
        for one in told
        if one["status"]["state"] == "active"
    ]


def promtool() -> str:
    """Empty when the deployed configuration and rules of Prometheus are valid, else what is not."""
    try:
        run("promtool", "check", "config", f"{BASE}/monitoring/current/prometheus.yml")
    except RuntimeError as error:
        return str(error)
    return ""


def runbook() -> str:
    """The runbook that is shown on the Hub."""
    return (BASE / "monitoring/current/consoles/runbook.html").read_text(encoding="utf-8")


def deployments() -> list[dict[str, Any]]:
    """The newest deployments of the fleet's record."""
    told = json.loads(run(TOOL, "deployment", "list", "--json"))["deployments"]
    return [
        {name: one.get(name) for name in ("id", "started", "ended", "who", "why", "action", "outcome")}
        for one in told[:200]
    ]


def backups() -> dict[str, Any]:
    """When each host was last backed up, and when a restore was last proven (Unix time; None: never)."""
    newest: dict[str, float] = {}
    for path in sorted((STATE / "backups").glob("*/metadata.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        newest |= {host: float(told["time"]) for host in told["hosts"]}
    proven = STATE / "backups/proven.json"
    at = float(json.loads(proven.read_text(encoding="utf-8"))["at"]) if proven.exists() else None
    return {"hosts": newest, "proven": at}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """All sections. asked: `health` (service → address, port), `reach` (name → address, port), `steered`,
    `inf`, `gateway` (whether it is one), `instance` (whose services are meant, empty: those of none), and on
    the Hub `prometheus` and `alertmanager` (their addresses).
    """
    began, instance = time.time(), str(asked["instance"])
    wanted: dict[str, Callable[[], Any]] = {
        "status": lambda: status(instance),
        "env": lambda: env_files(instance),
        "disks": disks,
        "writable": lambda: writable(instance),
        "memory": memory,
        "failed_units": failed_units,
        "in_force": in_force,
        "interpreters": lambda: interpreters(instance),
        "databases": lambda: databases(instance),
        "signers": signers,
        "reboot": lambda: Path("/run/reboot-required").exists(),
        "health": lambda: {name: _section(lambda of=of: health(*of)) for name, of in asked["health"].items()},  # type: ignore[misc]
        "reach": lambda: {name: reach(*of) for name, of in asked["reach"].items()},
    }
    if asked.get("steered"):
        wanted["clock"] = clock
    if asked.get("inf"):
        wanted["state"] = lambda: state(instance)
    if asked.get("gateway"):
        wanted["acts"] = acts
    if asked.get("prometheus"):
        prometheus, alertmanager = asked["prometheus"], asked["alertmanager"]
        wanted |= {
            "firing": lambda: firing(prometheus),
            "rules": lambda: rules(prometheus),
            "targets": lambda: targets(prometheus),
            "notified": lambda: notified(prometheus),
            "silences": lambda: silences(alertmanager),
            "promtool": promtool,
            "runbook": runbook,
            "deployments": deployments,
            "backups": backups,
        }
    with ThreadPoolExecutor(8) as pool:
        told = dict(zip(wanted, pool.map(_section, wanted.values()), strict=True))
    return {"began": began, "ended": time.time(), "python": platform.python_version(), "sections": told}


def _section(look: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": look()}
    except Exception as error:  # whatever it is: the section is unknown, and why
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
