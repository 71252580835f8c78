"""Settings of the reconciler (variables `reconciler_…`, environment names as in the reference)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from mt5crs.settings.client import ClientSettings
from mt5crs.settings.schema import LiveSettingsFile, LogLevel, Settings, setting


class ReconcilerSettings(ClientSettings, frozen=True, kw_only=True):
    """How an Inf node keeps its picture of the broker true."""

    part: ClassVar[str] = "reconciler"

    gateway_protocol: Annotated[
        Literal["v1", "legacy"],
        setting(
            "Protocol of the gateway: v1, or legacy for a gateway that speaks only the old JSON format "
            "without encryption (read-only shadow run with a record of its own; no strategy starts on it)."
        ),
    ] = "v1"
    gateway_public_key: Annotated[
        str, setting("CURVE public key of the gateway (v1).", kind="curve_public_key")
    ] = "0" * 64
    client_secret_key: Annotated[
        str, setting("CURVE secret key of this client (v1).", kind="curve_secret_key")
    ] = "0" * 64
    magic_number: Annotated[
        int, setting("Magic number of the orders and positions to look after.", ge=1, le=2**63 - 1)
    ]
    expected_account_login: Annotated[
        int, setting("Login of the only account this node may work on.", ge=1, le=2**63 - 1)
    ]
    recheck_interval_s: Annotated[
        float, setting("Seconds between two full comparisons while nothing happens.", ge=0.2, le=3600)
    ] = 10.0
    silence_timeout_s: Annotated[
        float,
        setting(
            "Seconds without a heartbeat of the gateway after which the state counts as unknown "
            "(catches half-open connections).",
            ge=0.5,
            le=9,
        ),
    ] = 3.5
    metrics_address: Annotated[
        str, setting("Address on which metrics and health are served.", kind="address")
    ] = "127.0.0.1"
    metrics_port: Annotated[int, setting("TCP port of metrics and health.", ge=0, le=65535)] = 9102
    state_dir: Annotated[str, setting("Directory of the durable state.", pattern=r"^/", variable=False)] = (
        "/var/lib/mt5crs/reconciler"
    )
    reconciler_socket: Annotated[
        str, setting("Local socket on which the state is published.", pattern=r"^/", variable=False)
    ] = "/run/mt5crs-reconciler/state.sock"
    log_level: Annotated[LogLevel, setting("Least severe level that is logged.", live=True)] = "INFO"
    live_settings_file: LiveSettingsFile = ""

    def problems(self) -> Iterable[str]:
        """What cannot work together."""
        yield from super().problems()
        if self.gateway_protocol == "v1":
            if self.gateway_public_key == "0" * 64:
                yield "GATEWAY_PUBLIC_KEY is missing; set the gateway's key, or GATEWAY_PROTOCOL=legacy"
            if self.client_secret_key == "0" * 64:
                yield "CLIENT_SECRET_KEY is missing; create one with `python -m deploy.keys`"


class ReconcilerDeployment(Settings, frozen=True, kw_only=True):
    """What only the deployment of a reconciler uses."""

    part: ClassVar[str] = "reconciler"

    standby_metrics_port: Annotated[
        int,
        setting(
            "TCP port (on 127.0.0.1) of metrics and health while it stands by before a blue/green switch.",
            ge=1,
            le=65535,
            in_env=False,
        ),
    ] = 9112
