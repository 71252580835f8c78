"""Does the stack run as it must? What `make verify` asks of hosts, asked of containers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from images.errors import ImageError
from images.services import PYTHON, SERVICES, USER, Service
from images.stack import Running
from mt5crs.operate.report import Report, Warned

_PROBE = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/1/status").read().splitlines())
written = []
for place in ("/", "/usr", "/opt/mt5crs", "/var/lib/mt5crs", "/etc"):
    try:
        open(place + "/.probe", "w").close()
        written.append(place)
    except OSError:
        pass
secrets = {}
for name in os.listdir("/run/secrets"):
    found = os.stat("/run/secrets/" + name)
    secrets[name] = [oct(found.st_mode & 0o777), found.st_uid]
programs = [name for path in ("/usr/bin", "/usr/sbin", "/usr/local/bin") if os.path.isdir(path)
            for name in os.listdir(path)]
print(json.dumps({
    "uid": status["Uid"].split(), "privileges": status["NoNewPrivs"].strip(),
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")],
    "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY), "written": written,
    "secrets": secrets, "programs": sorted(programs),
    "environment": sorted(open("/proc/1/environ").read().split(chr(0))),
}))
"""
_PROGRAMS = ["mt5crs", "python3", "python3.13"]


def check(running: Running) -> Report:
    """Ask everything of every container; return the report."""
    report = Report(title=f"Stack {running.stack.name}")
    expected = (ImageError, ValueError, KeyError)
    for service in SERVICES:
        report.run(f"{service.name}: health command", _bound(_health, running, service), expected)
        report.run(f"{service.name}: confinement", _bound(_confined, running, service), expected)
        report.run(f"{service.name}: ports on loopback", _bound(_ports, running, service), expected)
        report.run(f"{service.name}: limits", _bound(_limits, running, service), expected)
    for name in ("reconciler", "strategy"):
        report.run(f"{name}: link audit", lambda name=name: _link(running, name), expected)  # type: ignore[misc]
    return report


def confinement_problems(told: dict[str, Any], service: str) -> list[str]:
    """Return what a container may do and must not, from what it told of itself. Pure."""
    problems = []
    if set(told["uid"]) != {str(USER)}:
        problems.append(f"it runs as user {', '.join(told['uid'])}, not {USER}")
    if any(told["capabilities"]):
        problems.append("it has capabilities")
    if told["privileges"] != "1":
        problems.append("it may gain privileges")
    if not told["read_only"]:
        problems.append("its root file system can be written")
    if told["written"]:
        problems.append(f"it can write to {', '.join(told['written'])}")
    if told["secrets"] != {service: ["0o600", USER]}:
        problems.append(f"its secrets are not one of mode 0600 that is its own: {told['secrets']}")
    if told["programs"] != _PROGRAMS:
        problems.append(f"it has programs {', '.join(told['programs'])}")
    shown = [
        name
        for name, _, value in (entry.partition("=") for entry in told["environment"])
        if "SECRET" in name and value and not name.endswith("_FILE")
    ]
    if shown:
        problems.append(f"its environment holds {', '.join(shown)}")
    return problems


def _bound(
    question: Callable[[Running, Service], str], running: Running, service: Service
) -> Callable[[], str]:
    return lambda: question(running, service)


def _health(running: Running, service: Service) -> str:
    done = running.podman.run("healthcheck", "run", running.stack.container(service.name), check=False)
    if done.returncode != 0:
        raise ImageError(f"`podman healthcheck run` says {(done.stdout + done.stderr).strip() or 'no'}")
    return " ".join(service.health[1:])


def _confined(running: Running, service: Service) -> str:
    done = running.execute(service.name, PYTHON, "-c", _PROBE)
    if done.returncode != 0:
        raise ImageError(f"it cannot be asked: {done.stderr.strip()}")
    problems = confinement_problems(json.loads(done.stdout), service.name)
    if problems:
        raise ImageError("; ".join(problems))
    return f"user {USER}, no capabilities, nothing written but its own, no shell, secret 0600"


def _ports(running: Running, service: Service) -> str:
    told = running.podman.run("port", running.stack.container(service.name)).stdout.split("\n")
    published = [line.partition(" -> ")[2] for line in told if line]
    elsewhere = [where for where in published if not where.startswith("127.0.0.1:")]
    if elsewhere or len(published) != len(service.ports):
        raise ImageError(f"published are {', '.join(published) or 'none'}")
    return ", ".join(published)


def _limits(running: Running, service: Service) -> str:
    if not running.limited:
        raise Warned("NOT in force: this machine has no cgroup v2 controllers for cpu, memory and pids")
    asked = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"
    told = running.podman.run(
        "container", "inspect", "--format", asked, running.stack.container(service.name)
    ).stdout.split()
    if len(told) != 3 or any(int(limit) <= 0 for limit in told):
        raise ImageError(f"memory, CPU and processes have the limits {' '.join(told)}; 0 is none")
    return f"{int(told[0]) >> 20} MiB, {int(told[1]) / 1e9:g} CPU, {told[2]} processes"


def _link(running: Running, service: str) -> str:
    done = running.execute(service, PYTHON, "-m", "mt5crs", "link", "--json")
    findings = json.loads(done.stdout or "{}").get("findings", [])
    # Who only observes cannot try an order: the audit of the other one does.
    may_skip = {8} if service == "reconciler" else set()
    broken = [
        f"{each['name']}: {each['detail']}"
        for each in findings
        if each["verdict"] == "FAIL" or (each["verdict"] == "SKIP" and int(each["name"][0]) not in may_skip)
    ]
    if broken or len(findings) != 9:
        raise ImageError("; ".join(broken) or f"{len(findings)} of 9 layers answered: {done.stderr.strip()}")
    return "9/9" if not may_skip else "8/8, and the dry run of an order is the strategy's"
