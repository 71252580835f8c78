"""Whether somebody would notice, and could act."""

from __future__ import annotations

from deploy.preflight.check import FLEET, Check, Look

_DAY_S = 24 * 3600.0
_TESTED_WITHIN_S = 30 * _DAY_S
_NO_DEPLOYMENT = ("start", "recover")
"""What holds the fleet's lock and leaves every generation as it is; a start that asks this is one itself."""
_ENDED_WELL = ("changed", "unchanged", "undone", "checked")


def _critical(look: Look) -> None:
    for _, alerts in look.sections("firing", "hub"):
        for alert in alerts:
            if alert.severity != "critical":
                continue
            if not look.facts.lifted_by_the_start(alert.alertname, alert.host):
                look.fail(alert.host or FLEET, f"{alert.alertname} fires")


def _warnings(look: Look) -> None:
    for _, alerts in look.sections("firing", "hub"):
        for alert in alerts:
            if alert.severity != "critical":
                look.fail(alert.host or FLEET, f"{alert.alertname} fires ({alert.severity})")


def _valid(look: Look) -> None:
    for host, wrong in look.sections("promtool", "hub"):
        if wrong:
            look.fail(host, wrong)


def _loaded(look: Look) -> None:
    for host, rules in look.sections("rules", "hub"):
        if not rules:
            look.fail(host, "Prometheus has loaded no alert rule")
        for rule in rules:
            if rule.health != "ok":
                look.fail(host, f"rule {rule.name} is {rule.health} {rule.error}".rstrip())


def _scraped(look: Look) -> None:
    for hub, targets in look.sections("targets", "hub"):
        there = {(target.job, target.host): target for target in targets}
        wanted = look.facts.hosts[hub].settings.get("monitoring_scrape_ports") or {}
        if not wanted:
            look.unknown(hub, "what it should scrape")
        for job, hosts in wanted.items():
            for host in hosts:
                # Windows hosts have no node exporter.
                if job == "node" and "windows" in look.facts.hosts[host].groups:
                    continue
                target = there.get((job, host))
                if target is None:
                    look.fail(host, f"{job} is not scraped")
                elif target.health != "up":
                    look.fail(host, f"{job} cannot be scraped: {target.error or target.health}")


def _notified(look: Look) -> None:
    for host, urls in look.sections("notified", "hub"):
        if not urls:
            look.fail(host, "Prometheus has no Alertmanager to send alerts to")


def _heard(look: Look) -> None:
    for hub, said in look.health("hub", "hub"):
        heard = said.get("gateways")
        if not isinstance(heard, dict):
            look.unknown(hub, "which gateways its service listens to")
            continue
        if not said.get("healthy"):
            look.fail(hub, f"the Hub's service is {said.get('state')}: {said.get('reason')}")
        for gateway in look.facts.in_group("gateway"):
            if heard.get(gateway) != "listening":
                look.fail(
                    gateway, f"the Hub does not listen to it ({heard.get(gateway, 'it is not listed')})"
                )


def _silenced(look: Look) -> None:
    for host, silences in look.sections("silences", "hub"):
        for one in silences:
            look.warn(host, f"{one.what} is silenced until {one.until} by {one.by}: {one.why}")


def _told(look: Look) -> None:
    look.saw()
    if look.facts.signed_webhook and not look.facts.webhook:
        told = (
            "monitoring_webhook_url is not set: alerts go by hub_webhook_url alone, and to nobody while the"
        )
        look.fail(FLEET, f"{told} Hub's service is down")
    elif not look.facts.webhook:
        look.fail(FLEET, "monitoring_webhook_url is not set: alerts are shown on the Hub and sent to nobody")


def _watched(look: Look) -> None:
    look.saw()
    watchers = look.facts.watchers
    if not look.facts.watchdog and not watchers:
        look.fail(
            FLEET,
            "neither monitoring_hub_watch_url nor monitoring_watchdog_url is set: nobody is told when the "
            "Hub is dead",
        )
    elif len(watchers) == 1:
        look.warn(FLEET, f"only {watchers[0]} watches the Hub: if it is down as well, it tells nobody")


def _kill_switch(look: Look) -> None:
    for host, acts in look.sections("acts", "gateway"):
        of_fleet = [act for act in acts if act.magic == 0]
        lifted = next((act.at for act in of_fleet if act.act == "resume"), None)
        halted = next((act.at for act in of_fleet if act.act == "halt" and lifted and act.at <= lifted), None)
        if halted is None:
            look.fail(host, "no halt of the whole fleet and resume is recorded")
            continue
        look.saw(halted)
        days = (look.facts.now - halted) / _DAY_S
        if look.facts.now - halted > _TESTED_WITHIN_S:
            look.fail(host, f"the kill switch was last used {days:.0f} days ago, should be 30 at most")


def _halted(look: Look) -> None:
    for host, said in look.gateways():
        for magic, reason, client in said.halts:
            look.fail(host, f"{magic or 'everything'} is halted by {client}: {reason}")


def _last_deployment(look: Look) -> None:
    for host, told in look.sections("deployments", "hub"):
        found = [one for one in told if one.action not in _NO_DEPLOYMENT]
        if not found:
            look.fail(host, "no deployment is recorded")
        elif found[0].outcome not in _ENDED_WELL:
            newest = found[0]
            look.fail(
                host, f"the newest one ({newest.id[:8]}, {newest.started}, {newest.who}) is {newest.outcome}"
            )


CHECKS = (
    Check(
        "G-OPS-01",
        "P0",
        "No critical alert fires",
        "Each of them says that money is at risk now.",
        "The alert's section in the runbook says what to do first.",
        _critical,
    ),
    Check(
        "G-OPS-02",
        "P2",
        "No other alert fires",
        "What is a warning now is critical later.",
        "The alert's section in the runbook says what to do.",
        _warnings,
    ),
    Check(
        "G-OPS-03",
        "P0",
        "Configuration and alert rules on the Hub are valid (promtool)",
        "With rules that cannot be read Prometheus keeps old ones, or does not start again.",
        "Deploy monitoring.",
        _valid,
    ),
    Check(
        "G-OPS-04",
        "P0",
        "Prometheus has loaded its alert rules, and evaluates each of them",
        "A rule that is not evaluated never fires.",
        "The journal of prometheus on the Hub says why; deploy monitoring.",
        _loaded,
    ),
    Check(
        "G-OPS-05",
        "P0",
        "Every host and service of the inventory is watched, and answers",
        "Of what is not watched nobody hears when it breaks.",
        "Look at its unit and at the firewall between Hub and host; deploy if the Hub does not know it.",
        _scraped,
    ),
    Check(
        "G-OPS-06",
        "P0",
        "Prometheus sends its alerts to an Alertmanager",
        "Otherwise alerts fire and reach nobody.",
        "`systemctl status prometheus-alertmanager` on the Hub.",
        _notified,
    ),
    Check(
        "G-OPS-07",
        "P1",
        "No alert is silenced",
        "A silence that was forgotten hides the next fault.",
        "`amtool silence expire ID` on the Hub once its reason is gone.",
        _silenced,
    ),
    Check(
        "G-OPS-08",
        "P1",
        "Somebody is told of alerts",
        "What is only shown on the Hub is seen by who happens to look.",
        "Set monitoring_webhook_url and monitoring_webhook_networks.",
        _told,
    ),
    Check(
        "G-OPS-09",
        "P1",
        "The kill switch was tried at every gateway in the last 30 days",
        "What was never tried does not work when it has to.",
        "`mt5crs … halt --reason drill`, look that orders are refused, then `resume`.",
        _kill_switch,
    ),
    Check(
        "G-OPS-10",
        "P1",
        "No halt is in force",
        "Somebody stopped trading for a reason; orders are refused until it is lifted.",
        "Make sure that the reason is gone, then `mt5crs … resume --reason …`.",
        _halted,
    ),
    Check(
        "G-OPS-11",
        "P1",
        "The newest deployment ended well",
        "What failed or was interrupted may have left a fleet that nobody has looked at.",
        "`mt5crs … deployments show ID` says how it ended; deploy again, or roll back.",
        _last_deployment,
    ),
    Check(
        "G-OPS-12",
        "P2",
        "The Hub listens to every gateway, and can keep what it hears",
        "What it did not hear is missing on the page of the fleet: the account's money, refused orders.",
        "`journalctl -u mt5crs-hub` on the Hub; docs/hub.md says what each state means.",
        _heard,
    ),
    Check(
        "G-OPS-13",
        "P2",
        "Somebody notices when the Hub is dead",
        "A Hub that is down raises no alert: only the absence of a sign of life tells of it.",
        "Set monitoring_hub_watch_url, or monitoring_watchdog_url to a service that tells you when nothing "
        "comes (docs/monitoring.md).",
        _watched,
    ),
)
