"""Who may read a generation on Windows: set before content is written, read back afterwards.

Sources: Microsoft's documentation of ``icacls`` (``/setowner``, ``/grant:r``, ``/inheritance:r``, ``/save``)
and of the SDDL string format. Imported on Windows only.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from mt5crs_release.errors import FailedError
from mt5crs_release.systems.windows.kernel import Kernel

ACCOUNT = "mt5crs"
"""The local account that services run as; the baseline role makes it."""
SYSTEM_SID = "S-1-5-18"
ADMINISTRATORS_SID = "S-1-5-32-544"
_SDDL_ALIASES = {"SY": SYSTEM_SID, "BA": ADMINISTRATORS_SID}
_SDDL_RIGHTS = {"FA": 0x1F01FF}
_ACE = re.compile(r"\(([^)]*)\)")
_SDDL = re.compile(
    r"O:(?P<owner>[A-Z]{2}|S-[0-9-]+)(?:G:(?:[A-Z]{2}|S-[0-9-]+))?"
    r"D:(?P<flags>[A-Z]*)(?P<entries>(?:\((?:[^;()]*;){5}[^;()]*\))*)\Z"
)


def protection(directory: PurePath, account: str) -> list[list[str]]:
    """Return the commands that leave ``directory`` to SYSTEM, Administrators and (to read) ``account``; pure.

    The order is the point: owner, explicit entries, and only then the end of inheritance, so that nobody who
    needs the directory is ever shut out, and nothing secret is in it before the last command has succeeded.
    Well-known identities are named by SID: their names differ by the language of Windows.
    """
    path = str(directory)
    return [
        ["icacls.exe", path, "/setowner", f"*{ADMINISTRATORS_SID}"],
        [
            "icacls.exe",
            path,
            "/grant:r",
            f"*{SYSTEM_SID}:(OI)(CI)F",
            f"*{ADMINISTRATORS_SID}:(OI)(CI)F",
            f"{account}:(OI)(CI)RX",
        ],
        ["icacls.exe", path, "/inheritance:r"],
    ]


def protect(kernel: Kernel, directory: Path, account: str = ACCOUNT) -> None:
    """Leave ``directory``, still empty, to those who may read a secret, and check that it is so.

    :raises FailedError: it is not; nothing secret may be written
    """
    for command in protection(directory, account):
        _succeed(kernel, command, f"the rights of {directory} could not be set")
    check_rights(kernel, directory, account)


def check_rights(kernel: Kernel, directory: Path, account: str = ACCOUNT) -> None:
    """Check that ``directory`` and everything in it is readable by SYSTEM, Administrators, ``account`` only.

    :raises FailedError: someone else may read something; the message names it
    """
    allowed = {SYSTEM_SID, ADMINISTRATORS_SID, kernel.account_sid(account)}
    listing = directory.with_name(f"{directory.name}.acl")
    try:
        _succeed(
            kernel,
            ["icacls.exe", str(directory), "/save", str(listing), "/t", "/q"],
            f"the rights of {directory} cannot be read",
        )
        found = parse_rights(listing.read_bytes().decode("utf-16"))
    finally:
        with contextlib.suppress(OSError):
            listing.unlink(missing_ok=True)
    problems = [problem for path, sddl in found.items() for problem in rights_problems(path, sddl, allowed)]
    if not found:
        problems = [f"icacls listed nothing below {directory}"]
    if problems:
        raise FailedError(
            f"others could read secrets: {'; '.join(problems[:3])}",
            remedy=f"see `icacls {directory}`; remove what grants those rights, then repeat",
        )


def parse_rights(saved: str) -> dict[str, str]:
    """Return SDDL text by path from what ``icacls /save`` wrote: alternating lines of path and SDDL."""
    lines = [line for line in saved.lstrip("\ufeff").splitlines() if line.strip()]
    return dict(zip(lines[::2], lines[1::2], strict=True))


def holds_alone(sddl: str, owner: str, rights: Mapping[str, int]) -> bool:
    """Whether a directory belongs to ``owner``, and these SIDs have these rights on it and what it will hold,
    nobody else any, and nothing is inherited; pure.

    :param sddl: as ``(Get-Acl …).Sddl`` gives it
    :param rights: access mask of each SID
    """
    match = _SDDL.match(sddl.strip())
    if match is None or _SDDL_ALIASES.get(match["owner"], match["owner"]) != owner:
        return False
    entries = [entry.split(";") for entry in _ACE.findall(match["entries"])]
    found = {
        (kind, flags, _mask(mask), _SDDL_ALIASES.get(sid, sid))
        for kind, flags, mask, _object, _inherits, sid, *_ in entries
    }
    return "P" in match["flags"] and found == {("A", "OICI", mask, sid) for sid, mask in rights.items()}


def _mask(text: str) -> int:
    """The access mask that one field of an entry stands for; -1: one of the many abbreviations."""
    if text in _SDDL_RIGHTS:
        return _SDDL_RIGHTS[text]
    return int(text, 16) if text.startswith("0x") else -1


def rights_problems(path: str, sddl: str, allowed: set[str]) -> Iterator[str]:
    """Yield what grants rights on ``path`` to someone who is not in ``allowed`` (SIDs); pure."""
    _, _, dacl = sddl.partition("D:")
    if not dacl or "NO_ACCESS_CONTROL" in dacl:
        yield f"{path} has no list of rights, so everyone may read it"
        return
    for entry in _ACE.findall(dacl.partition("S:")[0]):
        fields = entry.split(";")
        if len(fields) < 6:
            yield f"{path} has an entry that cannot be read ({entry})"
            continue
        kind, sid = fields[0], _SDDL_ALIASES.get(fields[5], fields[5])
        if kind not in ("D", "OD", "XD") and sid not in allowed:
            yield f"{path} grants rights to {sid}"


def _succeed(kernel: Kernel, command: Sequence[str], failure: str) -> None:
    answer = kernel.run(command)
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise FailedError(
            f"{failure}: {said[0] if said else f'exit status {answer.returncode}'}",
            remedy=f"run the baseline part of the deployment, which makes the account {ACCOUNT}, then repeat",
        )
