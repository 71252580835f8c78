"""Whether the strategy on a host trades, as it says itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.remote import ssh

_PROGRAM = "/usr/local/bin/mt5crs"
_HOST_S = 20


def strategy_of(variables: Mapping[str, Any], magic: int) -> str:
    """Why the strategy on the host with these variables does not trade this magic number; empty: it does."""
    address, port = variables["strategy_metrics_address"], variables["strategy_metrics_port"]
    words = [_PROGRAM, "health", "strategy", "--address", str(address), "--port", str(port), "--json"]
    reply = ssh.run(variables, words, timeout_s=_HOST_S)
    told = reply.document
    if told is None:
        return f"its strategy does not say how it is: {reply.why}"
    if told.get("healthy") is True and told.get("magic") == magic:
        return ""
    if told.get("healthy") is True:
        return f"its strategy trades {told.get('magic')}, not {magic}"
    return f"its strategy is {told.get('state') or 'unknown'}: {told.get('reason') or 'it gives no reason'}"
