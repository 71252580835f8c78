"""The pointer ``before``: what ran before a generation that is not confirmed, for units that let both count.

A firewall is such a unit: peers of either generation come in until the new one is confirmed, so that neither
a step forward nor a revert cuts anyone off.
"""

from __future__ import annotations

from mt5crs_release import access, store
from mt5crs_release.errors import FailedError
from mt5crs_release.generation import Content
from mt5crs_release.session import Session


def remember(session: Session, entering: Content, leaving: str | None) -> None:
    """Point to generation ``leaving`` if a unit of ``entering`` wants to know it.

    :raises OSError: the disk is full or broken
    """
    if entering.reload_on_confirm and leaving is not None:
        store.switch_link(session.paths.before, f"generations/{leaving}")


def forget(session: Session) -> None:
    """Remove the pointer, if there is one.

    :raises OSError: the disk is broken
    """
    store.remove_link(session.paths.before)


def take_effect(session: Session, content: Content) -> None:
    """Let ``content`` count alone from now on.

    Done before the confirmation is recorded: a run that dies in between has confirmed nothing, and the revert
    that follows puts the other generation in force as a whole.

    :raises FailedError: a unit refused
    :raises OSError: the disk is broken
    """
    access.end(session, session.state.transaction, confirmed=True)
    if not content.reload_on_confirm:
        return
    session.enter("reloading units")
    forget(session)
    timeout_s = content.health.progress_deadline_s
    for unit in content.reload_on_confirm:
        complaint = session.systemd.reload_unit(unit, timeout_s)
        if complaint:
            raise FailedError(complaint, remedy=f"see `systemctl status {unit}`, mend the cause and repeat")
