"""Which services need which others, on their own host or another one."""

from __future__ import annotations

ORDER = ("baseline", "gateway", "reconciler", "strategy")
"""Restarted in this order, since each needs those before it; services that are not named come after them."""

ALONE = ("baseline", "gateway")
"""Those that others need and that need no other."""

DEPENDENT = tuple(name for name in ORDER if name not in ALONE)
"""Not healthy before those they need are back, whatever they are on themselves."""
