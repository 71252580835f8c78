"""Settings of the gateway (variables `gateway_…`), and the form of its clients file."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import msgspec

from mt5crs.phases.profile import ProfileError, named
from mt5crs.phases.record import signer_problem
from mt5crs.protocol.addresses import canonical
from mt5crs.settings.networks import unreadable
from mt5crs.settings.schema import LiveSettingsFile, LogLevel, Settings, setting

Permission = Literal["observe", "lease", "trade", "halt", "administer"]
Phase = Literal["test", "shadow", "live"]

_ACCOUNTS: dict[Phase, tuple[str, ...]] = {
    "test": ("DEMO", "CONTEST", "REAL"),
    "shadow": ("DEMO", "CONTEST"),
    "live": ("REAL",),
}


def account_problem(phase: Phase, trade_mode: str) -> str | None:
    """Why an account of this kind (DEMO, CONTEST, REAL) must not be used in this phase; None if it may."""
    if trade_mode in _ACCOUNTS[phase]:
        return None
    return f"the account is a {trade_mode} account, which phase {phase} must not use"


_NOT_IN_A_UNIT = frozenset("'\"$%")


class GatewaySettings(Settings, frozen=True, kw_only=True):
    """How the gateway listens, which broker it drives, and where its journal lives."""

    part: ClassVar[str] = "gateway"

    bind: Annotated[
        str, setting("Address of this host on which both sockets listen.", kind="address", env="GATEWAY_BIND")
    ]
    port: Annotated[int, setting("TCP port of the request socket.", ge=1, le=65535, env="GATEWAY_PORT")] = (
        5555
    )
    pub_port: Annotated[
        int, setting("TCP port of the event socket.", ge=1, le=65535, env="GATEWAY_PUB_PORT")
    ] = 5556
    secret_key: Annotated[
        str,
        setting("CURVE secret key of the gateway.", kind="curve_secret_key", env="GATEWAY_SECRET_KEY"),
    ]
    backend: Annotated[
        Literal["sim", "mt5"],
        setting(
            "Broker behind the gateway: sim (simulated, persistent) or mt5 (MetaTrader 5 terminal: Windows, "
            "or Linux with Wine).",
            env="GATEWAY_BACKEND",
        ),
    ] = "sim"
    platform: Annotated[
        Literal["native", "wine"],
        setting(
            "What runs the terminal process: native (the gateway's own Python) or wine (a Python for Windows "
            "under Wine, on a Linux host).",
            env="GATEWAY_PLATFORM",
        ),
    ] = "native"
    wine_program: Annotated[
        str, setting("Path of Wine's loader on the host (wine).", pattern=r"^/[^']*\Z")
    ] = "/usr/lib/wine/wine64"
    wine_python: Annotated[
        str,
        setting("Path of python.exe for Windows on the host (wine); Linux path.", pattern=r"^/[^']*\Z"),
    ] = "/opt/mt5crs-wine/python/python.exe"
    wine_display: Annotated[
        str,
        setting(
            "Display that is started on the host for the terminal (wine), such as `:1`, and the terminal of "
            "mt5_path on it, in a unit of its own; empty: neither. The simulated broker needs none.",
            pattern=r"^(:\d{1,4}(\.\d)?)?\Z",
        ),
    ] = ""
    account_phase: Annotated[
        Phase,
        setting(
            "What the account may be: shadow refuses a real one, live refuses a demo one, test takes any.",
            env="GATEWAY_PHASE",
        ),
    ] = "test"
    clients_file: Annotated[
        str, setting("File of clients, permissions and limits; read again when it changes.", variable=False)
    ] = "/opt/mt5crs/gateway/access.json"
    state_dir: Annotated[
        str, setting("Directory of the journal and of the simulated broker's books.", variable=False)
    ] = "/var/lib/mt5crs/gateway"
    metrics_address: Annotated[
        str, setting("Address on which metrics and health are served.", kind="address")
    ] = "127.0.0.1"
    metrics_port: Annotated[int, setting("TCP port of metrics and health.", ge=0, le=65535)] = 9101
    log_level: Annotated[LogLevel, setting("Least severe level that is logged.", live=True)] = "INFO"
    live_settings_file: LiveSettingsFile = ""
    heartbeat_interval_s: Annotated[
        float, setting("Seconds between two heartbeats on the event socket.", ge=0.05, le=5)
    ] = 1.0
    poll_interval_s: Annotated[
        float, setting("Seconds between two looks at the broker for changes and quotes.", ge=0.02, le=5)
    ] = 0.25
    terminal_timeout_s: Annotated[
        float,
        setting(
            "Seconds after which a call to the terminal counts as hung and requests are answered BUSY.",
            ge=0.1,
            le=60,
        ),
    ] = 2.0
    terminal_read_deadline_s: Annotated[
        float,
        setting(
            "Seconds after which a question to the terminal is given up: its process is killed and replaced.",
            ge=0.2,
            le=600,
        ),
    ] = 10.0
    terminal_order_deadline_s: Annotated[
        float,
        setting(
            "Seconds after which an order in the terminal's hands is given up: its process is killed and "
            "replaced, and the order is unresolved until the broker's books show what became of it.",
            ge=0.2,
            le=600,
        ),
    ] = 30.0
    books_lag_s: Annotated[
        float,
        setting(
            "Seconds that the terminal's lists may be behind a fill; what they do not show by then is "
            "unresolved.",
            ge=0.5,
            le=300,
        ),
    ] = 10.0
    resolve_after_s: Annotated[
        float,
        setting(
            "Seconds after sending from which a person may declare an unresolved order not executed.",
            ge=0,
            le=3600,
        ),
    ] = 30.0
    max_clock_skew_s: Annotated[
        float,
        setting(
            "Seconds by which the broker's time, as the gateway reckons it, may differ from new quotes; "
            "beyond it no order is sent.",
            ge=1,
            le=3600,
        ),
    ] = 60.0
    quote_life_s: Annotated[
        float,
        setting(
            "Seconds for which a quote measures `max_order_value` and `max_position_value`; without a newer "
            "one such a limit refuses orders, as when the market is closed.",
            ge=1,
            le=604_800,
        ),
    ] = 900.0
    queue_limit: Annotated[
        int, setting("Most requests that may wait for the terminal; more are answered BUSY.", ge=1, le=10_000)
    ] = 256
    client_queue_limit: Annotated[
        int,
        setting("Most requests of one client that may wait for the terminal at once.", ge=1, le=10_000),
    ] = 32
    client_requests_per_s: Annotated[
        int,
        setting(
            "Most requests a second of one client, and as many at once; more are answered BUSY, and one that "
            "goes on is disconnected. HALT and what an operator closes or cancels are not counted.",
            ge=10,
            le=1_000_000,
        ),
    ] = 500
    client_subscriptions: Annotated[
        int, setting("Most subscriptions of one connection to the event socket.", ge=8, le=100_000)
    ] = 300
    connections_per_address: Annotated[
        int,
        setting(
            "Most connections from one address, on all sockets together; the firewall refuses more, and the "
            "gateway ends the oldest that has said nothing.",
            ge=8,
            le=10_000,
        ),
    ] = 64
    tick_symbols: Annotated[list[str], setting("Symbols whose quotes are published.", max_length=200)] = (
        msgspec.field(default_factory=lambda: ["EURUSD"])
    )
    legacy_port: Annotated[
        int,
        setting(
            "TCP port for existing plain JSON clients (REQ); 0 keeps it shut. Who may enter is "
            "in `legacy` of the clients file.",
            ge=0,
            le=65535,
        ),
    ] = 0
    legacy_pub_port: Annotated[
        int, setting("TCP port of plain quotes for existing SUB clients; 0 keeps it shut.", ge=0, le=65535)
    ] = 0
    phases: Annotated[
        bool,
        setting(
            "Whether every magic number is under a production phase (docs/phases.md): without a valid record "
            "of one, its orders are only checked."
        ),
    ] = False
    phase_signers: Annotated[
        dict[str, str],
        setting("Who may sign records of phases: OpenSSH public keys by name."),
    ] = msgspec.field(default_factory=dict)
    profile_name: Annotated[
        str,
        setting("Highest profile that any magic number may have, whatever its record says; empty: any."),
    ] = ""
    profile_names: Annotated[
        dict[str, str], setting("The same for single magic numbers, by magic number.")
    ] = msgspec.field(default_factory=dict)
    sim_login: Annotated[int, setting("Account number of the simulated broker.", ge=1, le=2**63 - 1)] = (
        90_000_001
    )
    sim_server: Annotated[str, setting("Server name of the simulated broker.", min_length=1)] = "Sim-Demo"
    sim_trade_mode: Annotated[
        Literal["DEMO", "CONTEST", "REAL"], setting("Kind of account the simulated broker says it is.")
    ] = "DEMO"
    sim_margin_mode: Annotated[
        Literal["NETTING", "HEDGING"], setting("Whether positions of a symbol are merged (NETTING) or kept.")
    ] = "HEDGING"
    sim_balance: Annotated[float, setting("Balance a new simulated account starts with.", ge=0, le=1e12)] = (
        10_000.0
    )
    sim_leverage: Annotated[int, setting("Leverage of the simulated account.", ge=1, le=5000)] = 100
    sim_seed: Annotated[
        int, setting("Seed of the simulated prices: same seed, same prices.", ge=0, le=2**63 - 1)
    ] = 1
    sim_faults: Annotated[
        bool,
        setting("Whether faults may be injected into the simulated broker (file `faults.json`, tests only)."),
    ] = False
    mt5_path: Annotated[str, setting("Path of terminal64.exe (mt5).")] = ""
    mt5_login: Annotated[int, setting("Account number to log in with (mt5).", ge=0, le=2**63 - 1)] = 0
    mt5_password: Annotated[str, setting("Password of the account (mt5).", secret=True)] = ""
    mt5_server: Annotated[str, setting("Trade server of the account (mt5).")] = ""
    mt5_timeout_s: Annotated[
        float, setting("How long the terminal may take to start and log in (mt5), in seconds.", ge=1, le=600)
    ] = 60.0
    mt5_portable: Annotated[
        bool, setting("Whether the terminal keeps its data beside its program (mt5).")
    ] = True

    def problems(self) -> Iterable[str]:
        """What cannot work together."""
        used = [
            (name, port)
            for name, port in (
                ("GATEWAY_PORT", self.port),
                ("GATEWAY_PUB_PORT", self.pub_port),
                ("METRICS_PORT", self.metrics_port),
                ("LEGACY_PORT", self.legacy_port),
                ("LEGACY_PUB_PORT", self.legacy_pub_port),
            )
            if port
        ]
        seen: dict[int, str] = {}
        for name, port in used:
            if port in seen:
                yield f"{name} and {seen[port]} are both {port}; give each socket its own port"
            seen.setdefault(port, name)
        if self.legacy_pub_port and not self.legacy_port:
            yield "LEGACY_PUB_PORT is set but LEGACY_PORT is 0; set both, or neither"
        wrong = account_problem(self.account_phase, self.sim_trade_mode) if self.backend == "sim" else None
        if wrong:
            yield f"GATEWAY_PHASE: {wrong}; set SIM_TRADE_MODE or GATEWAY_PHASE"
        yield from self._phase_problems()
        if self.backend == "mt5":
            for name, given in (
                ("MT5_PATH", self.mt5_path),
                ("MT5_LOGIN", self.mt5_login),
                ("MT5_PASSWORD", self.mt5_password),
                ("MT5_SERVER", self.mt5_server),
            ):
                if not given:
                    yield f"{name} is missing; GATEWAY_BACKEND=mt5 needs path, login, password and server"
            if self.platform == "wine" and set(self.mt5_path) & _NOT_IN_A_UNIT:
                yield f"MT5_PATH holds one of {' '.join(sorted(_NOT_IN_A_UNIT))}, which a unit cannot pass on"
            if self.platform == "wine" and not self.wine_display:
                yield "WINE_DISPLAY is missing; under Wine a terminal needs one (gateway_wine_display: ':1')"

    def _phase_problems(self) -> Iterable[str]:
        if self.phases and not self.phase_signers:
            yield "PHASES is true but PHASE_SIGNERS is empty: no phase could be reached; name who may sign"
        yield from filter(None, (signer_problem(name, key) for name, key in self.phase_signers.items()))
        for field, profile in (("PROFILE_NAME", self.profile_name), *self.profile_names.items()):
            try:
                if profile:
                    named(profile)
            except ProfileError as error:
                yield f"{field}: {error}"

    def highest_profile(self, magic: int) -> str:
        """Name of the highest profile that a magic number may have; empty: any."""
        return self.profile_names.get(str(magic), self.profile_name)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one magic number may do. A magic number without limits may not trade at all.

    Values are in account currency, volumes in lots. null: not limited.
    """

    dry_run: bool
    symbols: list[str]
    max_order_volume: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    max_position_volume: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    max_order_value: Annotated[float, msgspec.Meta(gt=0, le=1e15)] | None = None
    max_position_value: Annotated[float, msgspec.Meta(gt=0, le=1e15)] | None = None
    max_daily_loss: Annotated[float, msgspec.Meta(gt=0, le=1e15)] | None = None
    max_slippage_points: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    max_consecutive_failures: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


class Client(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One CURVE identity. `magics` empty: any magic to look at, none to trade or to halt.

    `addresses`: where its key is accepted from, addresses or networks; empty: any that the firewall lists.
    """

    key: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    permissions: list[Permission]
    magics: list[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]]
    addresses: list[str] = msgspec.field(default_factory=list)

    def address_problems(self, name: str) -> Iterator[str]:
        """What in `addresses` is no address and no network; `name`: the client's."""
        for each in self.addresses:
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                yield f"{name}: in `addresses`, {error}; write an address, or a network as 10.1.2.0/24"


class AdmittedClient(Client, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client in the list in force. `former_key` counts as well as `key` while a deployment replaces it."""

    former_key: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class ListedClient(Client, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client together with its name, as the inventory lists it."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]


class LegacyClient(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One source address that may use the legacy adapter; it trades only with permission `trade`.

    `magics` must name exactly one magic number for a trading client, because some of its messages carry none.
    """

    address: str
    permissions: list[Literal["observe", "trade"]]
    magics: list[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]]


def legacy_problems(legacy: Mapping[str, LegacyClient], others: Collection[str]) -> Iterator[str]:
    """What is wrong with the clients of the legacy adapter; `others`: names of the clients with keys."""
    owners: dict[str, str] = {}
    for name, client in legacy.items():
        address = canonical(client.address)
        wrong = _address_problem(client.address)
        if wrong:
            yield f"{name} in legacy: {wrong}"
        if address in owners:
            yield f"{name} and {owners[address]} in legacy have the same address {client.address}"
        owners.setdefault(address, name)
        if name in others:
            yield f"{name} is both in clients and in legacy; use two names"
        if "trade" in client.permissions and len(client.magics) != 1:
            yield f"{name} may trade on the legacy adapter, so `magics` must hold exactly one magic number"


def _address_problem(text: str) -> str | None:
    """Why a text cannot be the source address of one client (RFC 919, 922); None if it can."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is not an address; a client is known by one, not by a name or a network"
    if canonical(text) != str(address):
        return f"{text} is an IPv4 address in IPv6 form; write it as {canonical(text)}"
    if address.is_unspecified or address.is_multicast or text == "255.255.255.255":
        return f"{text} is no address of a single host; use the one that the client connects from"
    return None


class AdmittedLegacyClient(LegacyClient, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plain client in the list in force. `former_address` counts as well while a deployment replaces it."""

    former_address: str = ""


class ClientsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`clients.json` and `access.json`: who may connect, what each may do, and the limits per magic number.

    `serial`: version of the list in force, which only rises (docs/rollout.md); 0 in what a release brings.
    """

    serial: int = 0
    clients: dict[str, AdmittedClient]
    limits: dict[str, Limits]
    legacy: dict[str, AdmittedLegacyClient] = msgspec.field(default_factory=dict)


class GatewayDeployment(Settings, frozen=True, kw_only=True):
    """What the deployment writes into the gateway's clients file."""

    part: ClassVar[str] = "gateway"

    run_mode: Annotated[
        Literal["service", "logon_task"],
        setting(
            "Windows: run as a service, or by a task at automatic logon for terminals that need a desktop.",
            in_env=False,
        ),
    ] = "service"
    windows_python_archive: Annotated[
        str,
        setting(
            "Windows: file on the controller (relative to the project) with a complete Python as a zip "
            "archive, such as python.org's NuGet package.",
            in_env=False,
        ),
    ] = ""
    windows_python_sha256: Annotated[
        str, setting("Windows: SHA-256 of that archive.", pattern=r"^([0-9a-f]{64})?\Z", in_env=False)
    ] = ""
    wine_unanswered_s: Annotated[
        float,
        setting(
            "Seconds that a terminal under Wine may run without answering before it is ended and started "
            "again; each time that does not help, twice as long; 0: never.",
            ge=0,
            le=86400,
            in_env=False,
        ),
    ] = 300.0
    wine_memory_mb: Annotated[
        int, setting("Memory of a terminal under Wine with its display, MB.", ge=512, le=65536, in_env=False)
    ] = 3072
    wine_networks: Annotated[
        list[str],
        setting(
            "Networks that a terminal under Wine may reach: its broker's trade servers and a name server; "
            "none: any.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    clients: Annotated[
        list[ListedClient],
        setting("Everyone who may speak to this gateway, gathered from the fleet's hosts.", in_env=False),
    ]
    limits: Annotated[
        dict[str, Limits],
        setting("Limits by magic number; none means it may not trade.", in_env=False, live=True),
    ] = msgspec.field(default_factory=dict)
    legacy: Annotated[
        dict[str, LegacyClient],
        setting(
            "Source addresses of existing plain clients (docs/existing-clients.md).",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=dict)

    def problems(self) -> Iterable[str]:
        """What cannot work together."""
        yield from unreadable("gateway_wine_networks", self.wine_networks)
        names = [client.name for client in self.clients]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield (
                f"gateway_clients: {name} is listed {names.count(name)} times, and only one would count; "
                "give each client its own name (fleet_clients, fleet_operators)"
            )
        for client in self.clients:
            yield from (f"gateway_clients: {problem}" for problem in client.address_problems(client.name))
        for problem in legacy_problems(self.legacy, {client.name for client in self.clients}):
            yield f"gateway_legacy: {problem}"
        for name, old in self.legacy.items():
            missing = [magic for magic in old.magics if str(magic) not in self.limits]
            if "trade" in old.permissions and missing:
                yield (
                    f"gateway_legacy: {name} may trade magic number {missing[0]}, which has no limits; "
                    "add them to gateway_limits"
                )
