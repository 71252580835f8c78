"""Which settings say who gets in, and which bound what may be done: named apart wherever they change."""

from __future__ import annotations

from typing import Final

ACCESS: Final = frozenset(
    (
        "baseline_release_signers",
        "baseline_review_signers",
        "baseline_ssh_sources",
        "baseline_ssh_tcp_forwarding",
        "baseline_ssh_users",
        "fleet_client_public_keys",
        "fleet_clients",
        "fleet_gateway_public_keys",
        "fleet_operators",
        "fleet_phase_signers",
        "gateway_clients",
        "gateway_legacy",
        "gateway_legacy_port",
        "gateway_legacy_pub_port",
        "gateway_phase_signers",
        "hub_operators",
        "hub_plain_readers",
        "hub_readers",
        "monitoring_alertmanager_sources",
        "monitoring_prometheus_sources",
        "monitoring_webhook_networks",
        "review_provider_networks",
    )
)
"""Keys, addresses and people that are let in."""

LIMITS: Final = frozenset(
    (
        "fleet_limits",
        "fleet_phases",
        "fleet_review_external",
        "fleet_review_override",
        "fleet_review_required",
        "fleet_review_threshold",
        "gateway_account_phase",
        "gateway_limits",
        "gateway_phases",
        "gateway_profile_name",
        "gateway_profile_names",
        "hub_halt_on",
    )
)
"""What bounds trading, and what may be released at all."""

FOLLOWS: Final = {
    "gateway_clients": ("fleet_clients", "fleet_operators"),
    "gateway_limits": ("fleet_limits",),
    "gateway_phase_signers": ("fleet_phase_signers",),
    "gateway_phases": ("fleet_phases",),
}
"""Settings that are made of others, for which these are named."""
