"""Settings that concern every part of the fleet (variables `fleet_…`); no service reads them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated, ClassVar, Literal

import msgspec

from mt5crs.settings.gateway import Limits, ListedClient
from mt5crs.settings.schema import Settings, setting

MAKE_KEYS = "python -m deploy.keys --inventory inventory/<environment>.yml"


class ReviewOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who lets a bundle in without a verdict, why, and until when (UTC)."""

    by: Annotated[str, msgspec.Meta(min_length=1)]
    reason: Annotated[str, msgspec.Meta(min_length=1)]
    until: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")]


class FleetSettings(Settings, frozen=True, kw_only=True):
    """What several parts share."""

    part: ClassVar[str] = "fleet"

    environment: Annotated[
        str,
        setting(
            "Name of the environment, in the inventory file itself: it decides which vault is opened.",
            min_length=1,
            in_env=False,
        ),
    ]
    networks: Annotated[
        list[str],
        setting(
            "Networks the hosts are in; an address that names a network or its broadcast is refused.",
            kind="network",
            min_length=1,
            in_env=False,
        ),
    ]
    address: Annotated[
        str, setting("Address under which the other hosts reach this one.", kind="address", in_env=False)
    ]
    instance: Annotated[
        str,
        setting(
            "Of a further Inf on a machine that has one: the name of its instance there, which follows its "
            "services and units (mt5crs-strategy@NAME). The host has the address of the machine.",
            pattern=r"^([a-z][a-z0-9-]{0,19})?\Z",
            in_env=False,
        ),
    ] = ""
    suffix: Annotated[
        str, setting("What follows the names of this host's services and units.", in_env=False)
    ] = ""
    port_offset: Annotated[
        int,
        setting(
            "Added to the ports of this host's reconciler and strategy: those of one machine differ by it.",
            ge=0,
            le=50000,
            in_env=False,
        ),
    ] = 0
    scraped_ports: Annotated[
        list[int],
        setting("Ports of every reconciler and strategy of this machine, for the Hub.", in_env=False),
    ] = msgspec.field(default_factory=list)
    ssh_key: Annotated[str, setting("Private key file the controller logs in with.", in_env=False)]
    ssh_known_hosts: Annotated[
        str, setting("File with the hosts' own SSH keys; a host not in it is refused.", in_env=False)
    ]
    bundle: Annotated[
        str, setting("Bundle with the code that is to run.", in_env=False, create="make bundle")
    ]
    review_required: Annotated[
        bool,
        setting(
            "Whether hosts stage a bundle only with a verdict PASSED of its review, or with an override.",
            in_env=False,
        ),
    ] = False
    review_external: Annotated[
        bool,
        setting("Whether the verdict must vouch for a live external review.", in_env=False),
    ] = True
    review_threshold: Annotated[
        int, setting("Lowest score that a verdict may have been reached with.", ge=0, le=100, in_env=False)
    ] = 90
    review_override: Annotated[
        ReviewOverride | None,
        setting(
            "Lets a bundle without a verdict in: by whom, why, until when (UTC, 2026-01-31T18:00:00Z). It is "
            "recorded.",
            in_env=False,
        ),
    ] = None
    verdict: Annotated[
        str,
        setting(
            "The verdict of the bundle's review, in base64: the file beside the bundle.",
            in_env=False,
            create="mt5crs review run --bundle FILE",
        ),
    ] = ""
    confirm_timeout_s: Annotated[
        int,
        setting(
            "Seconds after which a host returns to the previous generation by itself, unless the new one was "
            "confirmed over a new connection.",
            ge=30,
            le=3600,
            in_env=False,
        ),
    ] = 180
    strategy: Annotated[
        Literal["rolling", "canary", "blue_green", "shadow", "all_at_once"],
        setting(
            "How a roll-out goes through the fleet: rolling (in batches), canary (wider and wider, with a "
            "pause after each stage), blue_green (rolling; the new generation first stands by beside the old "
            "one and must hold the same state), shadow (blue_green; a new strategy then runs in the shadow "
            "of the old one, its orders going nowhere, until it is promoted or taken back), all_at_once.",
            in_env=False,
        ),
    ] = "rolling"
    shadow_window_s: Annotated[
        int,
        setting(
            "Strategy shadow: seconds that a new strategy runs in the shadow of the old one, on each host; "
            "the run lasts as long, and holds the fleet's lock.",
            ge=5,
            le=86400,
            in_env=False,
        ),
    ] = 600
    shadow_agreement_percent: Annotated[
        float,
        setting(
            "Strategy shadow: share of the decisions that must agree for the rule to promote the new "
            "strategy, in percent.",
            ge=0,
            le=100,
            in_env=False,
        ),
    ] = 95.0
    shadow_least_decisions: Annotated[
        int,
        setting(
            "Strategy shadow: fewer decisions than this say nothing, and the rule promotes nobody.",
            ge=1,
            le=1_000_000,
            in_env=False,
        ),
    ] = 1
    shadow_promotion: Annotated[
        Literal["rule", "command"],
        setting(
            "Strategy shadow: who promotes the new strategy. rule: the figures, when the window is over; "
            "command: only `mt5crs --inventory … shadow promote` within the window. By either, it is taken "
            "back otherwise.",
            in_env=False,
        ),
    ] = "rule"
    max_unavailable_percent: Annotated[
        int,
        setting(
            "Most Inf hosts (and gateways) that are restarted together, in percent of them; at least one is, "
            "and never all of several. Strategy all_at_once does not ask.",
            ge=1,
            le=100,
            in_env=False,
        ),
    ] = 25
    canary_steps: Annotated[
        list[Annotated[int, msgspec.Meta(ge=1, le=100)]],
        setting(
            "Stages of a canary roll-out, in percent of the hosts that change: rising, the last one 100.",
            min_length=1,
            in_env=False,
            live=True,
        ),
    ] = msgspec.field(default_factory=lambda: [5, 20, 50, 100])
    step_pause_s: Annotated[
        int,
        setting(
            "Seconds that a canary roll-out watches each stage before the next one.",
            ge=0,
            le=86400,
            in_env=False,
        ),
    ] = 60
    alert_check_s: Annotated[
        int,
        setting(
            "Seconds that a roll-out watches Prometheus for new alerts before it is confirmed; 10 are two "
            "looks at the alert rules. After each step it looks once.",
            ge=0,
            le=3600,
            in_env=False,
        ),
    ] = 10
    alerts_firing: Annotated[
        Literal["fail", "report"],
        setting(
            "What a roll-out does when a new alert fires: fail (and put everything back), or only report it, "
            "for a change that is known to make one fire.",
            in_env=False,
        ),
    ] = "fail"
    alerts_unknown: Annotated[
        Literal["continue", "fail"],
        setting(
            "What a roll-out does when Prometheus cannot be asked for longer than fleet_alerts_unknown_s: "
            "continue (and say so), or fail.",
            in_env=False,
        ),
    ] = "continue"
    alerts_unknown_s: Annotated[
        int,
        setting(
            "Seconds that a whole roll-out waits for a Prometheus that does not answer.",
            ge=0,
            le=3600,
            in_env=False,
        ),
    ] = 20
    store_port: Annotated[
        int,
        setting(
            "TCP port on the Hub from which hosts fetch bundles while a deployment brings them; 0: every "
            "host gets them from the controller.",
            ge=0,
            le=65535,
            in_env=False,
        ),
    ] = 8084
    store_host_mb_s: Annotated[
        float,
        setting(
            "Most MB a second that one host fetches from the Hub, so that orders have the line.",
            ge=0.1,
            le=100_000,
            in_env=False,
        ),
    ] = 20.0
    store_total_mb_s: Annotated[
        float,
        setting(
            "Most MB a second that all hosts together fetch from the Hub.", ge=0.1, le=100_000, in_env=False
        ),
    ] = 60.0
    backup_before_deploy: Annotated[
        Literal["none", "warn", "stop"],
        setting(
            "Whether a deployment that changes something makes a backup first: none; warn: one that cannot "
            "be made is told, and the deployment goes on; stop: it does not begin. It says how long it took.",
            in_env=False,
        ),
    ] = "warn"
    backup_keep_days: Annotated[
        int,
        setting(
            "Days that backups are kept on the Hub; the newest one stays in any case.",
            ge=1,
            le=3650,
            in_env=False,
        ),
    ] = 7
    secret_max_age_days: Annotated[
        dict[
            Literal[
                "client",
                "gateway",
                "broker",
                "webhook",
                "watchdog",
                "hub-watch",
                "hub-watch-secret",
                "signed-webhook",
                "webhook-secret",
                "windows-account",
                "vault",
            ],
            Annotated[int, msgspec.Meta(ge=1)],
        ],
        setting(
            "Days after which secrets of a kind are to be replaced (kinds of `secrets rotate`; 365 where "
            "none is named). `secrets check` judges by what the audit log knows.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=dict)
    secret_expiry: Annotated[
        dict[str, date],
        setting(
            "Last day of secrets that end at a known date (2027-01-31), by their name in `secrets view`: "
            "what a broker or provider has set.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=dict)
    secret_warn_days: Annotated[
        int,
        setting(
            "Days before a secret's date or greatest age that one is warned.", ge=0, le=365, in_env=False
        ),
    ] = 30
    gateway: Annotated[
        str, setting("Inventory name of the gateway that this host's services use.", in_env=False)
    ]
    members: Annotated[
        dict[str, dict[str, str]], setting("Address of every host, by group and name.", in_env=False)
    ]
    gateway_public_keys: Annotated[
        dict[str, str],
        setting("CURVE public key of every gateway, by host.", in_env=False, create=MAKE_KEYS),
    ]
    gateway_former_public_keys: Annotated[
        dict[str, str],
        setting(
            "The keys that a gateway had before it was rotated, by host, newest first: commands of operators "
            "reach it with them until the new one is deployed.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=dict)
    client_public_keys: Annotated[
        dict[str, str],
        setting("CURVE public key of every client, by client name.", in_env=False, create=MAKE_KEYS),
    ]
    clients: Annotated[
        list[ListedClient], setting("The gateway clients that run on this host.", in_env=False)
    ] = msgspec.field(default_factory=list)
    operators: Annotated[
        list[ListedClient],
        setting(
            "Clients on the controller: people and tools that operate the gateway. Their keys are accepted "
            "from the controllers (`baseline_ssh_sources`) and the Hub, unless `addresses` of one names "
            "others.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    magic_number: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None,
        setting("Magic number that this Inf host trades; one host each.", in_env=False),
    ] = None
    account_login: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None,
        setting("Login of the account behind the gateway.", in_env=False),
    ] = None
    limits: Annotated[
        Limits | None,
        setting(
            "What this host's magic number may do; without limits it may not trade.", in_env=False, live=True
        ),
    ] = None

    phases: Annotated[
        bool,
        setting(
            "Whether magic numbers are under production phases (docs/phases.md). Wanted in production, where "
            "it follows fleet_phase_signers.",
            in_env=False,
        ),
    ] = False
    phase_signers: Annotated[
        dict[str, str],
        setting("Who may promote to a phase: OpenSSH public keys by name.", in_env=False),
    ] = msgspec.field(default_factory=dict)

    def problems(self) -> Iterable[str]:
        """Canary stages that do not rise to 100."""
        steps = self.canary_steps
        if steps != sorted(set(steps)) or steps[-1] != 100:
            yield f"fleet_canary_steps is {steps}, expected rising percentages that end with 100"
