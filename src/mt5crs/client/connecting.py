"""What a client's settings say of its gateway."""

from __future__ import annotations

import os

from mt5crs.client.connection import Peer
from mt5crs.client.gateway import Patience
from mt5crs.client.server_key import ServerKey
from mt5crs.settings.client import ClientSettings

FORMER_KEY = "FORMER_GATEWAY_PUBLIC_KEY"
"""What the service's generation of before has for GATEWAY_PUBLIC_KEY, while a change of it is not confirmed.
The release tool sets it (``mt5crs_release.generations.before``); it is no setting.
"""


def connection_of(settings: ClientSettings) -> tuple[Peer, Patience]:
    """The gateway and who asks it; how patiently it is asked."""
    peer = Peer(
        host=settings.gateway_host,
        port=settings.gateway_port,
        pub_port=settings.gateway_pub_port,
        server_key=settings.gateway_public_key,
        changing=ServerKey(settings.gateway_public_key, os.environ.get(FORMER_KEY, "")),
        client_name=settings.client_name,
        secret_key=settings.client_secret_key,
    )
    return peer, Patience(settings.sync_timeout_s, settings.sync_retry_count, settings.sync_retry_interval_s)
