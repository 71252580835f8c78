"""Settings of the Hub's service (variables `hub_…`, environment names as in the reference)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from mt5crs.settings.baseline import network_problem
from mt5crs.settings.gateway import Limits
from mt5crs.settings.monitoring import SIGNING_SECRETS, UNQUOTED, is_address
from mt5crs.settings.networks import unreadable
from mt5crs.settings.schema import LiveSettingsFile, LogLevel, Settings, setting

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Magic = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Operator = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_ADDRESS = r"^(http://\S+)?\Z"


class HubSettings(Settings, frozen=True, kw_only=True):
    """Which gateways are listened to, what is kept of them and for how long, where it is shown."""

    part: ClassVar[str] = "hub"
    endpoint: ClassVar[tuple[str, str]] = ("http_address", "http_port")

    gateways: Annotated[
        dict[str, str], setting("Address of every gateway to listen to, by host; from the inventory.")
    ]
    gateway_ports: Annotated[
        dict[str, _Port], setting("TCP port of every gateway's request socket, by host; from the inventory.")
    ]
    gateway_pub_ports: Annotated[
        dict[str, _Port], setting("TCP port of every gateway's event socket, by host; from the inventory.")
    ]
    gateway_public_keys: Annotated[
        dict[str, str],
        setting(
            "CURVE public key of every gateway, by host.",
            create="python -m deploy.keys --inventory inventory/<environment>.yml",
        ),
    ]
    client_name: Annotated[
        str,
        setting(
            "Name under which the gateways know the Hub: a client that may only observe.",
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z",
        ),
    ]
    client_secret_key: Annotated[str, setting("CURVE secret key of the Hub.", kind="curve_secret_key")]
    halt_on: Annotated[
        list[str],
        setting(
            "Alerts that halt the magic numbers they are about, by code or name (docs/monitoring.md), also "
            "without phases; they stay halted until `mt5crs resume`. Empty: none."
        ),
    ] = msgspec.field(default_factory=lambda: ["WS_DISCONNECTED", "LIVE_NO_FILLS", "CIRCUIT_BREAKER_OPEN"])
    halt_client_name: Annotated[
        str,
        setting(
            "Name under which the gateways know the Hub when it halts: a client that may do nothing else.",
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?\Z",
        ),
    ] = ""
    halt_secret_key: Annotated[
        str, setting("CURVE secret key of that client; empty: the Hub can halt nothing.", secret=True)
    ] = ""
    alerts_token: Annotated[
        str,
        setting(
            "What the Hub's own Alertmanager shows when it posts that an alert fires; empty: posts are "
            "refused, and the Hub learns it within ALERTS_INTERVAL_S.",
            secret=True,
        ),
    ] = ""
    alerts_from: Annotated[
        str,
        setting(
            "Address of an Alertmanager that may post with this token beside those of this host: in a stack "
            "of containers it is in another one.",
            pattern=r"^([0-9.]+|[0-9a-f:]+)?\Z",
            variable=False,
        ),
    ] = ""
    webhook_url: Annotated[
        str,
        setting(
            "Address that every alert is posted to with a signature, beside monitoring_webhook_url, in "
            "Alertmanager's webhook format (docs/monitoring.md); empty: none is.",
            secret=True,
        ),
    ] = ""
    webhook_secret: Annotated[
        str,
        setting(
            "What these posts are signed with: whsec_ and 24 to 64 random bytes in base64; while it is "
            "replaced the new one, a blank, and the former one.",
            pattern=SIGNING_SECRETS,
            secret=True,
        ),
    ] = ""
    webhook_tries: Annotated[
        int,
        setting(
            "Times that a signed post is tried, after 2, 4, ... 60 s, before it is a dead letter; 60 take "
            "about an hour.",
            ge=1,
            le=10_000,
        ),
    ] = 60
    operators: Annotated[
        dict[_Operator, _Digest],
        setting(
            "Who may halt and acknowledge on the page: name and SHA-256, in hex, of a token of 32 random "
            "bytes (docs/hub.md says how to make one). None: the page only shows."
        ),
    ] = msgspec.field(default_factory=dict)
    magic_numbers: Annotated[
        dict[str, _Magic], setting("Magic number of every Inf host, by host; from the inventory.")
    ] = msgspec.field(default_factory=dict)
    magic_gateways: Annotated[
        dict[str, str], setting("Gateway of every Inf host, by host; from the inventory.")
    ] = msgspec.field(default_factory=dict)
    limits: Annotated[
        dict[str, Limits],
        setting(
            "What every Inf host's magic number may do, by host; from the inventory, to be shown.", live=True
        ),
    ] = msgspec.field(default_factory=dict)
    http_address: Annotated[
        str, setting("Address on which page, API, metrics and health are served.", kind="address")
    ] = "127.0.0.1"
    http_port: Annotated[int, setting("TCP port of page, API, metrics and health.", ge=0, le=65535)] = 8083
    plain_readers: Annotated[
        list[str],
        setting(
            "Addresses and networks that are answered without TLS, as all once were: whoever is on the way "
            "reads along. Others are told the https:// address. For programs that cannot do it yet."
        ),
    ] = msgspec.field(default_factory=list)
    prometheus_url: Annotated[
        str,
        setting(
            "Address of the Prometheus that is asked for alerts and hosts; empty: they are shown as unknown.",
            pattern=_ADDRESS,
        ),
    ] = ""
    alertmanager_url: Annotated[
        str,
        setting(
            "Address of the Alertmanager that is asked for silences; empty: they are shown as unknown.",
            pattern=_ADDRESS,
        ),
    ] = ""
    first_history_days: Annotated[
        int, setting("Days of history that are read from a gateway seen for the first time.", ge=0, le=3650)
    ] = 30
    recheck_interval_s: Annotated[
        float,
        setting("Seconds between two readings of a gateway's books while no event is missed.", ge=1, le=3600),
    ] = 60.0
    status_interval_s: Annotated[
        float,
        setting("Seconds between two questions for a gateway's halts, leases and phases.", ge=1, le=600),
    ] = 10.0
    silence_timeout_s: Annotated[
        float,
        setting("Seconds without a heartbeat after which the Hub counts as not listening.", ge=0.5, le=60),
    ] = 5.0
    alerts_interval_s: Annotated[
        float, setting("Seconds between two questions to Prometheus and Alertmanager.", ge=0.2, le=600)
    ] = 5.0
    sample_interval_s: Annotated[
        float, setting("Least seconds between two kept samples of an account's money.", ge=1, le=3600)
    ] = 10.0
    keep_trades_days: Annotated[
        int, setting("Days that deals and closed orders are kept.", ge=1, le=3650)
    ] = 400
    keep_samples_days: Annotated[int, setting("Days that samples of accounts are kept.", ge=1, le=3650)] = 35
    keep_events_days: Annotated[
        int, setting("Days that events, gaps and resolved alerts are kept.", ge=1, le=3650)
    ] = 35
    keep_events: Annotated[
        int, setting("Most events that are kept in the database.", ge=1000, le=100_000_000)
    ] = 500_000
    events_file_mb: Annotated[
        int, setting("Most disk space of events.jsonl and its predecessor together, in MB.", ge=2, le=100_000)
    ] = 100
    access_log_mb: Annotated[
        int, setting("Most disk space of access.jsonl and its predecessor together, in MB.", ge=2, le=100_000)
    ] = 20
    database_mb: Annotated[
        int,
        setting(
            "Most disk space of the database in MB: beyond it the oldest events, samples, then trades go.",
            ge=4,
            le=1_000_000,
        ),
    ] = 1000
    deployments_file: Annotated[
        str,
        setting("What the release tool tells the page of deployments.", pattern=r"^/", variable=False),
    ] = "/var/lib/mt5crs/deployments.json"
    runbook_file: Annotated[
        str, setting("The runbook, as monitoring brings it.", pattern=r"^/", variable=False)
    ] = "/opt/mt5crs/monitoring/current/consoles/runbook.html"
    incidents_file: Annotated[
        str, setting("Incidents, as `mt5crs incident` keeps them.", pattern=r"^/", variable=False)
    ] = "/var/lib/mt5crs/incidents.json"
    state_dir: Annotated[str, setting("Directory of the durable state.", pattern=r"^/", variable=False)] = (
        "/var/lib/mt5crs/hub"
    )
    log_level: Annotated[LogLevel, setting("Least severe level that is logged.", live=True)] = "INFO"
    live_settings_file: LiveSettingsFile = ""

    def problems(self) -> Iterable[str]:
        """Gateways of which something is missing, Inf hosts of gateways that are not listened to."""
        for name, told in (
            ("GATEWAY_PORTS", self.gateway_ports),
            ("GATEWAY_PUB_PORTS", self.gateway_pub_ports),
            ("GATEWAY_PUBLIC_KEYS", self.gateway_public_keys),
        ):
            missing = sorted(set(self.gateways) - set(told))
            if missing:
                yield f"{name} has nothing for {', '.join(missing)}; GATEWAYS names them"
        for host in sorted(set(self.magic_numbers) - set(self.magic_gateways)):
            yield f"MAGIC_GATEWAYS has nothing for {host}; MAGIC_NUMBERS names it"
        if bool(self.halt_client_name) != bool(self.halt_secret_key):
            yield "HALT_CLIENT_NAME and HALT_SECRET_KEY belong together; set both or neither"
        if self.halt_on and not self.halt_secret_key:
            yield (
                "HALT_ON names alerts, but the Hub has no key to halt with; `python -m deploy.keys "
                "--inventory inventory/<environment>.yml` makes it"
            )
        yield from unreadable("PLAIN_READERS", self.plain_readers)
        yield from self._webhook_problems()

    def _webhook_problems(self) -> Iterable[str]:
        if bool(self.webhook_url) != bool(self.webhook_secret):
            yield "WEBHOOK_URL and WEBHOOK_SECRET belong together; set both or neither"
        if self.webhook_url and not (is_address(self.webhook_url) and UNQUOTED.fullmatch(self.webhook_url)):
            yield (
                "WEBHOOK_URL is no http:// or https:// address (a quote, a blank or one outside of ASCII is "
                "written as %XX); correct it in the vault"
            )
        if self.webhook_url and not self.alerts_token:
            yield (
                "WEBHOOK_URL is set, but Alertmanager has no token to post to the Hub with; `python -m "
                "deploy.keys --inventory inventory/<environment>.yml` makes the key that it follows from"
            )


class HubDeployment(Settings, frozen=True, kw_only=True):
    """What only the deployment of the Hub's service uses."""

    part: ClassVar[str] = "hub"

    readers: Annotated[
        list[str],
        setting(
            "Addresses and networks that reach page and API, beside the controllers. There is no password: "
            "whoever is there sees positions and money, and can change nothing.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    webhook_networks: Annotated[
        list[str],
        setting(
            "Addresses and networks that the Hub may talk to besides the fleet: that of hub_webhook_url, and "
            "the name server's when it is given by name. Its sandbox refuses all others.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)

    def problems(self) -> Iterable[str]:
        """Readers that are no address."""
        for reader in self.readers:
            if problem := network_problem(reader):
                yield f"hub_readers has {reader!r}: {problem}"
        yield from unreadable("hub_webhook_networks", self.webhook_networks)
