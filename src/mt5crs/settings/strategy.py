"""Settings of the strategy runner (variables `strategy_…`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import msgspec

from mt5crs.settings.client import ClientSettings
from mt5crs.settings.schema import LiveSettingsFile, LogLevel, Settings, setting


class StrategySettings(ClientSettings, frozen=True, kw_only=True):
    """Which strategy runs, on what, and how it reaches the gateway."""

    part: ClassVar[str] = "strategy"

    magic_number: Annotated[int, setting("Magic number of all orders of this strategy.", ge=1, le=2**63 - 1)]
    expected_account_login: Annotated[
        int, setting("Login of the only account this strategy may trade.", ge=1, le=2**63 - 1)
    ]
    strategy: Annotated[
        str,
        setting(
            "The strategy to run: a name in the entry-point group mt5crs.strategies, or module:Class.",
            pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_]*)?\Z",
        ),
    ] = "example"
    strategy_options: Annotated[
        dict[str, Any], setting("Options handed to the strategy, as a JSON object.")
    ] = msgspec.field(default_factory=dict)
    symbol: Annotated[
        str, setting("Symbol that the strategy trades.", pattern=r"^[A-Za-z0-9._#+-]{1,32}\Z")
    ] = "EURUSD"
    volume: Annotated[float, setting("Volume of one order, in lots.", gt=0, le=1000)] = 0.01
    tick_interval_s: Annotated[
        float, setting("Seconds between two calls of the strategy's on_timer.", ge=0.02, le=3600)
    ] = 1.0
    memory_percent: Annotated[
        int,
        setting(
            "Most of the host's memory that the strategy may take, in percent; at nine tenths of it the "
            "strategy is stopped.",
            ge=5,
            le=95,
        ),
    ] = 75
    threads: Annotated[
        int,
        setting(
            "Threads that the strategy may have, its libraries' and some of the runner included; one that "
            "asks for more is stopped.",
            ge=16,
            le=4096,
        ),
    ] = 512
    callback_limit_s: Annotated[
        float,
        setting(
            "Seconds that one callback of the strategy may take; one that takes longer stops the strategy.",
            ge=0.5,
            le=600,
        ),
    ] = 30.0
    allowed_hosts: Annotated[
        list[str],
        setting(
            "Addresses and networks that the strategy may reach besides its gateway; a name that it looks up "
            "needs its name server here."
        ),
    ] = msgspec.field(default_factory=list)
    order_timeout_s: Annotated[
        float, setting("How long one order call may take in all, in seconds.", ge=0.2, le=60)
    ] = 5.0
    lease_ttl_s: Annotated[
        float, setting("How long the right to trade lasts without renewal, in seconds.", ge=1, le=60)
    ] = 10.0
    lease_margin_s: Annotated[
        float,
        setting("Seconds before the lease could expire at which the strategy stops itself.", ge=0.1, le=30),
    ] = 1.0
    reconciler_socket: Annotated[
        str,
        setting("Local socket on which the reconciler publishes its state.", pattern=r"^/", variable=False),
    ] = "/run/mt5crs-reconciler/state.sock"
    reconciler_silence_s: Annotated[
        float, setting("Seconds without word from the reconciler after which trading stops.", ge=0.5, le=30)
    ] = 3.0
    metrics_address: Annotated[
        str, setting("Address on which metrics and health are served.", kind="address")
    ] = "127.0.0.1"
    metrics_port: Annotated[int, setting("TCP port of metrics and health.", ge=0, le=65535)] = 9103
    state_dir: Annotated[str, setting("Directory of the durable state.", pattern=r"^/", variable=False)] = (
        "/var/lib/mt5crs/strategy"
    )
    shadow_dir: Annotated[
        str,
        setting(
            "Directory of a new version that runs in the shadow of this one; while it is there, what the "
            "strategy sees and decides is put on tape.",
            pattern=r"^/",
            variable=False,
        ),
    ] = "/run/mt5crs-strategy-shadow"
    data_dir: Annotated[
        str,
        setting(
            "Directory of the data files in the strategy's bundle; empty: it has none.",
            pattern=r"^(/.*)?\Z",
            variable=False,
        ),
    ] = ""
    log_level: Annotated[LogLevel, setting("Least severe level that is logged.", live=True)] = "INFO"
    live_settings_file: LiveSettingsFile = ""

    def problems(self) -> Iterable[str]:
        """What cannot work together."""
        yield from super().problems()
        if self.lease_margin_s * 2 > self.lease_ttl_s:
            yield "LEASE_MARGIN_S must be at most half of LEASE_TTL_S, or there is no time left to trade"
        if self.callback_limit_s <= self.order_timeout_s:
            yield "CALLBACK_LIMIT_S must be more than ORDER_TIMEOUT_S, or one slow order stops the strategy"
        if self.allowed_hosts:
            from mt5crs.settings.baseline import network_problem  # what every start would pay for

            for host in self.allowed_hosts:
                problem = network_problem(host)
                if problem is not None:
                    yield f"ALLOWED_HOSTS has {host!r}: {problem}"


class StrategyDeployment(Settings, frozen=True, kw_only=True):
    """What only the deployment of a strategy uses."""

    part: ClassVar[str] = "strategy"

    bundle: Annotated[
        str,
        setting(
            "The strategy's own bundle, built from strategies/<name>.yml: its name for the newest one, or "
            "<name>-<version>-<content> for that one; empty: the strategy comes with the core.",
            pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.+!-]*)?\Z",
            in_env=False,
        ),
    ] = ""
    built: Annotated[
        dict[str, Any],
        setting(
            "What building that bundle wrote down of it; group_vars/inf reads it from dist/.", in_env=False
        ),
    ] = msgspec.field(default_factory=dict)
    verdict: Annotated[
        str,
        setting(
            "The verdict of that bundle's review, in base64: the file beside the bundle.",
            in_env=False,
            create="mt5crs review run --bundle FILE",
        ),
    ] = ""
    cpu_percent: Annotated[
        int,
        setting(
            "CPU time that the strategy may take, in percent of one CPU (200: two). It is held back to that, "
            "and stopped when that was so for most of a minute.",
            ge=5,
            le=10_000,
            in_env=False,
        ),
    ] = 100
    open_files: Annotated[
        int,
        setting(
            "Files and connections that the strategy may have open at once; one that has all open is "
            "stopped.",
            ge=64,
            le=65_536,
            in_env=False,
        ),
    ] = 4096
    standby_metrics_port: Annotated[
        int,
        setting(
            "TCP port (on 127.0.0.1) of metrics and health while it stands by before a blue/green switch, or "
            "runs in the shadow of the old version.",
            ge=1,
            le=65535,
            in_env=False,
        ),
    ] = 9113
