"""The modelled host's state in one directory: files with rights, everything else in state.json, and the log.

Rights of a file or directory are kept in an extended attribute of it, so that they move with a rename and
go with a removal, as they do on NTFS.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("WINMODEL_ROOT", "/var/lib/winmodel"))
SYSTEM = "S-1-5-18"
ADMINISTRATORS = "S-1-5-32-544"
USERS = "S-1-5-32-545"
EVERYONE = "S-1-1-0"
_WELL_KNOWN = {SYSTEM: "SYSTEM", ADMINISTRATORS: "Administrators", USERS: "Users", EVERYONE: "Everyone"}
_ATTRIBUTE = "user.winmodel.acl"
_DRIVE = re.compile(r"([A-Za-z]):[/\\]")

# What a fresh Windows has on ProgramData and on the drive: everyone who can log on may read.
_DRIVE_RIGHTS: dict[str, Any] = {
    "owner": SYSTEM,
    "protected": True,
    "entries": [
        {"sid": SYSTEM, "type": "allow", "rights": "FullControl"},
        {"sid": ADMINISTRATORS, "type": "allow", "rights": "FullControl"},
        {"sid": USERS, "type": "allow", "rights": "ReadAndExecute"},
    ],
}


class UnknownError(Exception):
    """Something that does not exist on the modelled host."""


def local(path: str) -> Path:
    """Return where ``C:/x`` or ``C:\\x`` is in the state directory; other paths as they are."""
    match = _DRIVE.match(path)
    if match is None:
        return Path(path)
    return ROOT / "fs" / match[1].upper() / path[3:].replace("\\", "/")


def translate(text: str) -> str:
    """Return ``text`` as a path of the model when it is a Windows path."""
    if _DRIVE.match(text):
        return str(local(text))
    return text.replace("\\", "/") if text.startswith(str(ROOT)) else text


def windows_path(path: Path) -> str:
    """Return the Windows path of a path below the state directory, for the log."""
    try:
        drive, *rest = path.relative_to(ROOT / "fs").parts
    except ValueError:
        return str(path)
    return f"{drive}:/{'/'.join(rest)}"


@contextmanager
def changing() -> Iterator[dict[str, Any]]:
    """Give the state to change; it is written back unless an exception passes."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "state.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = _read()
        before = json.dumps(state, sort_keys=True)
        yield state
        if json.dumps(state, sort_keys=True) != before:
            temporary = ROOT / "state.json.new"
            temporary.write_text(json.dumps(state, indent=1, sort_keys=True))
            temporary.chmod(0o600)
            temporary.replace(ROOT / "state.json")


def look() -> dict[str, Any]:
    """Return the state."""
    return _read()


def _read() -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((ROOT / "state.json").read_text())
        return document
    except FileNotFoundError:
        return {
            "users": {},
            "rights": {},
            "registry": {},
            "services": {
                "w32time": {
                    "start_mode": "manual",
                    "state": "stopped",
                    "path": "svchost.exe",
                    "username": "LocalService",
                },
                "Tcpip": {"start_mode": "auto", "state": "started", "path": "", "username": "LocalSystem"},
            },
            "tasks": {},
            "rules": {"OpenSSH SSH Server (sshd)": {"localport": "22", "remoteip": "any", "action": "allow"}},
            "firewall": {
                name: {"state": "enabled", "inbound": "block"} for name in ("Domain", "Private", "Public")
            },
            "power_plan": "381b4222-f694-41f0-9685-ff5bb260df2e",
            "auto_logon": None,
            "boot": 1,
            "next_rid": 1001,
        }


def effect(what: str, **fields: Any) -> None:
    """Append one effect to the log: what changed the host, in order. Never a secret."""
    ROOT.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"time": round(time.time(), 3), "effect": what, **fields}, sort_keys=True)
    descriptor = os.open(ROOT / "effects.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


# --- identities --------------------------------------------------------------------------------------


def sid_of(name: str, state: dict[str, Any] | None = None) -> str:
    """Return the SID of an account by name, ``.\\name`` or ``*SID``.

    :raises UnknownError: no such account
    """
    name = name.lstrip("*").removeprefix(".\\")
    if name.startswith("S-1-"):
        known = set(_WELL_KNOWN) | {user["sid"] for user in (state or look())["users"].values()}
        if name not in known:
            raise UnknownError(f"no account has the SID {name}")
        return name
    for sid, known_name in _WELL_KNOWN.items():
        if name.lower() == known_name.lower():
            return sid
    users = (state or look())["users"]
    if name not in users:
        raise UnknownError(f"No mapping between account names and security IDs was done: {name}")
    return str(users[name]["sid"])


# --- rights ------------------------------------------------------------------------------------------


def own_acl(path: Path) -> dict[str, Any]:
    """Return what is set on ``path`` itself."""
    try:
        value: dict[str, Any] = json.loads(os.getxattr(path, _ATTRIBUTE))
        return value
    except OSError:
        return {"owner": SYSTEM, "protected": False, "entries": []}


def set_acl(path: Path, acl: dict[str, Any]) -> None:
    """Set the rights of ``path`` itself."""
    os.setxattr(path, _ATTRIBUTE, json.dumps(acl, sort_keys=True).encode())


def entries_of(path: Path) -> list[dict[str, Any]]:
    """Return every entry in force on ``path``, inherited ones marked; nearest first."""
    found: list[dict[str, Any]] = []
    here, inherited = path, False
    drive = ROOT / "fs"
    while True:
        acl = _DRIVE_RIGHTS if here.parent == drive or here in (drive, ROOT) else own_acl(here)
        for entry in acl["entries"]:
            found.append({**entry, "inherited": inherited})
        if acl["protected"] or here == here.parent:
            return found
        here, inherited = here.parent, True


def readers(path: Path) -> list[str]:
    """Return the SIDs that may read ``path``, sorted."""
    return sorted({entry["sid"] for entry in entries_of(path) if entry["type"] == "allow"})


def sddl(path: Path) -> str:
    """Return the rights of ``path`` as an SDDL string, as ``icacls /save`` writes it."""
    short = {"FullControl": "FA", "ReadAndExecute": "0x1200a9", "Modify": "0x1301bf"}
    names = {SYSTEM: "SY", ADMINISTRATORS: "BA", USERS: "BU", EVERYONE: "WD"}
    protected = own_acl(path)["protected"]
    text = f"D:{'P' if protected else ''}AI"
    for entry in entries_of(path):
        kind = "A" if entry["type"] == "allow" else "D"
        flags = ("OICI" if path.is_dir() else "") + ("ID" if entry["inherited"] else "")
        sid = names.get(entry["sid"], entry["sid"])
        text += f"({kind};{flags};{short.get(entry['rights'], '0x1')};;;{sid})"
    return text
