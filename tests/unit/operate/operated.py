"""A fleet of one real gateway, as commands with --inventory see it; nothing else of it is real."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.commands import backup, named_fleet, preflight, start, stop, strategy_state
from deploy.coordination import audit_log
from deploy.fleet.inventory import Fleet
from deploy.preflight.facts import Asked, Facts
from deploy.preflight.judging import Decision
from mt5crs.__main__ import main
from mt5crs.operate.chosen import Target
from mt5crs.protocol import requests
from tests.unit.gateway.running import LIMITS, MAGIC, Caller, Running
from tests.unit.preflight.test_preflight import CHECKS, GOOD, decide, on

BACKUP = {
    "id": "20261130T080000Z-abcd",
    "hosts": {"gtw-01": {}},
    "missing": {},
    "removed": [],
    "seconds": 1.0,
}


@dataclass
class Operated:
    """What a command meets; `waits`: what the strategy's host says, one after the other, then nothing."""

    gateway: Running
    fleet: Fleet
    facts: Any = GOOD
    backup: dict[str, Any] = field(default_factory=lambda: dict(BACKUP))
    waits: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    recorded: list[dict[str, Any]] = field(default_factory=list)
    someone: bool = True

    def run(self, *arguments: str) -> Result:
        """A command with --inventory. Its standard error is in the output."""
        return CliRunner().invoke(main, ["--inventory", "x.yml", *arguments])

    def start(self, *more: str) -> Result:
        """`start` of the magic number."""
        return self.run("start", "--magic", str(MAGIC), *more)

    def tell(self, kind: type[requests.Request], **fields: Any) -> Any:
        """What an operator asks for by hand."""
        return self.gateway.client("ops").ask(kind, **fields)

    def halt(self, reason: str = "drill", scope: str = "MAGIC") -> None:
        """Halt it by hand."""
        self.tell(requests.Halt, scope=scope, reason=reason)

    def halts(self) -> list[tuple[int, str]]:
        """(magic number, reason) of what is halted."""
        return [(halt.magic, halt.reason) for halt in self.tell(requests.Status).halts]

    def trader(self) -> Caller:
        """The strategy's client, with its lease."""
        made = self.gateway.client("strategy")
        made.lease()
        return made


def fleet_of(gateway: Running) -> Fleet:
    """The inventory of it."""
    common = {
        "fleet_operators": [{"name": "ops"}],
        "vault_client_secret_keys": {"ops": gateway.secrets["ops"]},
        "fleet_address": "127.0.0.1",
        "fleet_gateway_public_keys": {"gtw-01": gateway.public, "gtw-02": gateway.public},
    }
    hosts: dict[str, dict[str, Any]] = {
        "gtw-01": {**common, "gateway_port": gateway.port, "gateway_pub_port": gateway.pub_port},
        "inf-01": {"fleet_magic_number": MAGIC, "fleet_gateway": "gtw-01", "fleet_limits": LIMITS},
    }
    return Fleet(Path("x.yml"), "x", hosts, {"gateway": ("gtw-01",), "inf": ("inf-01",)})


def with_a_silent_one(of: Fleet) -> Fleet:
    """The same with a second gateway, where nothing listens."""
    away = {**of.hosts["gtw-01"], "gateway_port": 1, "gateway_pub_port": 2}
    hosts = {**of.hosts, "gtw-02": away}
    return Fleet(of.inventory, of.environment, hosts, {**of.groups, "gateway": ("gtw-01", "gtw-02")})


def away(of: Fleet) -> Fleet:
    """The same, but nothing listens where its gateway should be."""
    nothing = {**of.hosts["gtw-01"], "gateway_port": 1}
    return Fleet(of.inventory, of.environment, {**of.hosts, "gtw-01": nothing}, of.groups)


def operated(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Operated:
    """Put it in place of a fleet with hosts, for one test."""
    made = Operated(gateway, fleet_of(gateway))
    quick = named_fleet.of_fleet

    def impatient(fleet: Fleet, operator: str | None) -> list[Target]:
        return [
            Target(
                one.name,
                msgspec.structs.replace(one.connection, sync_timeout_s=1.0, sync_retry_count=1),
                one.magics,
            )
            for one in quick(fleet, operator)
        ]

    def waits(_variables: Any, _magic: int) -> str:
        return made.waits.pop(0) if made.waits else ""

    monkeypatch.setattr(named_fleet, "of_fleet", impatient)
    for module in (named_fleet, start, stop):
        monkeypatch.setattr(module, "fleet_of", lambda _: made.fleet)

    def decision(
        _fleet: Fleet, _operator: str | None, starting: int | None = None, lock: str | None = None
    ) -> Decision:
        facts = under_lock(replace(made.facts, starting=starting, lock=lock), lock)
        return decide(facts, CHECKS)

    monkeypatch.setattr(preflight, "decision_of", decision)
    monkeypatch.setattr(backup, "made_of", lambda _: made.backup)
    monkeypatch.setattr(strategy_state, "strategy_of", waits)
    monkeypatch.setattr(start, "_sleep", made.slept.append)
    monkeypatch.setattr(start, "_someone_there", lambda: made.someone)
    monkeypatch.setattr(audit_log, "add", lambda _, records: made.recorded.extend(records) or "")
    gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="as before")
    gateway.client("ops").ask(requests.Resume, scope="FLEET", reason="as before")
    gateway.client("ops").ask(requests.PhaseTrading, state="ACTIVE", reason="as before")
    return made


def under_lock(facts: Facts, lock: str | None) -> Facts:
    """What the Hub tells of the lock while it is held."""
    asked = facts.answers["hub-01"]
    assert isinstance(asked, Asked)
    assert asked.answer.sections.status is not None
    told = asked.answer.sections.status.value
    assert told is not None
    holder = {"id": lock, "who": "ops", "phase": "begun"} if lock else None
    return on("hub-01", status={**told, "deployment": holder})(facts)


def no_backup(why: str) -> Any:
    """A backup that cannot be made."""

    def refuse(_: Fleet) -> None:
        raise click.ClickException(why)

    return refuse
