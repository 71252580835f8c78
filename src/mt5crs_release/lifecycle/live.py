"""Changes that running services take over as they are: which these are, and telling the services.

A generation names files that its units read again when they are told to (``live`` of the specification). One
that differs from what runs in nothing else needs no restart; whether the services have it in force is what
the health command says.
"""

from __future__ import annotations

from mt5crs_release.bundles import runtime_marker
from mt5crs_release.errors import FailedError
from mt5crs_release.generations import generation
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session


def tell(session: Session, leaving: Content | None, entering: Content, *, must: bool) -> bool:
    """Have the services take ``entering`` over, once the pointer has moved; whether that is all they need.

    :param must: a service that cannot be told is an error, not a reason to restart it
    :raises FailedError: systemd does not answer, or a service cannot be told and must be
    """
    units = units_to_tell(session, leaving, entering)
    if not units:
        session.live = False
        return False
    session.enter("telling the services")
    # Restarts of earlier days are no sign of how the change is taken.
    session.systemd.forget_failures(entering.start)
    complaint = session.systemd.tell(units)
    if complaint and must:
        raise FailedError(complaint, remedy=f"see `systemctl status {units[0]}`, then deploy again")
    session.live = complaint is None
    return session.live


def units_to_tell(session: Session, leaving: Content | None, entering: Content) -> tuple[str, ...]:
    """Return the units that have to read files again; none: the change is a restart.

    :raises FailedError: systemd does not answer
    """
    if leaving is None:
        return ()
    before, after = (session.state.generations.get(one.name) for one in (leaving, entering))
    if before is None or after is None or after.fixed is None or before.fixed != after.fixed:
        return ()
    changed = [path for path in entering.live if leaving.live_hashes.get(path) != entering.live_hashes[path]]
    if not changed or generation.problems(session.paths.generation(leaving.name)):
        return ()  # what runs may have been started from what was changed by hand
    if after.runtime is not None:
        built = runtime_marker.built_at(session.host, after.runtime)
        if min(before.staged_at, after.staged_at) < built:
            return ()  # or from a runtime that was built anew since
    looks = session.systemd.look(entering.start)
    if any(unit.active != "active" for unit in looks.values()):
        return ()
    return tuple(dict.fromkeys(unit for path in changed for unit in entering.live[path]))
