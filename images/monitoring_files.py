"""What a stack's Prometheus and Alertmanager are configured with: the templates of hosts, rendered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deploy.fleet.rendering import render
from images.errors import ImageError
from images.services import named
from mt5crs.settings.hub import HubSettings
from mt5crs.settings.monitoring import MonitoringSettings, is_address
from mt5crs.settings.schema import SettingsError, build, check_value, did_you_mean, fields

OWN = "monitoring.yml"
"""In a stack's directory: a person's own settings."""
GATEWAY, INF, HUB = "gateway", "inf", "hub"
"""What alerts and pages call the hosts: reconciler and strategy are one Inf host's."""
ALERTMANAGER = "alertmanager.yml"
_SHOWN = {
    "prometheus.yml": "monitoring/prometheus.yml.j2",
    "alerts.yml": "monitoring/alerts.yml.j2",
    "consoles/runbook.html": "monitoring/runbook.html.j2",
    ALERTMANAGER: "monitoring/alertmanager.yml.j2",
}
_NOT_HERE = (
    "packages", "packages_hub", "node_port", "prometheus_port", "alertmanager_port",
    "prometheus_sources", "alertmanager_sources",
    "webhook_networks", "hub_watch_url", "hub_watch_secret", "hub_watch_networks", "hub_watch_port",
    "hub_watch_silence_s",
    "hub_watchers", "scrape_ports", "steered_clocks",
)  # fmt: skip
"""Settings that a stack has no use for: they are about hosts, or compose.yml says them."""
_SIGNED = ("hub_webhook_url", "hub_webhook_secret")
_UNBOUNDED = {"webhook_networks": ["0.0.0.0/0"]}
"""On hosts, Alertmanager's unit says whom it may talk to; its container is kept from the gateway only."""


@dataclass(frozen=True)
class Signing:
    """Where the Hub posts what it signs, and with what; empty: it signs nothing."""

    url: str = ""
    secret: str = ""


def own_settings(text: str, where: str) -> tuple[MonitoringSettings, Signing]:
    """Read a person's `monitoring_…` variables, and those of the signed webhook.

    ImageError that names all that is wrong, and `where`.
    """
    known = {
        f"{each.part}_{each.name}": each for each in fields(MonitoringSettings) if each.name not in _NOT_HERE
    }
    try:
        told = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ImageError(
            f"{where} is no YAML ({str(error).splitlines()[0]}): correct it, then try again"
        ) from None
    if not isinstance(told, dict):
        raise ImageError(f"{where} holds no `monitoring_…: value` lines: correct it, then try again")
    signing = _signing({name: told.pop(name) for name in _SIGNED if name in told}, where)
    for name in told:
        if name not in known:
            hint = did_you_mean(str(name), known, "monitoring_")
            raise ImageError(f"{where} has {name}, which a stack does not use{hint}")
    try:
        made = build(
            MonitoringSettings,
            {**_UNBOUNDED, **{known[name].name: value for name, value in told.items()}},
            heading=where,
            label=lambda each: str(each.variable),
        )
    except SettingsError as error:
        raise ImageError(f"{where}: {'; '.join(error.problems)}") from None
    return made, signing


def _signing(told: Mapping[str, Any], where: str) -> Signing:
    """The Hub's own settings of these names, judged as the Hub itself does. ImageError."""
    of_hub = {str(each.variable): each for each in fields(HubSettings)}
    checked = {name: check_value(of_hub[name], value, name) for name, value in told.items()}
    problems = [problem for _, problem in checked.values() if problem]
    signing = Signing(*("" if problems else str(told.get(name, "")) for name in _SIGNED))
    if not problems and bool(signing.url) != bool(signing.secret):
        problems = [f"{' and '.join(_SIGNED)} belong together; set both or neither"]
    if not problems and signing.url and not is_address(signing.url):
        problems = [f"{_SIGNED[0]} is no http:// or https:// address"]
    if problems:
        raise ImageError(f"{where}: {'; '.join(problems)}")
    return signing


def configuration(
    values: Mapping[str, str], own: MonitoringSettings, signed_with: str = ""
) -> dict[str, str]:
    """Return what Prometheus and Alertmanager are configured with, by file name.

    values: addresses and ports of the stack. signed_with: the token that Alertmanager shows the Hub, which
    signs what it is told; empty: it is told nothing. alertmanager.yml may hold tokens of webhooks.
    """
    shown = f"http://127.0.0.1:{values['MT5CRS_PROMETHEUS_PORT']}/consoles/runbook.html"
    scraped = {
        "gateway": {GATEWAY: values["MT5CRS_GATEWAY_ADDRESS"]},
        "reconciler": {INF: values["MT5CRS_RECONCILER_ADDRESS"]},
        "strategy": {INF: values["MT5CRS_STRATEGY_ADDRESS"]},
        "hub": {HUB: values["MT5CRS_HUB_WATCHING_ADDRESS"]},
        "prometheus": {HUB: values["MT5CRS_PROMETHEUS_WATCHING_ADDRESS"]},
        "alertmanager": {HUB: values["MT5CRS_ALERTMANAGER_WATCHING_ADDRESS"]},
    }
    variables: dict[str, Any] = {
        **{str(each.variable): getattr(own, each.name) for each in fields(MonitoringSettings)},
        "monitoring_runbook_url": own.runbook_url or shown,
        "monitoring_containers": scraped,
        "monitoring_scrape_ports": {
            job: {host: named(job).ports[-1] for host in members} for job, members in scraped.items()
        },
        "monitoring_hub_watchers": {},
        "hub_http_address": values["MT5CRS_HUB_WATCHING_ADDRESS"],
        "hub_http_port": named("hub").ports[-1],
        "hub_webhook_url": bool(signed_with),
        "hub_alerts_token": signed_with,
        "monitoring_steered_clocks": [],
        "monitoring_instances": {},
        "fleet_environment": values["MT5CRS_PROJECT"],
        "fleet_secret_warn_days": 30,
        "fleet_address": values["MT5CRS_PROMETHEUS_WATCHING_ADDRESS"],
        "fleet_members": {
            "hub": {HUB: values["MT5CRS_ALERTMANAGER_WATCHING_ADDRESS"]},
            "gateway": {}, "inf": {}, "review": {}, "windows": {},
        },
    }  # fmt: skip
    return {name: render(template, variables) for name, template in _SHOWN.items()}
