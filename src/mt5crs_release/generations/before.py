"""What lets the peers of two generations in, at the ports of both, until the new one is confirmed.

So neither a step forward nor a revert cuts anyone off. A firewall's unit is told by the pointer ``before``
what ran before. Any other unit that names its peers (``IPAddressAllow=``) or its ports (``LISTENS_AT``) gets
those of before by a drop-in below ``/run``: a reboot, which reverts what waits, takes it along. So does one
that knows its gateway by a key, in a deployment that goes on to change the gateway's: it is told the one that
its generation of before names.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from mt5crs_release.errors import FailedError
from mt5crs_release.generations import access, env_file
from mt5crs_release.generations.generation import Content
from mt5crs_release.generations.session import Session
from mt5crs_release.storage import store
from mt5crs_release.systems import system

DROP_INS = "60-mt5crs-"
_KEY = re.compile(r"^[0-9a-f]{64}\Z")
_ALLOW = re.compile(r"^IPAddressAllow=(.*)$", re.MULTILINE)
SERVER_KEY = "GATEWAY_PUBLIC_KEY"
"""The setting that names a gateway's key; what it was before goes by ``FORMER_`` and this name."""
_PORTS = re.compile(r'^Environment="LISTENS_AT=(.*)"$', re.MULTILINE)


def remember(session: Session, entering: Content, leaving: str | None) -> None:
    """Let units of ``entering`` know generation ``leaving``, admit its peers and listen at its ports as well.

    In force once systemd reads its units again.

    :raises OSError: the disk is full or broken
    """
    if leaving is None:
        return
    if entering.reload_on_confirm:
        store.switch_link(session.paths.before, f"generations/{leaving}")
    if system.here().links_units:
        for unit, lines in _of_before(session, entering, leaving).items():
            _tell(session, unit, lines)


def introduce(session: Session, candidate: Content, units: Sequence[str]) -> None:
    """Let ``units`` of a candidate that stands by take the gateway's key that what runs takes, too.

    In force once systemd reads its units again; :func:`dismiss` ends it.

    :raises OSError: the disk is full or broken
    """
    lines = _former_key(session, candidate.name, session.state.current)
    for unit in units if lines else ():
        _tell(session, unit, lines)


def dismiss(session: Session, units: Sequence[str]) -> None:
    """Remove what :func:`introduce` has told ``units``.

    :raises OSError: the disk is broken
    """
    for unit in units:
        _remove(session.host.volatile_units / f"{unit}.d" / _drop_in(session))


def forget(session: Session) -> list[str]:
    """Remove the pointer and the drop-ins; return the units that had one: systemd is to read them again.

    :raises OSError: the disk is broken
    """
    store.remove_link(session.paths.before)
    found = list(session.host.volatile_units.glob(f"*.service.d/{_drop_in(session)}"))
    for path in found:
        _remove(path)
    return sorted({path.parent.name.removesuffix(".d") for path in found})


def _tell(session: Session, unit: str, lines: Sequence[str]) -> None:
    path = session.host.volatile_units / f"{unit}.d" / _drop_in(session)
    store.ensure_directory(path.parent)
    store.replace_file(path, "\n".join(["[Service]", *lines, ""]).encode(), 0o644)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others' drop-ins keep the directory
        path.parent.rmdir()


def _drop_in(session: Session) -> str:
    return f"{DROP_INS}{session.service}-before.conf"


def _of_before(session: Session, entering: Content, leaving: str) -> dict[str, list[str]]:
    """Return, by service unit, what it needs of ``leaving``: the peers that it no longer names, its ports."""
    now, then = (_said(session, one, entering.units) for one in (entering.name, leaving))
    lines: dict[str, list[str]] = {}
    for unit, text in then.items():
        admitted = _peers(now.get(unit, ""))
        # One that names none admits everybody.
        left_out = [one for one in _peers(text) if admitted and one not in admitted]
        if left_out:
            lines.setdefault(unit, []).append(f"IPAddressAllow={' '.join(left_out)}")
        ports = _PORTS.findall(text)
        if ports and ports != _PORTS.findall(now.get(unit, "")):
            lines.setdefault(unit, []).append(f'Environment="FORMERLY_AT={ports[-1]}"')
    for unit in entering.start:
        lines.setdefault(unit, []).extend(_former_key(session, entering.name, leaving))
    return {unit: of for unit, of in lines.items() if of}


def _former_key(session: Session, entering: str, leaving: str | None) -> list[str]:
    """Return the line that tells a unit of ``entering`` the key that ``leaving`` names, if it is another."""
    if leaving is None or not session.former_key:
        return []
    former = server_key(session.paths.generation(leaving))
    if former in (None, server_key(session.paths.generation(entering))):
        return []
    return [f'Environment="FORMER_{SERVER_KEY}={former}"']


def server_key(generation: Path) -> str | None:
    """Return the gateway's key that the generation in a directory names; ``None``: it names none.

    :raises PermissionError: whoever asks may not read it
    """
    try:
        named = env_file.settings((generation / ".env").read_text()).get(SERVER_KEY, "").strip("'\"")
    except FileNotFoundError:
        return None
    # What is no key would be anything in a unit.
    return named if _KEY.match(named) else None


def _said(session: Session, generation: str, units: tuple[str, ...]) -> dict[str, str]:
    """Return, by service unit, the text of the unit and its drop-ins in a generation."""
    found: dict[str, str] = {}
    for unit in units:
        name = unit.partition(".d/")[0]
        text = session.paths.generation(generation) / "units" / unit
        if name.endswith(".service") and text.is_file():
            found[name] = found.get(name, "") + text.read_text() + "\n"
    return found


def _peers(text: str) -> list[str]:
    return [peer for line in _ALLOW.findall(text) for peer in line.split()]


def take_effect(session: Session, content: Content) -> None:
    """Let ``content`` count alone from now on.

    Done before the confirmation is recorded: a run that dies in between has confirmed nothing, and the revert
    that follows puts the other generation in force as a whole.

    :raises FailedError: a unit refused
    :raises OSError: the disk is broken
    """
    access.end(session, session.state.transaction, confirmed=True)
    session.enter("reloading units")
    narrowed = forget(session)
    if narrowed:
        session.systemd.reload()
        for unit in narrowed:
            session.systemd.filter_again(unit)
        session.systemd.reload()
    timeout_s = content.health.progress_deadline_s
    for unit in content.reload_on_confirm:
        complaint = session.systemd.reload_unit(unit, timeout_s)
        if complaint:
            raise FailedError(complaint, remedy=f"see `systemctl status {unit}`, mend the cause and repeat")
