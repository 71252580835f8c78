"""Hosts and what runs on them."""

from __future__ import annotations

from deploy.preflight.check import FLEET, Check, Look
from deploy.preflight.facts import Unknown
from deploy.rollout.generation import drop_ins, not_as_staged

_LEAST_MEMORY = 10.0
_OLDEST_PYTHON = (3, 11)
_CODE = ("gateway", "hub", "reconciler", "strategy")


def _answers(look: Look) -> None:
    for _ in look.answers():
        pass


def _units(look: Look) -> None:
    for host, service, status in look.services():
        units = status.get("units") or {}
        if not units:
            look.unknown(host, f"units of {service}")
        for unit, state in sorted(units.items()):
            if state != "active":
                look.fail(host, f"{unit} is {state}")


def _intact(look: Look) -> None:
    for host, service, status in look.services():
        if status.get("intact") is None:
            look.unknown(host, f"whether files of {service} were changed")
        elif status["intact"] is not True:
            look.fail(host, f"{service} ({status['current']}) is {not_as_staged(status)}")
        if beside := drop_ins(status):
            look.fail(host, f"{service}: {beside}")


def _same_code(look: Look) -> None:
    found: dict[tuple[str, str], list[str]] = {}
    for host, service, status in look.services():
        if service in _CODE:
            release = (str(status.get("bundle")), str(status.get("version")))
            found.setdefault(release, []).append(f"{service} of {host}")
    if len(found) > 1:
        told = "; ".join(
            f"{version} ({bundle[:12]}): {', '.join(where)}"
            for (bundle, version), where in sorted(found.items())
        )
        look.fail(FLEET, f"different releases run: {told}")


def _as_wanted(look: Look) -> None:
    differs = look.facts.differs
    if isinstance(differs, Unknown):
        look.unknown(FLEET, differs.why)
        return
    for host, _ in look.sections("status"):
        if differs.get(host):
            look.fail(host, f"{', '.join(differs[host])}: a deployment would change it")


def _settled(look: Look) -> None:
    for host, service, status in look.services():
        if status.get("pending"):
            look.fail(host, f"{service} runs {status['pending']} until it is confirmed or goes back")
        elif status.get("state") != "confirmed":
            look.fail(host, f"{service} is {status.get('state')}")
        if status.get("standby"):
            look.fail(host, f"{status['standby']} of {service} stands by")
    for host, status in look.sections("status", "hub"):
        holder = status.get("deployment")
        if holder and (look.facts.lock is None or holder.get("id") != look.facts.lock):
            look.fail(host, f"{holder.get('who')} deploys, phase {holder.get('phase')!r}")


def _disk(look: Look) -> None:
    for host, disks in look.sections("disks"):
        least = float(_of_hub(look, "monitoring_alert_disk_free_percent", 10.0))
        for disk in disks:
            for what, free in (("space", disk.free), ("inodes", disk.inodes)):
                if free < least:
                    look.fail(host, f"{disk.path} has {free:.1f} % of its {what} left, needs {least:g} %")


def _writable(look: Look) -> None:
    for host, directories in look.sections("writable"):
        for one in directories:
            if not one.writable:
                look.fail(host, f"{one.user} cannot write in {one.path}")


def _clock(look: Look) -> None:
    limit = float(_of_hub(look, "monitoring_alert_clock_offset_s", 1.0))
    for host, asked in look.answers():
        ahead = asked.answer.ended - asked.received
        behind = asked.sent - asked.answer.began
        if max(ahead, behind) > limit:
            direction = "ahead of" if ahead > behind else "behind"
            look.fail(host, f"its clock is at least {max(ahead, behind):.1f} s {direction} the controller's")


def _of_hub(look: Look, name: str, default: float) -> float:
    for hub in look.facts.in_group("hub"):
        value = look.facts.hosts[hub].settings.get(name)
        if value is not None:
            return float(value)
    return default


def _steered(look: Look) -> None:
    look.saw()  # a fleet of containers has no clock of its own to look at
    for host, asked in look.answers():
        if look.facts.hosts[host].settings.get("baseline_clock_control") is not True:
            continue
        section = asked.answer.sections.clock
        if section is None or section.value is None:
            look.unknown(host, section.error if section else "it did not tell its clock")
        elif not section.value:
            look.fail(host, "chrony has not set its clock from a time server")


def _python(look: Look) -> None:
    for host, found in look.sections("interpreters"):
        there = {one.service: one for one in found}
        for service in (name for name in look.facts.hosts[host].services if name in _CODE):
            one = there.get(service)
            if one is None:
                look.fail(host, f"{service} has no runtime")
            elif one.error:
                look.fail(host, f"the Python of {service} does not start: {one.error}")
            elif tuple(int(part) for part in one.version.split(".")[:2]) < _OLDEST_PYTHON:
                look.fail(host, f"{service} runs with Python {one.version}, needs 3.11")


def _memory(look: Look) -> None:
    for host, percent in look.sections("memory"):
        if percent < _LEAST_MEMORY:
            look.fail(host, f"{percent:.1f} % of its memory are left, should be {_LEAST_MEMORY:g} %")


def _failed_units(look: Look) -> None:
    for host, units in look.sections("failed_units"):
        if units:
            look.fail(host, f"failed: {', '.join(units)}")


def _reboot(look: Look) -> None:
    for host, needed in look.sections("reboot"):
        if needed:
            look.fail(host, "its updates need a reboot to take effect")


def _way_back(look: Look) -> None:
    for host, service, status in look.services():
        if service in _CODE and not status.get("previous"):
            look.warn(host, f"{service} has no earlier generation to roll back to")


CHECKS = (
    Check(
        "G-SYS-01",
        "P0",
        "Every host answers",
        "Of a host that does not answer nothing is known.",
        "Look whether it is up, and at the network and its sshd.",
        _answers,
    ),
    Check(
        "G-SYS-02",
        "P0",
        "Every unit of every service runs",
        "A fleet with a part missing trades blind, or not at all.",
        "`journalctl -u UNIT` on that host says why; mend that, then start it.",
        _units,
    ),
    Check(
        "G-SYS-03",
        "P0",
        "What runs is what was staged, and could start again",
        "Code that was changed is not what was tested; code whose Python is gone cannot start again.",
        "Find out who changed what and why; deploy, which builds it anew. Drop-ins: systemctl revert.",
        _intact,
    ),
    Check(
        "G-SYS-04",
        "P0",
        "All services run the same release",
        "Hosts with old code beside new ones lost 440 million dollars in 45 minutes (SEC 34-70694).",
        "Deploy to all hosts, or roll back all of them.",
        _same_code,
    ),
    Check(
        "G-SYS-05",
        "P0",
        "Hosts run what the inventory and the bundle here want",
        "Otherwise nobody can say from which settings the fleet trades.",
        "`mt5crs … config drift` shows what differs; deploy, or take the change of settings back.",
        _as_wanted,
    ),
    Check(
        "G-SYS-06",
        "P0",
        "No deployment is under way, and everything is confirmed",
        "What is provisional goes back by itself, also in the middle of trading.",
        "Wait for the end of the deployment; `mt5crs … deployments list` says whose it is.",
        _settled,
    ),
    Check(
        "G-SYS-07",
        "P0",
        "Disks have space and inodes left",
        "An order that cannot be recorded is not sent.",
        "Free space (`mt5crs-release prune`, `journalctl --vacuum-size=100M`).",
        _disk,
    ),
    Check(
        "G-SYS-08",
        "P0",
        "Every service can write in its own directory",
        "A journal that cannot be written stops trading.",
        "Give the directory below `/var/lib/mt5crs` back to the service's user; `dmesg` if it is read-only.",
        _writable,
    ),
    Check(
        "G-SYS-09",
        "P0",
        "Clocks agree with the controller's within `monitoring_alert_clock_offset_s`",
        "Leases, daily losses and records go by time.",
        "All hosts at once: the controller is wrong. Else `chronyc tracking` on that host.",
        _clock,
    ),
    Check(
        "G-SYS-10",
        "P1",
        "Hosts that keep their own clock have set it from a time server",
        "An unset clock is right by chance, and not for long.",
        "`chronyc sources` on that host; see baseline_ntp_servers and baseline_ntp_pools.",
        _steered,
    ),
    Check(
        "G-SYS-11",
        "P0",
        "The Python of every runtime starts, and is 3.11 or newer",
        "A service that runs still cannot be started again without it.",
        "Deploy: it builds the runtime anew.",
        _python,
    ),
    Check(
        "G-SYS-12",
        "P2",
        "Hosts have a tenth of their memory left",
        "What has no memory left is killed.",
        "Find out what takes it (`systemd-cgtop -m`), or give the host more.",
        _memory,
    ),
    Check(
        "G-SYS-13",
        "P2",
        "No unit of a host has failed",
        "Also what is not ours may be needed: time, network, logs.",
        "`systemctl status UNIT` says why; mend it, then `systemctl reset-failed`.",
        _failed_units,
    ),
    Check(
        "G-SYS-14",
        "P3",
        "No host waits for a reboot",
        "Until then it runs without the security fixes that it has installed.",
        "Reboot it while nothing is traded.",
        _reboot,
    ),
    Check(
        "G-SYS-15",
        "P2",
        "Every service has an earlier generation to roll back to",
        "Without one a bad release can only be stopped.",
        "Nothing, right after the first deployment; the next one gives it.",
        _way_back,
    ),
)
