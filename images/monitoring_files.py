"""What a stack's Prometheus and Alertmanager are configured with: the templates of hosts, rendered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from deploy.fleet.rendering import render
from images.errors import ImageError
from images.services import named
from mt5crs.settings.monitoring import MonitoringSettings
from mt5crs.settings.schema import SettingsError, build, did_you_mean, fields

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
_UNBOUNDED = {"webhook_networks": ["0.0.0.0/0"]}
"""On hosts, Alertmanager's unit says whom it may talk to; its container is kept from the gateway only."""


def own_settings(text: str, where: str) -> MonitoringSettings:
    """Read a person's `monitoring_…` variables. ImageError that names all that is wrong, and `where`."""
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
    for name in told:
        if name not in known:
            hint = did_you_mean(str(name), known, "monitoring_")
            raise ImageError(f"{where} has {name}, which a stack does not use{hint}")
    try:
        return build(
            MonitoringSettings,
            {**_UNBOUNDED, **{known[name].name: value for name, value in told.items()}},
            heading=where,
            label=lambda each: str(each.variable),
        )
    except SettingsError as error:
        raise ImageError(f"{where}: {'; '.join(error.problems)}") from None


def configuration(values: Mapping[str, str], own: MonitoringSettings) -> dict[str, str]:
    """Return what Prometheus and Alertmanager are configured with, by file name.

    values: addresses and ports of the stack. alertmanager.yml may hold tokens of webhooks.
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
        "hub_webhook_url": "",
        "hub_alerts_token": "",  # a stack's Hub has no key that halts
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
