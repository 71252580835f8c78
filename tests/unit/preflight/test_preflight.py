"""Each check of the go/no-go fails once, and nothing that is not known passes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from deploy import preflight_reference
from deploy.commands import preflight
from deploy.commands.preflight import gateways
from deploy.preflight import on_host
from deploy.preflight.check import Check
from deploy.preflight.checks import CHECKS
from deploy.preflight.checks.documents import NEEDED
from deploy.preflight.facts import (
    Act,
    AlertRule,
    Asked,
    Backups,
    Books,
    Database,
    Deployment,
    Directory,
    Disk,
    EnvFile,
    Facts,
    Firing,
    GatewaySaid,
    Host,
    HostAnswer,
    Interpreter,
    PolicyFinding,
    PolicySaid,
    Project,
    Published,
    ScrapeTarget,
    Section,
    Sections,
    Signers,
    Silence,
    Unknown,
)
from deploy.preflight.gathering import read, secrets_in_history
from deploy.preflight.judging import Decision, Result, decide
from mt5crs.__main__ import main
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from tests.unit.checks.conftest import fleet
from tests.unit.operate.test_gateways import halt, inventory

__all__ = ["fleet"]

NOW = 1_800_000_000.0
DAY = 86400.0
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIExample"
SERVICES = {"hub-01": ("hub", "monitoring"), "inf-01": ("reconciler", "strategy"), "gtw-01": ("gateway",)}
GROUPS = {"hub-01": "hub", "inf-01": "inf", "gtw-01": "gateway"}
PORTS = {"node": dict.fromkeys(SERVICES, 9100), "gateway": {"gtw-01": 9101}, "reconciler": {"inf-01": 9102}}
SETTINGS: dict[str, Any] = {
    "baseline_release_signers": [f"ssh-ed25519 {KEY} release"],
    "baseline_clock_control": True,
    "monitoring_alert_disk_free_percent": 10.0,
    "monitoring_alert_clock_offset_s": 1.0,
    "monitoring_scrape_ports": PORTS,
    "fleet_gateway": "gtw-01",
    "fleet_magic_number": 7,
    "fleet_limits": {"dry_run": False},
    "fleet_account_login": 90,
    "gateway_account_phase": "shadow",
    "reconciler_recheck_interval_s": 5.0,
}


def status(service: str) -> dict[str, Any]:
    return {
        "current": "0002-aa",
        "previous": "0001-bb",
        "state": "confirmed",
        "intact": True,
        "bundle": "b" * 64,
        "version": "0.1.0",
        "deployment": "d1",
        "pending": None,
        "standby": None,
        "units": {f"mt5crs-{service}.service": "active"},
        "access": {"serial": 3, "own": True},
    }


def sections(host: str) -> Sections:
    services = SERVICES[host]
    code = [name for name in services if name != "monitoring"]
    path = "/var/lib/mt5crs/{0}/{1}.db"
    databases = {
        "gtw-01": [path.format("gateway", "journal")],
        "inf-01": [path.format("reconciler", "reconciler")],
    }
    common = Sections(
        status=Section({"services": {name: status(name) for name in services}, "deployment": None}),
        env=Section([EnvFile(f"/x/{name}/current/.env", name, 0o600, 0, []) for name in code]),
        disks=Section([Disk("/opt/mt5crs", 50.0, 50.0)]),
        writable=Section([Directory("/var/lib/mt5crs/x", "mt5crs", writable=True)]),
        memory=Section(50.0),
        failed_units=Section([]),
        in_force=Section(""),
        interpreters=Section([Interpreter(name, "3.13.5", "") for name in code]),
        databases=Section([Database(each, "ok") for each in databases.get(host, [])]),
        signers=Section(Signers(0o644, 0, [f'mt5crs-release namespaces="mt5crs-bundle" ssh-ed25519 {KEY}'])),
        reboot=Section(value=False),
        clock=Section(value=True),
        health=Section(
            {
                "reconciler": Section({"healthy": True, "mismatches": 0.0}),
                "strategy": Section({"healthy": True, "state": "ready", "reason": ""}),
                "hub": Section({"healthy": True, "gateways": {"gtw-01": "listening"}}),
            }
        ),
        reach=Section({"gtw-01:5555": "", "gtw-01:5556": ""}),
    )
    if host == "inf-01":
        return msgspec.structs.replace(
            common, state=Section(Published("ready", "", 7, "same", "s", 4, NOW - 1))
        )
    if host == "gtw-01":
        acts = [Act(NOW - DAY, "resume", 0), Act(NOW - DAY - 5, "halt", 0)]
        return msgspec.structs.replace(common, acts=Section(acts))
    return msgspec.structs.replace(
        common,
        firing=Section([]),
        rules=Section([AlertRule("Mt5crsHalted", "ok", "")]),
        targets=Section(
            [ScrapeTarget(job, each, "up", "") for job, hosts in PORTS.items() for each in hosts]
        ),
        notified=Section(["http://hub:9093"]),
        silences=Section([]),
        promtool=Section(""),
        runbook=Section('<strong id="mt5crshalted">'),
        deployments=Section(
            [
                Deployment("s1", "2026-11-03", "ann", "running", action="start"),
                Deployment("r1", "2026-11-02", "ann", "failed", action="recover"),
                Deployment("d1", "2026-11-01", "ann", "changed"),
            ]
        ),
        backups=Section(Backups(dict.fromkeys(SERVICES, NOW - 60), NOW - 30)),
    )


STRAY = [EnvFile(f"/x/{name}/current/.env", name, 0o600, 0, []) for name in ("hub", "gateway")]
GATEWAY = GatewaySaid(
    state="ready",
    reason="",
    login=90,
    trade_mode="DEMO",
    trade_allowed=True,
    halts=(),
    breakers=(),
    books={7: Books("s", 4, "same", ())},
    dry_run={7: False},
    strangers={},
    at=NOW,
)
GOOD = Facts(
    environment="staging",
    now=NOW,
    hosts={name: Host((GROUPS[name],), SERVICES[name], SETTINGS) for name in SERVICES},
    answers={
        name: Asked(HostAnswer(began=NOW, ended=NOW, python="3.13.5", sections=sections(name)), NOW, NOW)
        for name in SERVICES
    },
    gateways={"gtw-01": GATEWAY},
    policy=PolicySaid((), ()),
    differs=dict.fromkeys(SERVICES, ()),
    project=Project((), dict.fromkeys(NEEDED, "text"), (), {"x.tar": True}),
    webhook=True,
    watchdog=True,
)


def results(facts: Facts) -> dict[str, Result]:
    return {result.check.id: result for result in decide(facts, CHECKS).results}


def told(result: Result) -> str:
    return " | ".join(f"{one.scope}: {one.text}" for one in result.findings)


def test_a_good_fleet_is_go_and_every_check_has_looked() -> None:
    found = results(GOOD)
    assert {name: told(one) for name, one in found.items() if one.verdict != "PASS"} == {}
    assert [name for name, one in found.items() if one.age_s is None] == []
    assert decide(GOOD, CHECKS).go
    assert found["G-OPS-09"].age_s == DAY + 5, "the age is that of the oldest evidence"
    assert found["G-DAT-04"].age_s == 1.0


def test_there_are_at_least_thirty_of_all_categories_each_with_reason_and_remedy() -> None:
    assert len(CHECKS) >= 30
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert {check.category for check in CHECKS} == {"security", "system", "data", "operation", "documents"}
    assert [check.id for check in CHECKS if not (check.reason and check.remedy and check.title)] == []


# ---- each check fails once ----

Change = Callable[[Facts], Facts]


def on(host: str, **changed: Any) -> Change:
    """The host answers something else in these sections."""

    def change(facts: Facts) -> Facts:
        asked = facts.answers[host]
        assert isinstance(asked, Asked)
        values = {name: Section(value) for name, value in changed.items()}
        other = msgspec.structs.replace(asked.answer.sections, **values)
        answer = msgspec.structs.replace(asked.answer, sections=other)
        return replace(facts, answers={**facts.answers, host: replace(asked, answer=answer)})

    return change


def of_status(host: str, service: str, **changed: Any) -> Change:
    services = {name: status(name) for name in SERVICES[host]}
    services[service] |= changed
    return on(host, status={"services": services, "deployment": None})


def gateway(**changed: Any) -> Change:
    return lambda facts: replace(facts, gateways={"gtw-01": replace(GATEWAY, **changed)})


def rule(name: str, severity: str = "P0", waived: str = "") -> Change:
    finding = PolicyFinding(name, severity, "fleet", "it is broken", waived)
    return lambda facts: replace(facts, policy=PolicySaid((finding,), ()))


def project(**changed: Any) -> Change:
    return lambda facts: replace(facts, project=replace(facts.project, **changed))


def clock(seconds: float) -> Change:
    def change(facts: Facts) -> Facts:
        asked = facts.answers["inf-01"]
        assert isinstance(asked, Asked)
        answer = msgspec.structs.replace(asked.answer, began=NOW + seconds, ended=NOW + seconds)
        return replace(facts, answers={**facts.answers, "inf-01": replace(asked, answer=answer)})

    return change


def hears(gateways: dict[str, str], **said: Any) -> Change:
    return on("hub-01", health={"hub": Section({"healthy": True, "gateways": gateways, **said})})


def strategy(**said: Any) -> Change:
    of = {"reconciler": Section({"healthy": True, "mismatches": 0.0}), "strategy": Section(said)}
    return on("inf-01", health=of)


def published(**changed: Any) -> Change:
    good = Published("ready", "", 7, "same", "s", 4, NOW - 1)
    return on("inf-01", state=msgspec.structs.replace(good, **changed))


def mismatches(number: float) -> Change:
    of = {"reconciler": Section({"mismatches": number}), "strategy": Section({"healthy": True})}
    return on("inf-01", health=of)


def env(host: str, **changed: Any) -> Change:
    good = EnvFile("/x/gateway/current/.env", "gateway", 0o600, 0, [])
    return on(host, env=[msgspec.structs.replace(good, **changed)])


def expiring(days: int) -> Change:
    """One host says that a secret ends in so many days."""
    day = datetime.fromtimestamp(NOW, timezone.utc).date() + timedelta(days=days)

    def change(facts: Facts) -> Facts:
        of = facts.hosts["gtw-01"]
        settings = {**of.settings, "fleet_secret_expiry": {"vault_broker": str(day)}}
        return replace(facts, hosts={**facts.hosts, "gtw-01": replace(of, settings=settings)})

    return change


BREAKS: list[tuple[str, Change, str]] = [
    ("G-SEC-01", env("gtw-01", mode=0o644), "gtw-01: /x/gateway/current/.env has mode 0644"),
    ("G-SEC-01", env("gtw-01", uid=1000), "owner 1000"),
    ("G-SEC-02", env("gtw-01", empty=["GATEWAY_SECRET_KEY"]), "GATEWAY_SECRET_KEY of gateway is empty"),
    ("G-SEC-02", on("gtw-01", env=[]), "gateway has no .env"),
    ("G-SEC-03", on("hub-01", env=STRAY), "gateway does not belong on this host"),
    ("G-SEC-04", rule("SEC-002"), "SEC-002: it is broken"),
    ("G-SEC-05", project(secrets_in_history=("the secret x was written in commit 1",)), "commit 1"),
    ("G-SEC-06", on("inf-01", in_force="the firewall table inet mt5crs was changed"), "inf-01: the firewall"),
    ("G-SEC-07", rule("NET-001"), "NET-001"),
    ("G-SEC-07", rule("ACC-002"), "ACC-002"),
    ("G-SEC-08", of_status("gtw-01", "gateway", access={"serial": 2, "own": False}), "access list 2"),
    ("G-SEC-09", on("hub-01", signers=Signers(0o644, 0, ["x ssh-ed25519 AAAAstranger"])), "AAAAstranger"),
    ("G-SEC-09", on("hub-01", signers=Signers(0o666, 0, [f"x {KEY}"])), "mode 0666"),
    ("G-SEC-10", lambda facts: replace(facts, policy=PolicySaid((), ("x:1: it expired",))), "it expired"),
    ("G-SEC-12", rule("OWN-001"), "OWN-001: it is broken"),
    (
        "G-SEC-12",
        lambda facts: replace(facts, policy=PolicySaid((), (), ("policy/x.rego:3: this is unclosed",))),
        "policy/x.rego:3",
    ),
    ("G-SEC-11", expiring(-1), "vault_broker was to be replaced by"),
    (
        "G-SYS-01",
        lambda facts: replace(facts, answers={**facts.answers, "inf-01": Unknown("no route")}),
        "no route",
    ),
    ("G-SYS-02", of_status("inf-01", "strategy", units={"mt5crs-strategy.service": "failed"}), "is failed"),
    ("G-SYS-02", on("inf-01", status={"services": {}}), "reconciler was never deployed"),
    (
        "G-SYS-03",
        of_status("gtw-01", "gateway", intact=False, problems=[".env was changed"]),
        ".env was changed",
    ),
    ("G-SYS-03", of_status("gtw-01", "gateway", intact=None), "not known"),
    ("G-SYS-03", of_status("gtw-01", "gateway", drop_ins=["/etc/x.conf"]), "/etc/x.conf"),
    ("G-SYS-04", of_status("gtw-01", "gateway", bundle="c" * 64), "gateway of gtw-01"),
    (
        "G-SYS-05",
        lambda facts: replace(facts, differs={"inf-01": ("strategy",)}),
        "a deployment would change it",
    ),
    ("G-SYS-06", of_status("inf-01", "strategy", pending="0003-cc"), "until it is confirmed"),
    ("G-SYS-06", of_status("inf-01", "strategy", standby="0003-cc"), "stands by"),
    (
        "G-SYS-06",
        on(
            "hub-01",
            status={
                "services": {"monitoring": status("monitoring")},
                "deployment": {"who": "bob", "phase": "p"},
            },
        ),
        "bob deploys",
    ),
    ("G-SYS-07", on("gtw-01", disks=[Disk("/opt/mt5crs", 4.0, 50.0)]), "4.0 % of its space"),
    ("G-SYS-07", on("gtw-01", disks=[Disk("/opt/mt5crs", 40.0, 1.0)]), "1.0 % of its inodes"),
    (
        "G-SYS-08",
        on("gtw-01", writable=[Directory("/v", "mt5crs", writable=False)]),
        "mt5crs cannot write in /v",
    ),
    ("G-SYS-09", clock(5.0), "5.0 s ahead of"),
    ("G-SYS-09", clock(-5.0), "5.0 s behind"),
    ("G-SYS-10", on("inf-01", clock=False), "chrony has not set its clock"),
    ("G-SYS-11", on("gtw-01", interpreters=[Interpreter("gateway", "", "no such file")]), "does not start"),
    ("G-SYS-11", on("gtw-01", interpreters=[Interpreter("gateway", "3.10.1", "")]), "Python 3.10.1"),
    ("G-SYS-11", on("gtw-01", interpreters=[]), "has no runtime"),
    ("G-SYS-12", on("gtw-01", memory=3.0), "3.0 % of its memory"),
    ("G-SYS-13", on("gtw-01", failed_units=["chrony.service"]), "failed: chrony.service"),
    ("G-SYS-14", on("gtw-01", reboot=True), "reboot"),
    ("G-SYS-15", of_status("gtw-01", "gateway", previous=None), "no earlier generation"),
    ("G-DAT-01", on("inf-01", reach={"gtw-01:5555": "timed out"}), "cannot reach gtw-01:5555: timed out"),
    ("G-DAT-02", gateway(state="not_ready", reason="no terminal"), "not_ready: no terminal"),
    ("G-DAT-02", gateway(trade_allowed=False), "may not trade"),
    ("G-DAT-03", gateway(login=91), "logged in to 91, the inventory has 90"),
    ("G-DAT-03", gateway(trade_mode="REAL"), "REAL account, which phase shadow must not use"),
    ("G-DAT-03", gateway(login=None), "not known"),
    ("G-DAT-04", published(state="unknown", reason="silence"), "the reconciler is unknown: silence"),
    ("G-DAT-04", published(synced_at=NOW - 60), "compared 60 s ago"),
    ("G-DAT-05", published(digest="other"), "differs from the gateway's at event 4"),
    ("G-DAT-05", published(stream="t"), "another run of the gateway"),
    ("G-DAT-05", mismatches(2.0), "2 position(s) of 7 differ"),
    ("G-DAT-05", gateway(books={}), "not known"),
    ("G-DAT-06", gateway(books={7: Books("s", 4, "same", ("a",))}), "fate of 1 order(s) of 7"),
    ("G-DAT-07", on("gtw-01", databases=[]), "journal.db is missing"),
    ("G-DAT-07", on("inf-01", databases=[Database("/x.db", "malformed")]), "/x.db: malformed"),
    ("G-DAT-08", gateway(dry_run={7: True}), "7 is dry run at the gateway, live in the inventory"),
    ("G-DAT-08", gateway(dry_run={}), "no limits for 7"),
    ("G-DAT-09", strategy(healthy=False, state="suspended", reason="no lease"), "suspended: no lease"),
    ("G-DAT-10", gateway(breakers=(7,)), "circuit breaker of 7 is open"),
    ("G-DAT-11", gateway(strangers={0: 2}), "2 position(s) or order(s) of no magic number"),
    ("G-DAT-12", rule("TRD-004"), "TRD-004"),
    ("G-DAT-13", on("hub-01", backups=Backups({}, NOW)), "gtw-01: no backup on hub-01 has a copy of it"),
    ("G-DAT-13", on("hub-01", backups=Backups(dict.fromkeys(SERVICES, NOW - 2 * DAY), NOW)), "48 h ago"),
    ("G-DAT-14", on("hub-01", backups=Backups(dict.fromkeys(SERVICES, NOW), None)), "was ever proven"),
    ("G-DAT-14", on("hub-01", backups=Backups(dict.fromkeys(SERVICES, NOW), NOW - 2 * DAY)), "48 h ago"),
    ("G-OPS-01", on("hub-01", firing=[Firing("Mt5crsHalted", "gtw-01", "critical")]), "gtw-01: Mt5crsHalted"),
    (
        "G-OPS-02",
        on("hub-01", firing=[Firing("Mt5crsDiskFull", "", "warning")]),
        "fleet: Mt5crsDiskFull fires",
    ),
    ("G-OPS-03", on("hub-01", promtool="promtool ended with status 1"), "promtool ended"),
    ("G-OPS-04", on("hub-01", rules=[]), "no alert rule"),
    ("G-OPS-04", on("hub-01", rules=[AlertRule("X", "err", "many-to-many")]), "rule X is err many-to-many"),
    ("G-OPS-05", on("hub-01", targets=[]), "gtw-01: gateway is not scraped"),
    ("G-OPS-06", on("hub-01", notified=[]), "no Alertmanager"),
    ("G-OPS-07", on("hub-01", silences=[Silence("ann", "noise", "alertname=X", "then")]), "by ann: noise"),
    ("G-OPS-08", lambda facts: replace(facts, webhook=False), "sent to nobody"),
    (
        "G-OPS-08",
        lambda facts: replace(facts, webhook=False, signed_webhook=True),
        "to nobody while the Hub's service is down",
    ),
    ("G-OPS-13", lambda facts: replace(facts, watchdog=False), "nobody is told when the Hub is dead"),
    ("G-OPS-09", on("gtw-01", acts=[Act(NOW, "halt", 0)]), "no halt of the whole fleet and resume"),
    (
        "G-OPS-09",
        on("gtw-01", acts=[Act(NOW, "resume", 7), Act(NOW, "halt", 7)]),
        "no halt of the whole fleet",
    ),
    (
        "G-OPS-09",
        on("gtw-01", acts=[Act(NOW - 40 * DAY, "resume", 0), Act(NOW - 40 * DAY, "halt", 0)]),
        "40 days ago",
    ),
    ("G-OPS-10", gateway(halts=((0, "news", "ops"),)), "everything is halted by ops: news"),
    ("G-OPS-11", on("hub-01", deployments=[]), "no deployment is recorded"),
    ("G-OPS-11", on("hub-01", deployments=[Deployment("d2", "now", "bob", "failed")]), "bob) is failed"),
    ("G-OPS-12", hears({"gtw-01": "silent"}), "gtw-01: the Hub does not listen to it (silent)"),
    ("G-OPS-12", hears({}), "it is not listed"),
    (
        "G-OPS-12",
        hears({"gtw-01": "listening"}, healthy=False, state="unknown", reason="disk"),
        "unknown: disk",
    ),
    ("G-DOC-01", on("hub-01", runbook="<html>"), "no section for the alert Mt5crsHalted"),
    ("G-DOC-02", project(pages={}), "docs/runbook.md is missing"),
    ("G-DOC-03", project(old_pages=("docs/go-no-go.md",)), "not what the code says"),
    ("G-DOC-04", project(sbom={"x.tar": False}), "x.tar holds no bill of materials"),
    ("G-DOC-05", of_status("gtw-01", "gateway", deployment="d9"), "no record says who brought gateway"),
    ("G-DOC-06", rule("COD-002"), "COD-002"),
]
WARNINGS = {"G-SYS-15", "G-DAT-11", "G-OPS-07"}
"""Checks that only warn, unless they could not look."""


@pytest.mark.parametrize(("check", "change", "text"), BREAKS, ids=[f"{each[0]}-{each[2]}" for each in BREAKS])
def test_what_is_wrong_is_named(check: str, change: Change, text: str) -> None:
    broken = change(GOOD)
    result = results(broken)[check]
    assert text in told(result)
    assert result.verdict == ("WARN" if check in WARNINGS else "FAIL")
    assert decide(broken, CHECKS).go is (result.check.priority != "P0")


@pytest.mark.parametrize(("days", "verdict"), [(0, "FAIL"), (1, "WARN"), (30, "WARN"), (31, "PASS")])
def test_a_secret_is_warned_of_before_its_date(days: int, verdict: str) -> None:
    assert results(expiring(days)(GOOD))["G-SEC-11"].verdict == verdict


@pytest.mark.parametrize(
    ("watchers", "verdict"), [((), "FAIL"), (("inf-01",), "WARN"), (("inf-01", "inf-02"), "PASS")]
)
def test_two_inf_hosts_that_watch_the_hub_are_enough(watchers: tuple[str, ...], verdict: str) -> None:
    facts = replace(GOOD, watchdog=False, watchers=watchers)
    assert results(facts)["G-OPS-13"].verdict == verdict


def test_every_check_is_made_to_fail() -> None:
    assert {check.id for check in CHECKS} - {name for name, _, _ in BREAKS} == set()


# ---- what is not known ----


def test_of_a_fleet_of_which_nothing_is_known_nothing_passes() -> None:
    nothing = Unknown("no route to host")
    facts = replace(
        GOOD,
        answers=dict.fromkeys(SERVICES, nothing),
        gateways={"gtw-01": nothing},
        policy=nothing,
        differs=nothing,
        webhook=False,
        watchdog=False,
        project=Project(nothing, {}, ("docs/go-no-go.md",), {}),
    )
    assert [name for name, one in results(facts).items() if one.verdict != "FAIL"] == []
    assert not decide(facts, CHECKS).go


def test_a_check_that_looks_at_nothing_does_not_pass() -> None:
    idle = Check("G-SYS-99", "P0", "title", "reason", "remedy", lambda _: None)
    (result,) = decide(GOOD, [idle]).results
    assert (result.verdict, told(result)) == ("FAIL", "fleet: not known: there was nothing to look at")


def test_a_fleet_without_hosts_passes_nothing_that_is_asked_of_hosts() -> None:
    facts = replace(GOOD, hosts={}, answers={}, gateways={})
    passed = {name for name, one in results(facts).items() if one.verdict == "PASS"}
    # What is looked at on this machine, or in the configuration.
    local = {
        "G-SEC-04",
        "G-SEC-05",
        "G-SEC-07",
        "G-SEC-10",
        "G-SEC-11",
        "G-SEC-12",
        "G-DAT-12",
        "G-OPS-08",
        "G-OPS-13",
    }
    assert passed <= local | {f"G-DOC-0{number}" for number in (2, 3, 4, 6)}


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Sections)])
def test_a_section_that_could_not_be_looked_at_fails_as_unknown(name: str) -> None:
    facts = GOOD
    for host in SERVICES:
        asked = facts.answers[host]
        assert isinstance(asked, Asked)
        other = msgspec.structs.replace(asked.answer.sections, **{name: Section(error="disk on fire")})
        answer = msgspec.structs.replace(asked.answer, sections=other)
        facts = replace(facts, answers={**facts.answers, host: replace(asked, answer=answer)})
    failed = [one for one in results(facts).values() if one.verdict == "FAIL"]
    assert failed
    assert all("not known: " in told(one) for one in failed)
    assert any(
        finding.unknown and "disk on fire" in finding.text for one in failed for finding in one.findings
    )


def test_an_answer_that_no_host_of_ours_gives_is_no_pass_and_no_crash() -> None:
    assert isinstance(read("Last login: …"), Unknown)
    assert isinstance(read('{"sections": []}'), Unknown)
    good = {"began": 1.0, "ended": 2.0, "python": "3.13", "sections": {"memory": {"value": 50}}}
    answer = read(json.dumps(good))
    assert isinstance(answer, HostAnswer)
    assert answer.sections.memory == Section(50.0)
    good["sections"] = {"memory": {"value": "plenty"}, "reboot": {"value": False}}
    answer = read(json.dumps(good))
    assert isinstance(answer, HostAnswer)
    assert answer.sections.reboot == Section(value=False)
    assert answer.sections.memory is not None
    assert "its memory cannot be read" in answer.sections.memory.error
    lying = on("gtw-01", status={"services": {"gateway": {**status("gateway"), "units": ["active"]}}})
    assert "cannot be judged" in told(results(lying(GOOD))["G-SYS-02"])


def test_what_moved_between_two_looks_is_what_the_reconciler_compared_itself() -> None:
    assert results(published(seq=5, digest="newer")(GOOD))["G-DAT-05"].verdict == "PASS"


def test_what_is_waived_is_shown_and_does_not_stop() -> None:
    result = results(rule("TRD-004", waived="rehearsal (ann)")(GOOD))["G-DAT-12"]
    assert result.verdict == "WARN"
    assert "waived: rehearsal (ann)" in told(result)


# ---- looking ----


def test_the_script_that_hosts_run_answers_anywhere_and_says_what_it_could_not_see() -> None:
    question = {"health": {"gateway": ("127.0.0.1", 1)}, "reach": {"x:1": ("127.0.0.1", 1)}, "gateway": True}
    question["instance"] = ""
    done = subprocess.run(
        ["/usr/bin/python3", "-", json.dumps(question)],
        input=Path(on_host.__file__).read_text(encoding="utf-8"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = read(done.stdout)
    assert isinstance(answer, HostAnswer)
    told_of = answer.sections
    assert told_of.memory is not None
    assert told_of.memory.value
    assert told_of.status is not None
    assert told_of.status.error, "there is no release tool here"
    assert told_of.reach is not None
    assert "refused" in (told_of.reach.value or {})["x:1"]
    assert told_of.health is not None
    assert "refused" in (told_of.health.value or {})["gateway"].error
    assert told_of.firing is None


def test_a_host_looks_at_modes_empty_settings_and_damaged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = tmp_path / "base/gateway/current"
    generation.mkdir(parents=True)
    env_file = generation / ".env"
    env_file.write_text("# a comment\nA='x'\nGATEWAY_SECRET_KEY=''\n")
    env_file.chmod(0o640)
    state = tmp_path / "state/gateway"
    state.mkdir(parents=True)
    with sqlite3.connect(state / "control.db") as db:
        db.execute("CREATE TABLE acts (at_msc INTEGER, act TEXT, magic INTEGER, client TEXT)")
        db.execute("INSERT INTO acts VALUES (5000, 'halt', 0, 'ops'), (6000, 'halt', 0, 'backup')")
    (state / "journal.db").write_bytes(b"no database " * 100)
    monkeypatch.setattr(on_host, "BASE", tmp_path / "base")
    monkeypatch.setattr(on_host, "STATE", tmp_path / "state")
    (found,) = on_host.env_files("")
    assert (found["service"], found["mode"], found["empty"]) == ("gateway", 0o640, ["GATEWAY_SECRET_KEY"])
    said = {Path(each["path"]).name: each["said"] for each in on_host.databases("")}
    assert said["control.db"] == "ok"
    assert "not a database" in said["journal.db"]
    assert on_host.acts() == [{"at": 5.0, "act": "halt", "magic": 0}]


def test_a_secret_that_was_taken_out_again_is_found_in_the_history(tmp_path: Path) -> None:
    secret = {"vault_key.ops": "0123456789abcdef"}
    assert isinstance(secrets_in_history(secret, tmp_path), Unknown)
    identity = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init", "-q")
    git("commit", "--allow-empty", "-q", "-m", "begin")
    assert secrets_in_history(secret, tmp_path) == ()
    assert isinstance(secrets_in_history({}, tmp_path), Unknown)
    for content in ("key = 0123456789abcdef\n", "key = none\n"):
        (tmp_path / "file").write_text(content)
        git("add", ".")
        git("commit", "-q", "-m", "change")
    added = subprocess.check_output(["git", "-C", str(tmp_path), "rev-parse", "--short", "HEAD~1"], text=True)
    (found,) = secrets_in_history(secret, tmp_path) or ()
    assert found == f"the secret vault_key.ops was written in commit {added.strip()}"
    assert "0123456789abcdef" not in found


def test_gateways_are_asked_with_the_operators_key(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC)
    fleet.broker(do="trade", symbol="EURUSD", side="BUY", volume=0.01, magic=MAGIC + 1)
    of = inventory(fleet)
    alone = replace(of, groups={**of.groups, "gateway": ("gtw-01",)})
    said = gateways(alone, None)["gtw-01"]
    assert isinstance(said, GatewaySaid)
    assert (said.state, said.halts, said.strangers) == ("ready", (), {MAGIC + 1: 1})
    assert set(said.books) == {MAGIC}
    assert said.books[MAGIC].digest
    from deploy.commands.named_fleet import of_fleet
    from mt5crs.operate.gateways import ask

    ask(of_fleet(alone, None), halt)
    said = gateways(alone, None)["gtw-01"]
    assert isinstance(said, GatewaySaid)
    assert [reason for _, reason, _ in said.halts] == ["drill"]


@pytest.mark.parametrize(
    ("alert", "says", "go"),
    [
        ("Mt5crsHalted", {"halts": ((7, "weekend", "ops"),)}, True),
        ("Mt5crsHalted", {"halts": ((7, "weekend", "ops"), (8, "weekend", "ops"))}, True),
        ("Mt5crsHalted", {"halts": ((0, "news", "ops"), (7, "weekend", "ops"))}, False),
        ("Mt5crsBreakerOpen", {"breakers": (7,)}, True),
        ("Mt5crsBreakerOpen", {"breakers": (7, 8)}, False),
        ("Mt5crsNoFills", {"halts": ((7, "no fills", "gateway"),)}, False),
    ],
)
def test_what_a_start_lifts_is_nothing_against_it(alert: str, says: dict[str, Any], go: bool) -> None:
    halted = on("hub-01", firing=[Firing(alert, "gtw-01", "critical")])(gateway(**says)(GOOD))
    assert not decide(halted, CHECKS).go, "for whoever starts nothing"
    stopping = {one.check.id for one in decide(replace(halted, starting=7), CHECKS).stopping}
    assert ("G-OPS-01" in stopping) is not go
    silent = replace(halted, gateways={"gtw-01": Unknown("no answer")}, starting=7)
    assert "G-OPS-01" in {one.check.id for one in decide(silent, CHECKS).stopping}


# ---- the command ----


def run(monkeypatch: pytest.MonkeyPatch, facts: Facts, *arguments: str) -> Any:
    made: Callable[..., Decision] = lambda *_: decide(facts, CHECKS)  # noqa: E731
    monkeypatch.setattr(preflight, "decision_of", made)
    monkeypatch.setattr(preflight, "fleet_of", lambda _: SimpleNamespace())
    return CliRunner().invoke(main, ["--inventory", "x.yml", "preflight", *arguments])


def test_the_command_says_go_with_status_0_and_no_go_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    went = run(monkeypatch, GOOD, "--report", str(tmp_path / "report.json"))
    assert went.exit_code == 0, went.output
    assert went.output.endswith(f"GO for staging: {len(CHECKS)} PASS, 0 WARN, 0 FAIL\n")
    assert json.loads((tmp_path / "report.json").read_text())["decision"] == "GO"
    stopped = run(monkeypatch, gateway(state="not_ready", reason="no terminal")(GOOD))
    assert stopped.exit_code == 2
    assert "gtw-01: the gateway is not_ready: no terminal\n  what to do: `mt5crs health" in stopped.output
    assert stopped.output.strip().endswith("stopped by G-DAT-02")
    as_json = json.loads(run(monkeypatch, rule("COD-002")(GOOD), "--json").output)
    assert (as_json["decision"], as_json["stopped_by"]) == ("GO", [])
    (failed,) = [one for one in as_json["checks"] if one["verdict"] == "FAIL"]
    assert {"id", "category", "priority", "reason", "remedy", "evidence_age_s"} <= set(failed)


def test_what_could_not_run_has_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["preflight"]).exit_code == 1
    gone = CliRunner().invoke(main, ["--inventory", str(tmp_path / "none.yml"), "preflight"])
    assert (gone.exit_code, "does not exist" in gone.output) == (1, True)
    assert run(monkeypatch, GOOD, "--no-such-option").exit_code == 1
    refused = run(monkeypatch, GOOD, "--report", str(tmp_path / "no/such/directory"))
    assert (refused.exit_code, "cannot be written" in refused.output) == (1, True)


def test_the_catalogue_is_current() -> None:
    assert preflight_reference.old_pages() == ()
