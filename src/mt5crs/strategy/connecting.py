"""What a strategy's settings say of the gateway and of the reconciler it goes by."""

from __future__ import annotations

from mt5crs.client.connection import Peer
from mt5crs.client.gateway import Patience
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.statefeed import StateFeed


def connection_of(settings: StrategySettings) -> tuple[Peer, Patience]:
    """The gateway, and how patiently it is asked."""
    peer = Peer(
        host=settings.gateway_host,
        port=settings.gateway_port,
        pub_port=settings.gateway_pub_port,
        server_key=settings.gateway_public_key,
        client_name=settings.client_name,
        secret_key=settings.client_secret_key,
    )
    return peer, Patience(settings.sync_timeout_s, settings.sync_retry_count, settings.sync_retry_interval_s)


def state_feed_of(settings: StrategySettings) -> StateFeed:
    """The reconciler's state, not connected yet."""
    return StateFeed(
        settings.reconciler_socket,
        magic=settings.magic_number,
        login=settings.expected_account_login,
        silence_s=settings.reconciler_silence_s,
    )
