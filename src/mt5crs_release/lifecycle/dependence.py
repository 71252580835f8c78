"""Which services need which others, on their own host or another one."""

from __future__ import annotations

ORDER = ("baseline", "gateway", "reconciler", "strategy")
"""Restarted in this order, since each needs those before it; services that are not named come after them."""

ALONE = ("baseline", "gateway")
"""Those that others need and that need no other."""

DEPENDENT = tuple(name for name in ORDER if name not in ALONE)
"""Not healthy before those they need are back, whatever they are on themselves."""

AGREED = {"gateway": ("GATEWAY_BIND", "GATEWAY_PORT", "GATEWAY_PUB_PORT", "GATEWAY_SECRET_KEY")}
"""Service → settings of its ``.env`` that those who need it have in theirs as well, also on other hosts.

It is healthy with any value, so its own health does not tell that the others are cut off.
"""
