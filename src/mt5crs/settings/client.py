"""Settings by which every client reaches its gateway: reconciler, strategy and the commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from mt5crs.settings.schema import Settings, setting


class ClientSettings(Settings, frozen=True, kw_only=True):
    """Where the gateway is, who asks, and how patiently."""

    gateway_host: Annotated[str, setting("Address or name of the gateway.", kind="address")]
    gateway_port: Annotated[int, setting("TCP port of the gateway's request socket.", ge=1, le=65535)] = 5555
    gateway_pub_port: Annotated[int, setting("TCP port of the gateway's event socket.", ge=1, le=65535)] = (
        5556
    )
    gateway_public_key: Annotated[str, setting("CURVE public key of the gateway.", kind="curve_public_key")]
    client_name: Annotated[
        str,
        setting(
            "Name under which the gateway knows this client.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
        ),
    ]
    client_secret_key: Annotated[str, setting("CURVE secret key of this client.", kind="curve_secret_key")]
    sync_timeout_s: Annotated[
        float,
        setting("How long one attempt of a SYNC_ALL or another read may take, in seconds.", ge=0.05, le=60),
    ] = 3.0
    sync_retry_count: Annotated[
        int, setting("How many attempts a SYNC_ALL or another read gets before it has failed.", ge=1, le=20)
    ] = 3
    sync_retry_interval_s: Annotated[
        float, setting("Pause between two attempts, in seconds.", ge=0, le=60)
    ] = 1.0

    def problems(self) -> Iterable[str]:
        """What cannot work together."""
        if self.gateway_port == self.gateway_pub_port:
            yield "GATEWAY_PORT and GATEWAY_PUB_PORT are equal; the gateway has two sockets, name both"
