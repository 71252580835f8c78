"""The one way in which the reconciler gives up."""

from __future__ import annotations

from collections.abc import Sequence


class SystemHaltException(Exception):  # noqa: N818  (the name operators and requirements know)
    """The state is unknown and cannot be made known: nothing may trade. The text names cause and remedy."""


def advice(unresolved: Sequence[str], differing: Sequence[str], where: str = "") -> str:
    """What lasts, and the command for it. `unresolved`: client order ids; `differing`: what no deal explains;
    `where`: option of `mt5crs accept` for this record. Pure.
    """
    said = []
    if unresolved:
        said.append(
            f"the gateway does not know the fate of {', '.join(unresolved)}. Look for it in the terminal; "
            "if it was not executed, run `mt5crs resolve <client order id> --reason …`, then start the "
            "reconciler"
        )
    if differing:
        said.append(
            f"the record and the broker differ and no deal explains it: {'; '.join(differing)}. Compare with "
            f"the terminal; if the broker is right, run `mt5crs accept{where} --reason …` and restart the "
            "reconciler" + (" once no order is unresolved" if unresolved else "")
        )
    return ". ".join(said)
