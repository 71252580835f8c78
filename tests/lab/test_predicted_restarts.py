"""What `config impact` says that a change restarts is what the deployment of that change restarts.

Random changes of many settings, of the whole fleet or of one host, each deployed on top of those before.
Every unit of every service is looked at, by systemd's invocation id and main process.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.fleet.inventory import resolve
from deploy.fleet.settings import check
from deploy.rollout.impact import impact
from tests.lab.engines import Fleet, run

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3000)]

CHANGES = 50
SEED = 18
Draw = Callable[[random.Random], Any]
Units = dict[tuple[str, str, str], tuple[str, str]]
"""(host, service, unit) → its invocation and main process."""


def between(low: float, high: float) -> Draw:
    """A number that no other draw is likely to give."""
    whole = isinstance(low, int)
    return lambda chance: (
        chance.randint(int(low), int(high)) if whole else round(chance.uniform(low, high), 3)
    )


def one_of(*values: Any) -> Draw:
    return lambda chance: chance.choice(values)


LEVEL = one_of("DEBUG", "INFO", "WARNING")
LIMITS: Draw = lambda chance: {  # noqa: E731 -- a draw like those above
    "dry_run": False, "symbols": ["EURUSD"], "max_order_volume": round(chance.uniform(0.05, 0.2), 2),
    "max_position_volume": round(chance.uniform(1.0, 2.0), 2), "max_daily_loss": 500.0,
    "max_slippage_points": 50, "max_consecutive_failures": chance.randint(5, 9),
}  # fmt: skip
INF, GATEWAY, HUB = "inf", "gtw", "hub"
SETTINGS: dict[str, tuple[str, Draw]] = {
    # What every host has may be set for any; what one kind of host has, for one of that kind.
    "baseline_banner": ("", lambda chance: f"Private system number {chance.randint(1, 10**6)}."),
    "baseline_shell_idle_s": ("", between(600, 3600)),
    "baseline_journal_keep_days": ("", between(10, 90)),
    "baseline_access_confirm_s": ("", between(40, 60)),
    "fleet_confirm_timeout_s": ("", between(150, 300)),
    "fleet_secret_warn_days": ("", between(1, 60)),
    "monitoring_node_port": ("", between(9200, 9290)),
    "reconciler_recheck_interval_s": (INF, between(5.0, 20.0)),
    "reconciler_sync_timeout_s": (INF, between(2.0, 4.0)),
    "reconciler_metrics_port": (INF, between(9300, 9390)),
    "reconciler_log_level": (INF, LEVEL),
    "strategy_tick_interval_s": (INF, between(0.5, 2.0)),
    "strategy_volume": (INF, one_of(0.01, 0.02, 0.03)),
    "strategy_threads": (INF, between(256, 1024)),
    "strategy_cpu_percent": (INF, between(90, 150)),
    "strategy_metrics_port": (INF, between(9400, 9490)),
    "strategy_log_level": (INF, LEVEL),
    "fleet_limits": (INF, LIMITS),
    "gateway_quote_life_s": (GATEWAY, between(600.0, 1200.0)),
    "gateway_client_requests_per_s": (GATEWAY, between(400, 800)),
    "gateway_connections_per_address": (GATEWAY, between(64, 128)),
    "gateway_log_level": (GATEWAY, LEVEL),
    "gateway_metrics_port": (GATEWAY, between(9500, 9590)),
    "hub_recheck_interval_s": (HUB, between(30.0, 90.0)),
    "hub_keep_trades_days": (HUB, between(300, 500)),
    "hub_log_level": (HUB, LEVEL),
    "monitoring_scrape_interval_s": (HUB, between(3, 7)),
    "monitoring_retention_days": (HUB, between(10, 60)),
    "monitoring_alert_gateway_silence_s": (HUB, between(10, 20)),
    "monitoring_alert_disk_free_percent": (HUB, between(1.0, 9.0)),
    "gateway_port": ("all", between(5600, 5690)),
    "gateway_pub_port": ("all", between(5700, 5790)),
}  # fmt: skip
"""Setting → on which hosts alone it may be set (begin of their names; "": any), and how a value is drawn."""


@dataclass(frozen=True)
class Change:
    """One setting, of one host or (None) of all."""

    name: str
    value: Any
    host: str | None


def draw(fleet: Fleet, chance: random.Random) -> Change:
    name = chance.choice(sorted(SETTINGS))
    begins, value = SETTINGS[name]
    hosts = [host.name for host in fleet.plan.hosts if host.name.startswith(begins)]
    of_project = name == "fleet_limits"  # the project's own group_vars/lab would win over those of all
    host = chance.choice(hosts) if hosts and (of_project or chance.random() < 0.5) else None
    return Change(name, value(chance), host)


class Variables:
    """The files of variables beside the inventory, in which changes are collected."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._directory: Path = fleet.inventory.parent / "host_vars"
        self._directory.mkdir()
        self._everywhere: dict[str, Any] = {}
        self._of: dict[str, dict[str, Any]] = {}

    def write(self, change: Change) -> None:
        """Set it on top of those before; what is set for all is not held back by what one host has."""
        if change.host is None:
            self._everywhere[change.name] = change.value
            for of in self._of.values():
                of.pop(change.name, None)
        else:
            self._of.setdefault(change.host, {})[change.name] = change.value
        self._fleet.override(**self._everywhere)
        for host, of in self._of.items():
            (self._directory / f"{host}.yml").write_text(yaml.safe_dump(of))

    def remove(self) -> None:
        """As it was, by one deployment that moves every port: the gateway is silent for longer than usual."""
        shutil.rmtree(self._directory)
        self._fleet.override(fleet_alerts_firing="report")
        ran = self._fleet.pyinfra("--data", "strategy=all_at_once")
        assert ran.status == 0, ran.output[-4000:]


@pytest.fixture
def variables(fleet: Fleet) -> Iterator[Variables]:
    made = Variables(fleet)
    yield made
    made.remove()


def units(fleet: Fleet) -> Units:
    """Every unit of every service, with what it is known by from start to end."""

    def of_host(host: str) -> Units:
        of = {unit: service for service, now in fleet.status(host).items() for unit in now["units"]}
        show = ["systemctl", "show", "-p", "Id,InvocationID,MainPID", *of]
        found: Units = {}
        for block in fleet.lab.exec(host, show).stdout.strip().split("\n\n"):
            told = dict(line.split("=", 1) for line in block.splitlines())
            found[host, of[told["Id"]], told["Id"]] = (told["InvocationID"], told["MainPID"])
        return found

    hosts = [host.name for host in fleet.plan.hosts]
    with ThreadPoolExecutor(len(hosts)) as pool:
        return {key: now for of in pool.map(of_host, hosts) for key, now in of.items()}


@pytest.mark.slow(reason="50 deployments; what predicts is tried in tests/unit/rollout/test_impact.py")
def test_what_is_predicted_to_restart_is_what_restarts(fleet: Fleet, variables: Variables) -> None:
    chance = random.Random(SEED)  # noqa: S311
    before, wanted = units(fleet), resolve(fleet.inventory)
    wrong, done, restarted, live = [], 0, 0, 0
    begun = time.monotonic()
    while done < CHANGES:
        change = draw(fleet, chance)
        given = {change.name: change.value}
        of_host = {change.host: given} if change.host else None
        then = resolve(fleet.inventory, None if change.host else given, of_host)
        if check(then):
            continue  # two ports that are the same
        predicted = impact(wanted, then)
        if done % 10 == 0:  # the command says the same
            asked = ["config", "impact", f"{change.name}={json.dumps(change.value)}", "--json"]
            host = ["--host", change.host] if change.host else []
            said = run("mt5crs", "--inventory", str(fleet.inventory), *asked, *host)
            document = json.loads(said.output[said.output.index("{") :])
            assert {tuple(member) for member in document["restarts"]} == {*predicted.restarts}
        variables.write(change)
        wanted = resolve(fleet.inventory)
        ran = fleet.pyinfra("--data", "strategy=all_at_once")
        assert ran.status == 0, f"{change}: {ran.output[-4000:]}"
        now = units(fleet)
        moved = {key[:2] for key in now if before.get(key) != now[key]} | {
            key[:2] for key in before if key not in now
        }
        if moved != {*predicted.restarts}:
            wrong.append(
                (change, sorted({*predicted.restarts} - moved), sorted(moved - {*predicted.restarts}))
            )
        done, restarted, live = done + 1, restarted + len(moved), live + bool(predicted.live)
        told = f"restarted {sorted(moved)}, taken over {sorted(predicted.live)}"
        print(f"{done:>3} {time.monotonic() - begun:6.1f} s {change}: {told}", flush=True)
        before = now
    assert not wrong, "\n".join(
        f"{change}: not restarted {none}, beyond {more}" for change, none, more in wrong
    )
    assert restarted >= CHANGES / 2, "most changes restart nothing, so this shows nothing"
    assert live >= 3
