"""Looks up the facts: each host is asked once, over SSH; the rest is looked at on this machine."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from deploy.controller.programs import MissingProgramError, require
from deploy.fleet.inventory import WINDOWS, Fleet, InventoryError
from deploy.fleet.rendering import RenderingError
from deploy.fleet.services import NAMES
from deploy.fleet.vault_password import PROJECT
from deploy.policy.enforcing import verdict_of
from deploy.policy.gathering import groups_of, plain_settings, vault_texts
from deploy.preflight import on_host, on_windows
from deploy.preflight.checks.documents import NEEDED
from deploy.preflight.facts import (
    Asked,
    Facts,
    GatewaySaid,
    Host,
    HostAnswer,
    PolicyFinding,
    PolicySaid,
    Project,
    Section,
    Sections,
    Unknown,
)
from deploy.remote import script, windows_play, windows_script
from deploy.rollout import plan
from deploy.rollout.batches import OrderError
from deploy.rollout.generation import BundleError
from mt5crs.foreign_text import shown_tree

_TIMEOUT_S = 60
_HISTORY_S = 120
_TELLING = 8
"""A shorter text stands in many files without being the secret; SEC-004 refuses such secrets."""
OF_THE_RELEASE = frozenset({"Stage gateway", "Upload the bundle for gateway", "Release tool"})
"""Tasks of the phase `prepare` that bring code and configuration, not the host's own settings."""
_SBOM = "sbom.cdx.json"


def gather(fleet: Fleet, gateways: Mapping[str, GatewaySaid | Unknown], old_pages: tuple[str, ...]) -> Facts:
    """Everything that checks may know. gateways: what each said; old_pages: see `Project`."""
    with ThreadPoolExecutor(max(1, len(fleet.hosts)) + 3) as pool:
        history = pool.submit(secrets_in_history, vault_texts(fleet), PROJECT)
        windows = pool.submit(of_windows, fleet)
        linux = [host for host in fleet.hosts if host not in fleet.in_group(WINDOWS)]
        told = (
            dict(zip(linux, pool.map(lambda host: ask(fleet, host), linux), strict=True)) | windows.result()
        )
        answers = {host: told[host] for host in fleet.hosts}
    project = Project(history.result(), _pages(), old_pages, _sboms(fleet))
    return Facts(
        environment=fleet.environment,
        now=time.time(),
        hosts={host: _host(fleet, host) for host in fleet.hosts},
        answers=answers,
        gateways=gateways,
        policy=_policy(fleet),
        differs=_differs(fleet, answers),
        project=project,
        webhook=_each_hub_has(fleet, "monitoring_webhook_url"),
        signed_webhook=_each_hub_has(fleet, "hub_webhook_url"),
        watchdog=_each_hub_has(fleet, "monitoring_watchdog_url"),
        watchers=_watchers(fleet),
    )


def _each_hub_has(fleet: Fleet, variable: str) -> bool:
    hubs = fleet.in_group("hub")
    return bool(hubs) and all(bool(fleet.hosts[hub].get(variable)) for hub in hubs)


def _watchers(fleet: Fleet) -> tuple[str, ...]:
    for variables in fleet.hosts.values():
        return tuple(variables.get("monitoring_hub_watchers") or ())
    return ()


def _host(fleet: Fleet, host: str) -> Host:
    services = tuple(name for name in NAMES if plan.has_service(fleet, host, name))
    return Host(groups_of(fleet, host), services, plain_settings(fleet.hosts[host]))


# ---- hosts ----


def ask(fleet: Fleet, host: str) -> Asked | Unknown:
    """The one question to a host with Linux."""
    sent = time.time()
    reply = script.run(fleet.hosts[host], on_host, json.dumps(question(fleet, host)), timeout_s=_TIMEOUT_S)
    received = time.time()
    if reply.status != 0:
        return Unknown(reply.why)
    answer = read(reply.output)
    return answer if isinstance(answer, Unknown) else Asked(answer, sent, received)


def of_windows(fleet: Fleet) -> dict[str, Asked | Unknown]:
    """What the hosts with Windows answer to the same question, and what a deployment would change there.

    By plays, since only Ansible reaches them: one for each host and its question, one for all baselines.
    """
    hosts = fleet.in_group(WINDOWS)
    if not hosts:
        return {}
    found: dict[str, Asked | Unknown] = {}
    for host in hosts:
        sent = time.time()
        reply = windows_script.run(fleet, [host], on_windows, json.dumps(question(fleet, host)))[host]
        received = time.time()
        answer = read(reply.output) if reply.status == 0 else Unknown(reply.why)
        found[host] = answer if isinstance(answer, Unknown) else Asked(answer, sent, received)
    in_force = baseline_in_force(windows_play.run(fleet.inventory, hosts, "prepare", {}, check=True), hosts)
    return {
        host: one if isinstance(one, Unknown) else with_section(one, in_force[host])
        for host, one in found.items()
    }


def with_section(asked: Asked, in_force: Section[str]) -> Asked:
    """The answer with what was asked of Ansible. Pure."""
    sections = msgspec.structs.replace(asked.answer.sections, in_force=in_force)
    return replace(asked, answer=msgspec.structs.replace(asked.answer, sections=sections))


def baseline_in_force(played: windows_play.Played, hosts: Sequence[str]) -> dict[str, Section[str]]:
    """Host → empty when a run would change nothing of the baseline, else what it would; unknown when it ended
    early. Pure.

    What belongs to the release is judged by the release tool's own status (G-SYS-03, G-SYS-05).
    """
    why = {one.host: f"{one.task}: {one.reason}" for one in played.troubles}
    found = {}
    for host in hosts:
        changed = [task for task in played.changed.get(host, ()) if task not in OF_THE_RELEASE]
        early = why.get(host) or ("" if played.good else "the run of Ansible ended early")
        found[host] = (
            Section[str](error=early)
            if early
            else Section[str](value=f"a deployment would: {', '.join(changed)}" if changed else "")
        )
    return found


def question(fleet: Fleet, host: str) -> dict[str, Any]:
    """What a host is to look at beside itself; see `on_host.answer`."""
    of = fleet.hosts[host]
    inf = host in fleet.in_group("inf")
    through = fleet.hosts.get(str(of.get("fleet_gateway")), {}) if inf else {}
    services = (
        ("reconciler", "strategy") if inf else ("gateway",) if host in fleet.in_group("gateway") else ()
    )
    asked: dict[str, Any] = {
        "health": {name: (of[f"{name}_metrics_address"], of[f"{name}_metrics_port"]) for name in services},
        "reach": {
            f"{of['fleet_gateway']}:{through[name]}": (through["fleet_address"], through[name])
            for name in ("gateway_port", "gateway_pub_port")
            if through
        },
        "instance": str(of.get("fleet_instance") or ""),
        "steered": of.get("baseline_clock_control") is True,
        "gateway": host in fleet.in_group("gateway"),
        "inf": inf,
    }
    if host in fleet.in_group("hub"):
        address = str(of["fleet_address"])
        shown = f"[{address}]" if ":" in address else address
        asked["prometheus"] = f"http://{shown}:{of['monitoring_prometheus_port']}"
        asked["health"]["hub"] = (of["hub_http_address"], of["hub_http_port"])
        asked["alertmanager"] = f"http://{shown}:{of['monitoring_alertmanager_port']}"
    return asked


def read(text: str) -> HostAnswer | Unknown:
    """A host's answer; a section of another form than expected is unknown by itself. Pure."""
    try:
        told = shown_tree(json.loads(text))
        sections = {}
        for field in msgspec.structs.fields(Sections):
            try:
                sections[field.name] = msgspec.convert(told["sections"].get(field.name), field.type)
            except msgspec.ValidationError as error:
                unreadable = {"error": f"its {field.name} cannot be read ({error})"}
                sections[field.name] = msgspec.convert(unreadable, field.type)
        return HostAnswer(
            began=float(told["began"]),
            ended=float(told["ended"]),
            python=str(told["python"]),
            sections=Sections(**sections),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Unknown(f"it gave no answer that can be read ({type(error).__name__})")


# ---- this machine ----


def _policy(fleet: Fleet) -> PolicySaid | Unknown:
    try:
        verdict = verdict_of(fleet, identified=False)
    except InventoryError as error:
        return Unknown(str(error))
    findings = (
        PolicyFinding(one.rule, one.severity, one.scope, one.text, one.waiver) for one in verdict.findings
    )
    return PolicySaid(tuple(findings), verdict.problems, verdict.unreadable)


def _differs(fleet: Fleet, answers: Mapping[str, Asked | Unknown]) -> Mapping[str, tuple[str, ...]] | Unknown:
    known = {}
    for host, asked in answers.items():
        section = asked.answer.sections.status if isinstance(asked, Asked) else None
        if section is not None and section.value is not None:
            known[host] = section.value
    differs: dict[str, tuple[str, ...]] = dict.fromkeys(known, ())
    try:
        work = plan.make(fleet, known).work if known else {}
    except (BundleError, OrderError, RenderingError) as error:
        return Unknown(f"what is wanted could not be planned ({error})")
    for (host, service), of in work.items():
        if not of.todo.nothing:
            differs[host] = (*differs[host], service)
    return differs


def secrets_in_history(texts: Mapping[str, str], project: Path) -> tuple[str, ...] | Unknown:
    """Where the text of a secret was added in any commit of the project, one sentence each."""
    sought = {text.encode(): name for name, text in texts.items() if len(text) >= _TELLING}
    if not sought:
        return Unknown("the fleet's vault holds no secret that could be searched for")
    try:
        git = [require("git"), "-C", str(project)]
        shallow = subprocess.run(
            [*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True, check=False
        )
        if shallow.stdout.strip() != "false":
            why = "only a part of it is here" if shallow.returncode == 0 else "this is no git repository"
            return Unknown(f"the history cannot be searched: {why}; use a whole clone")
        command = [*git, "log", "--all", "--text", "--no-ext-diff", "-U0", "-p"]
        with subprocess.Popen(
            [*command, "--format=format:commit %h"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as log:
            assert log.stdout is not None  # noqa: S101
            assert log.stderr is not None  # noqa: S101
            found = list(dict.fromkeys(_added(log.stdout, sought)))
            said = log.stderr.read().decode(errors="replace").strip()
            status = log.wait(_HISTORY_S)
    except (OSError, MissingProgramError, subprocess.TimeoutExpired) as error:
        return Unknown(f"the history cannot be read ({error})")
    if status != 0:
        return Unknown(f"the history cannot be read ({said or f'git ended with status {status}'})")
    return tuple(found)


def _added(lines: Any, sought: Mapping[bytes, str]) -> Iterator[str]:
    commit = "unknown"
    shortest = min(map(len, sought))
    for line in lines:
        if line.startswith(b"commit "):
            commit = line[7:].decode(errors="replace").strip()
        elif len(line) > shortest and line.startswith(b"+"):
            for text, name in sought.items():
                if text in line:
                    yield f"the secret {name} was written in commit {commit}"


def _pages() -> dict[str, str]:
    return {
        path: (PROJECT / path).read_text(encoding="utf-8") for path in NEEDED if (PROJECT / path).is_file()
    }


def _sboms(fleet: Fleet) -> dict[str, bool]:
    found = {}
    for name in dict.fromkeys(values.get("fleet_bundle") for values in fleet.hosts.values()):
        path = PROJECT / str(name)
        try:
            with tarfile.open(path, "r:") as archive:
                found[path.name] = archive.getmember(_SBOM).size > 0
        except (OSError, tarfile.TarError, KeyError):
            found[path.name] = False
    return found
