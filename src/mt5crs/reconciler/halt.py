"""The one way in which the reconciler gives up."""

from __future__ import annotations


class SystemHaltException(Exception):  # noqa: N818  (the name operators and requirements know)
    """The state is unknown and cannot be made known: nothing may trade. The text names cause and remedy."""
