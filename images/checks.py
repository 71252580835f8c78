"""Does the stack run as it must? What `make verify` asks of hosts, asked of containers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from typing import Any

from images.errors import ImageError
from images.services import PYTHON, SERVICES, USER, Service, named
from images.stack import Running
from mt5crs.operate.report import Report, Warned

_PROBE = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/1/status").read().splitlines())
written = []
for place in ("/", "/usr", "/opt/mt5crs", "/var/lib/mt5crs", "/var/lib/prometheus", "/etc"):
    if not os.path.isdir(place):
        continue
    try:
        open(place + "/.probe", "w").close()
        written.append(place)
    except OSError:
        pass
secrets = {}
for name in os.listdir("/run/secrets") if os.path.isdir("/run/secrets") else ():
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
SCRAPED = frozenset(service.name for service in SERVICES)
_WITHOUT_SECRETS = ("prometheus",)
_MORE_SECRETS = ("hub-alerts-token", "hub-webhook-url", "hub-webhook-secret")
_EXPECTED_ALERTS = ("Mt5crsWatchdog",)
_SETTLED_S = 30.0
"""A Prometheus that has just begun has scraped everything, and told Alertmanager of the watchdog."""


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
    report.run("prometheus: scrapes every service", lambda: _scrapes(running), expected)
    report.run("prometheus: alert rules", lambda: _rules(running), expected)
    report.run("alertmanager: is told of alerts", lambda: _alerted(running), expected)
    report.run("hub: page", lambda: _page(running), expected)
    report.run("alerts", lambda: _quiet(running), expected)
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
    wanted = () if service in _WITHOUT_SECRETS else (service, *(_MORE_SECRETS if service == "hub" else ()))
    if told["secrets"] != {name: ["0o600", USER] for name in wanted}:
        problems.append(f"its secrets are not one of mode 0600 that is its own: {told['secrets']}")
    if told["programs"] != sorted(named(service).programs):
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


def scrape_problems(targets: Collection[dict[str, Any]]) -> list[str]:
    """Return what Prometheus does not scrape as it should, from its list of targets. Pure."""
    jobs = {each["labels"]["job"] for each in targets}
    found = [f"no target of {name}" for name in sorted(SCRAPED - jobs)]
    return found + [
        f"{each['labels']['job']}: {each['lastError'] or 'not scraped yet'}"
        for each in targets
        if each["health"] != "up"
    ]


def _until(question: Callable[[], str]) -> str:
    """Ask until the answer is no error; the last error counts."""
    end = time.monotonic() + _SETTLED_S
    while True:
        try:
            return question()
        except ImageError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


def _api(running: Running, path: str) -> Any:
    return json.loads(running.told("prometheus", f"/api/v1/{path}"))["data"]


def _scrapes(running: Running) -> str:
    def ask() -> str:
        targets = _api(running, "targets?state=active")["activeTargets"]
        if problems := scrape_problems(targets):
            raise ImageError("; ".join(problems))
        return f"{len(targets)} of {len(targets)} targets are up"

    return _until(ask)


def _rules(running: Running) -> str:
    rules = [rule for group in _api(running, "rules?type=alert")["groups"] for rule in group["rules"]]
    broken = [rule["name"] for rule in rules if rule["health"] == "err"]
    if broken or not rules:
        raise ImageError(f"rules that cannot be evaluated: {', '.join(broken) or 'there are none at all'}")
    return f"{len(rules)} are evaluated"


def _alerted(running: Running) -> str:
    def ask() -> str:
        if not _api(running, "alertmanagers")["activeAlertmanagers"]:
            raise ImageError("Prometheus knows no Alertmanager")
        told = json.loads(running.told("alertmanager", "/api/v2/alerts"))
        if "Mt5crsWatchdog" not in {each["labels"]["alertname"] for each in told}:
            raise ImageError("the alert Mt5crsWatchdog, which always fires, has not arrived")
        return "Mt5crsWatchdog has arrived"

    return _until(ask)


def _page(running: Running) -> str:
    if b"<html" not in running.told("hub", "/"):
        raise ImageError("what it shows is no page")

    def ask() -> str:
        health = json.loads(running.told("hub", "/health"))
        silent = [name for name, state in health["gateways"].items() if state != "listening"]
        if silent or not health["gateways"] or not health["alerts_known"]:
            raise ImageError(f"it does not hear {', '.join(silent) or 'Prometheus'}")
        return "it shows the gateway's books and Prometheus' alerts"

    return _until(ask)


def _quiet(running: Running) -> str:
    firing = {
        each["labels"]["alertname"]
        for each in _api(running, "alerts")["alerts"]
        if each["state"] == "firing" and each["labels"].get("severity") != "info"
    }
    if loud := sorted(firing.difference(_EXPECTED_ALERTS)):
        raise Warned(f"{', '.join(loud)}: see the Hub's page")
    return "none but the watchdog"
