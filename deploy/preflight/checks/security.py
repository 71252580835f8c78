"""Secrets, rights, and who gets in."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache

from deploy.fleet.inventory import WINDOWS
from deploy.fleet.settings import PARTS, structs
from deploy.policy.expiry import due
from deploy.preflight.check import FLEET, Check, Look
from deploy.preflight.checks.configuration import rules
from deploy.preflight.facts import Unknown
from mt5crs.settings.schema import fields

_CODE = ("gateway", "hub", "reconciler", "review", "strategy")


def _env_rights(look: Look) -> None:
    for host, files in look.sections("env"):
        for file in files:
            for other in file.others:
                look.fail(host, f"others could read {file.path}: {other}")
            if file.mode is None:
                if not _on_windows(look, host):
                    look.unknown(host, f"the rights of {file.path}")
            elif file.mode != 0o600 or file.uid != 0:
                look.fail(
                    host,
                    f"{file.path} has mode {file.mode:04o} and owner {file.uid}, must be 0600 and root (0)",
                )


def _on_windows(look: Look, host: str) -> bool:
    """There rights are lists, which the host judges itself; elsewhere a mode that is not told is unknown."""
    return WINDOWS in look.facts.hosts[host].groups


@cache
def _needed_secrets(service: str) -> frozenset[str]:
    """Names in the `.env` of a service that hold a secret it cannot do without."""
    if service not in PARTS:
        return frozenset()
    found = (field for cls in structs(service) for field in fields(cls))
    return frozenset(field.env for field in found if field.secret and field.required and field.env)


def _secrets_present(look: Look) -> None:
    for host, files in look.sections("env"):
        there = {file.service: file for file in files}
        for service in (name for name in look.facts.hosts[host].services if name in _CODE):
            if service not in there:
                look.fail(host, f"{service} has no .env")
            elif empty := sorted(_needed_secrets(service) & set(there[service].empty)):
                look.fail(host, f"{', '.join(empty)} of {service} is empty")


def _secrets_needed(look: Look) -> None:
    for host, files in look.sections("env"):
        for file in files:
            if file.service not in look.facts.hosts[host].services:
                look.fail(host, f"{file.path} is there, and {file.service} does not belong on this host")


def _history(look: Look) -> None:
    found = look.facts.project.secrets_in_history
    if isinstance(found, Unknown):
        look.unknown(FLEET, found.why)
        return
    look.saw()
    for text in found:
        look.fail(FLEET, text)


def _in_force(look: Look) -> None:
    for host, wrong in look.sections("in_force"):
        if wrong:
            look.fail(host, wrong)


def _access(look: Look) -> None:
    for host, service, status in look.services():
        if service != "gateway":
            continue
        access = status.get("access")
        if not access:
            look.unknown(host, "the release tool does not tell which access list is in force")
        elif access.get("own") is not True:
            look.fail(host, f"access list {access.get('serial')} is in force, not the one of what runs")


def _signers(look: Look) -> None:
    for host, signers in look.sections("signers"):
        for other in signers.others:
            look.fail(host, f"others can change allowed_signers: {other}")
        if signers.mode is None:
            if not _on_windows(look, host):
                look.unknown(host, "the rights of allowed_signers")
        elif signers.uid != 0 or signers.mode & 0o022:
            look.fail(
                host,
                f"allowed_signers has mode {signers.mode:04o} and owner {signers.uid}: others can change it",
            )
        wanted = {line.split()[1] for line in look.facts.hosts[host].settings["baseline_release_signers"]}
        there = {word for line in signers.lines for word in line.split() if word.startswith("AAAA")}
        for key in sorted(there - wanted):
            look.fail(host, f"takes bundles signed by a key that is not in the inventory ({key[-12:]})")
        for key in sorted(wanted - there):
            look.fail(host, f"does not know the key …{key[-12:]} of the inventory")


def _waivers(look: Look) -> None:
    policy = look.facts.policy
    if isinstance(policy, Unknown):
        look.unknown(FLEET, policy.why)
        return
    look.saw()
    for problem in policy.problems:
        look.fail(FLEET, f"waiver {problem}")


def _own(look: Look) -> None:
    rules(look, "OWN-")
    if not isinstance(look.facts.policy, Unknown):
        for problem in look.facts.policy.unreadable:
            look.fail(FLEET, f"rule {problem}")


def _expiry(look: Look) -> None:
    policy = look.facts.policy
    if isinstance(policy, Unknown):  # the configuration could not be read as a whole
        look.unknown(FLEET, policy.why)
        return
    settings = [of.settings for of in look.facts.hosts.values()]
    look.saw()
    for one in due(settings, datetime.fromtimestamp(look.facts.now, timezone.utc).date()):
        (look.fail if one.passed else look.warn)(FLEET, one.text)


CHECKS = (
    Check(
        "G-SEC-01",
        "P0",
        "On every host, each `.env` has mode 0600 and belongs to root",
        "It holds keys that trade; any program of the host could read them.",
        "Deploy again, or `chmod 0600` and `chown root` the file; replace the keys that others could read.",
        _env_rights,
    ),
    Check(
        "G-SEC-02",
        "P0",
        "Every service has its `.env`, with every secret that it needs",
        "A service without its key connects to nobody.",
        "`python -m deploy.keys --inventory …` makes what is missing; then deploy.",
        _secrets_present,
    ),
    Check(
        "G-SEC-03",
        "P1",
        "Secrets are only on hosts whose services need them",
        "Each copy of a key is one more place that it can be stolen from.",
        "Remove the service's directory from that host, and replace its keys.",
        _secrets_needed,
    ),
    Check(
        "G-SEC-04",
        "P0",
        "The configuration keeps the policy's rules on secrets",
        "What a vault keeps must stand nowhere else, and must not be guessed.",
        "`mt5crs … policy check` lists them; `policy explain RULE` says what to do.",
        lambda look: rules(look, "SEC-"),
    ),
    Check(
        "G-SEC-05",
        "P0",
        "No secret of the vault is in the code or in its history",
        "Who has a clone has every commit of it, also those that took a secret out again.",
        "Replace the secret (`python -m deploy.keys --rotate NAME`); removing it from git is not enough.",
        _history,
    ),
    Check(
        "G-SEC-06",
        "P0",
        "Firewall, sshd and kernel settings are in force as deployed",
        "What is open to others is decided by what is in force, not by what was deployed once.",
        "`systemctl restart mt5crs-baseline` on that host, or deploy; find out who changed it.",
        _in_force,
    ),
    Check(
        "G-SEC-07",
        "P0",
        "The configuration keeps the policy's rules on addresses, ports and access",
        "A wrong address reaches nobody or the wrong host; a wide one lets in everybody.",
        "`mt5crs … policy check` lists them; `policy explain RULE` says what to do.",
        lambda look: rules(look, "NET-", "ACC-"),
    ),
    Check(
        "G-SEC-08",
        "P0",
        "The access list in force at each gateway is the one of what runs there",
        "Somebody who was shut out may be back in, or the other way round.",
        "`mt5crs-release access gateway` on that host, or deploy.",
        _access,
    ),
    Check(
        "G-SEC-09",
        "P0",
        "Hosts take bundles that the inventory's keys have signed, and no others",
        "Who may sign may run code on every host.",
        "Deploy; if a key is there that nobody put there, treat the host as taken over.",
        _signers,
    ),
    Check(
        "G-SEC-10",
        "P1",
        "Every waiver of the policy is in order",
        "A waiver that has expired or cannot be read allows nothing, and hides that somebody counts on it.",
        "Correct or remove it in `policy/waivers/`.",
        _waivers,
    ),
    Check(
        "G-SEC-11",
        "P1",
        "No secret is past its date, and none will be within fleet_secret_warn_days",
        "A password that the broker lets end in the night stops trading with positions open.",
        "`mt5crs … secrets rotate KIND` replaces it; then set the new date in fleet_secret_expiry.",
        _expiry,
    ),
    Check(
        "G-SEC-12",
        "P0",
        "The configuration keeps the rules that its users have added, and each of them can be read",
        "Who has written a rule counts on it; one that cannot be read finds nothing.",
        "`mt5crs … policy check` names file and line; `policy explain OWN-…` says what to do.",
        _own,
    ),
)
