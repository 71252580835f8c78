"""The state that trading goes by: gateways, accounts, books, limits."""

from __future__ import annotations

from typing import Any

from deploy.preflight.check import Check, Look
from deploy.preflight.checks.configuration import rules
from deploy.preflight.facts import Asked, Books, Published, Unknown
from mt5crs.settings.gateway import account_problem

_DAY_S = 24 * 3600.0
_CHECKS_MISSED = 3
"""So many looks at the gateway's books may be missing before the state counts as old."""


def _reachable(look: Look) -> None:
    for host, told in look.sections("reach", "inf"):
        if not told:
            look.unknown(host, "it was not told which gateway to reach")
        for where, error in sorted(told.items()):
            if error:
                look.fail(host, f"cannot reach {where}: {error}")


def _ready(look: Look) -> None:
    for host, said in look.gateways():
        if said.state != "ready":
            look.fail(host, f"the gateway is {said.state}: {said.reason}")
        elif said.trade_allowed is not True:
            look.fail(host, "the terminal may not trade (auto-trading is off, or the account is read-only)")


def _account(look: Look) -> None:
    for host, said in look.gateways():
        settings = look.facts.hosts[host].settings
        if said.login is None or said.trade_mode is None:
            look.unknown(host, "the gateway does not know its account")
            continue
        wanted = settings.get("fleet_account_login")
        if wanted is not None and said.login != wanted:
            look.fail(host, f"the terminal is logged in to {said.login}, the inventory has {wanted}")
        problem = account_problem(settings["gateway_account_phase"], said.trade_mode)
        if problem:
            look.fail(host, problem)


def _synchronised(look: Look) -> None:
    for host, said in look.sections("state", "inf"):
        if said.state != "ready":
            look.fail(host, f"the reconciler is {said.state}: {said.reason}")
            continue
        asked = look.facts.answers[host]
        assert isinstance(asked, Asked)  # noqa: S101  (it has just answered)
        age = asked.answer.ended - said.synced_at
        look.saw(asked.received - max(0.0, age))
        most = _CHECKS_MISSED * float(look.facts.hosts[host].settings["reconciler_recheck_interval_s"])
        if age > most:
            look.fail(host, f"its state was last compared {age:.0f} s ago, should be {most:g} s at most")


def _equal(look: Look) -> None:
    mismatches = {host: told.get("mismatches") for host, told in look.health("reconciler", "inf")}
    for host, said in look.sections("state", "inf"):
        name = str(look.facts.hosts[host].settings["fleet_gateway"])
        gateway = look.facts.gateways.get(name, Unknown(f"{name} is no gateway of this fleet"))
        if isinstance(gateway, Unknown):
            look.unknown(host, f"what {name} holds ({gateway.why})")
        elif said.magic not in gateway.books:
            look.unknown(host, f"what {name} holds of {said.magic}")
        else:
            _compare(look, host, said, gateway.books[said.magic], mismatches.get(host))


def _compare(look: Look, host: str, said: Published, books: Books, mismatches: float | None) -> None:
    """What was read at another event cannot be compared: then the reconciler's own comparison counts."""
    if said.stream != books.stream:
        look.fail(host, f"its state of {said.magic} is of another run of the gateway ({said.stream})")
    elif said.seq == books.seq and said.digest != books.digest:
        look.fail(host, f"its state of {said.magic} differs from the gateway's at event {books.seq}")
    elif mismatches is None:
        look.unknown(host, "the reconciler does not tell what it has compared")
    elif mismatches:
        look.fail(host, f"{mismatches:g} position(s) of {said.magic} differ from the gateway's")


def _unresolved(look: Look) -> None:
    for host, said in look.gateways():
        for magic, books in sorted(said.books.items()):
            if books.unresolved:
                look.fail(host, f"the fate of {len(books.unresolved)} order(s) of {magic} is not known")


def _databases(look: Look) -> None:
    for host, files in look.sections("databases", "gateway"):
        _judge_databases(look, host, files, needed="/var/lib/mt5crs/gateway/journal.db")
    for host, files in look.sections("databases", "inf"):
        name = f"reconciler{look.facts.hosts[host].settings.get('fleet_suffix', '')}"
        _judge_databases(look, host, files, needed=f"/var/lib/mt5crs/{name}/reconciler.db")


def _judge_databases(look: Look, host: str, files: list[Any], *, needed: str) -> None:
    if needed not in {file.path for file in files}:
        look.fail(host, f"{needed} is missing")
    for file in files:
        if file.said != "ok":
            look.fail(host, f"{file.path}: {file.said}")


def _limits(look: Look) -> None:
    for host, said in look.gateways():
        for inf in look.facts.in_group("inf"):
            settings = look.facts.hosts[inf].settings
            if settings.get("fleet_gateway") != host or not settings.get("fleet_limits"):
                continue
            magic = int(settings["fleet_magic_number"])
            wanted = bool(settings["fleet_limits"]["dry_run"])
            if magic not in said.dry_run:
                look.fail(host, f"the gateway has no limits for {magic}")
            elif said.dry_run[magic] != wanted:
                is_, want = ("dry run" if of else "live" for of in (said.dry_run[magic], wanted))
                look.fail(host, f"{magic} is {is_} at the gateway, {want} in the inventory")


def _strategies(look: Look) -> None:
    for host, said in look.health("strategy", "inf"):
        if said.get("healthy") is not True:
            look.fail(host, f"the strategy is {said.get('state')}: {said.get('reason')}")


def _breakers(look: Look) -> None:
    for host, said in look.gateways():
        for magic in said.breakers:
            look.fail(host, f"the circuit breaker of {magic} is open")


def _nobodys(look: Look) -> None:
    for host, said in look.gateways():
        for magic, number in sorted(said.strangers.items()):
            look.warn(
                host, f"{number} position(s) or order(s) of {magic or 'no magic number'}, which nobody trades"
            )


def _backed_up(look: Look) -> None:
    for hub, backups in look.sections("backups", "hub"):
        for host in look.facts.hosts:
            at = backups.hosts.get(host)
            if at is None:
                look.fail(host, f"no backup on {hub} has a copy of it")
                continue
            look.saw(at)
            if look.facts.now - at > _DAY_S:
                look.fail(host, f"it was last backed up {(look.facts.now - at) / 3600:.0f} h ago")


def _proven(look: Look) -> None:
    for hub, backups in look.sections("backups", "hub"):
        if backups.proven is None:
            look.fail(hub, "no restore of a backup was ever proven")
            continue
        look.saw(backups.proven)
        if look.facts.now - backups.proven > _DAY_S:
            hours = (look.facts.now - backups.proven) / 3600
            look.fail(hub, f"a restore was last proven {hours:.0f} h ago")


CHECKS = (
    Check(
        "G-DAT-01",
        "P0",
        "Each Inf host reaches its gateway on both ports",
        "Without orders and events a strategy cannot act on what happens.",
        "`mt5crs link` on that host finds the layer that fails.",
        _reachable,
    ),
    Check(
        "G-DAT-02",
        "P0",
        "Every gateway is ready, and its terminal may trade",
        "Every order would be refused, also one that closes a position.",
        "`mt5crs health gateway` on that host says why.",
        _ready,
    ),
    Check(
        "G-DAT-03",
        "P0",
        "Each terminal is logged in to the account of the inventory, of the kind that its phase allows",
        "Orders would go to another account, or real money would be traded in a rehearsal.",
        "Correct the login in the vault, or fleet_account_login, and deploy the gateway.",
        _account,
    ),
    Check(
        "G-DAT-04",
        "P0",
        "Every reconciler is ready, and has compared its state lately",
        "A strategy trades by that state.",
        "Its journal says why: `journalctl -u mt5crs-reconciler`.",
        _synchronised,
    ),
    Check(
        "G-DAT-05",
        "P0",
        "Every reconciled state equals the gateway's",
        "A strategy that believes something else than the broker doubles or forgets positions.",
        "Compare with the terminal; never close or open anything to make the figures fit.",
        _equal,
    ),
    Check(
        "G-DAT-06",
        "P0",
        "The fate of every order is known",
        "Until it is, its magic number may send no other.",
        "Look for it in the terminal; declare one that was not executed with `mt5crs resolve`.",
        _unresolved,
    ),
    Check(
        "G-DAT-07",
        "P0",
        "Journals and records are there, and undamaged",
        "They are what keeps an order from being sent twice.",
        "Stop the service and keep a copy. Compare with the broker's books before anything trades again. "
        "Never delete a file to get going.",
        _databases,
    ),
    Check(
        "G-DAT-08",
        "P0",
        "Each gateway has the limits of every magic number, and sends or keeps back orders as wanted",
        "An order that should have been dry costs money; a dry one that should have been sent, too.",
        "Deploy the gateway, or correct dry_run in fleet_limits.",
        _limits,
    ),
    Check(
        "G-DAT-09",
        "P0",
        "Every strategy runs and may trade",
        "A suspended strategy does not look after its positions.",
        "Its reason says what it lacks; `journalctl -u mt5crs-strategy` has more.",
        _strategies,
    ),
    Check(
        "G-DAT-10",
        "P1",
        "No circuit breaker is open",
        "It opened because orders failed one after the other; the cause may still be there.",
        "Find it in the gateway's journal, then `mt5crs resume --magic`.",
        _breakers,
    ),
    Check(
        "G-DAT-11",
        "P2",
        "No position of an account is out of every strategy's sight",
        "Nobody closes what belongs to nobody, and it takes margin.",
        "`mt5crs … positions --all` shows them.",
        _nobodys,
    ),
    Check(
        "G-DAT-12",
        "P0",
        "The configuration keeps the policy's rules on phases, limits and accounts",
        "Limits are what a faulty strategy is stopped by.",
        "`mt5crs … policy check` lists them; `policy explain RULE` says what to do.",
        lambda look: rules(look, "TRD-", "SET-"),
    ),
    Check(
        "G-DAT-13",
        "P1",
        "Every host was backed up in the last 24 hours",
        "What a disk takes with it is gone, but for what was copied before.",
        "`mt5crs … backup run`, from a timer of the controller (docs/backup.md).",
        _backed_up,
    ),
    Check(
        "G-DAT-14",
        "P1",
        "A restore was proven in the last 24 hours",
        "A backup that nobody has restored may be none.",
        "`mt5crs … backup drill`, from the same timer.",
        _proven,
    ),
)
