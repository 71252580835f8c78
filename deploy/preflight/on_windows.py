"""What a Windows host answers to the one question of a go/no-go, in the form of `on_host`.

Runs on the host, as an administrator, with the Python that the deployment brought and the modules of the
release tool: only they know pointers and rights there. Changes nothing. Whether firewall and the rest of the
baseline are in force is asked of Ansible, not here.
"""

from __future__ import annotations

import ctypes
import http.client
import importlib
import json
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path("C:/ProgramData/mt5crs")
TOOL = ROOT / "bin/mt5crs-release.pyz"
ACCOUNT = "mt5crs"
_PROGRAM_S = 60
_ANSWER_S = 5
_ACTS = 50
_WRITES = 0x2
"""FILE_WRITE_DATA, FILE_ADD_FILE."""
_FULL = 0x1F01FF
_ALLOWED = re.compile(r"\(A;[A-Z]*;(?P<mask>0x[0-9a-fA-F]+|FA);[^;]*;[^;]*;(?P<sid>[^;)]+)\)")
_REBOOT = (
    r"SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\RebootPending",
    r"SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired",
)
_CLOCK = "Windows Time is not asked: `w32tm /query /status` there says who set its clock"


def of_tool(name: str) -> Any:
    """A module of the release tool that is on this host."""
    if str(TOOL) not in sys.path:
        sys.path.insert(0, str(TOOL))
    return importlib.import_module(f"mt5crs_release.{name}")


def run(*words: str) -> str:
    """What a program prints. RuntimeError with its last line when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=_PROGRAM_S, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise RuntimeError(f"{Path(words[0]).name} ended with status {done.returncode}: {said}")
    return done.stdout


def status() -> Any:
    """What the release tool says."""
    return json.loads(run(sys.executable, str(TOOL), "status", "--json"))


def services() -> list[str]:
    """Services that have a generation on this host."""
    return sorted(path.parent.name for path in ROOT.glob("*/current"))


def generation(service: str) -> Path:
    """The directory of its current generation: the pointer is a small file."""
    base = ROOT / service
    return base / (base / "current").read_text("utf-8")


def rights(path: Path) -> dict[str, str]:
    """SDDL by path of a directory and everything in it."""
    windows_rights = of_tool("windows_rights")
    with tempfile.TemporaryDirectory(prefix="mt5crs-preflight-") as scratch:
        listing = Path(scratch) / "acl"
        run("icacls.exe", str(path), "/save", str(listing), "/t", "/q")
        found: dict[str, str] = windows_rights.parse_rights(listing.read_bytes().decode("utf-16"))
    if not found:
        raise RuntimeError(f"icacls listed nothing below {path}")
    return found


def writers(sddl: str) -> set[str]:
    """SIDs (or their abbreviations) that may write by this SDDL; pure."""
    masks = {one["sid"]: one["mask"] for one in _ALLOWED.finditer(sddl)}
    return {sid for sid, mask in masks.items() if (_FULL if mask == "FA" else int(mask, 16)) & _WRITES}


def account_sid() -> str:
    """The SID of the services' account."""
    return str(of_tool("windows_kernel").Kernel().account_sid(ACCOUNT))


def env_files() -> list[dict[str, Any]]:
    """Every `.env` that counts: who else can read it, and the names that have no value."""
    windows_rights = of_tool("windows_rights")
    readers = {windows_rights.SYSTEM_SID, windows_rights.ADMINISTRATORS_SID, account_sid()}
    found = []
    for name in services():
        path = generation(name) / ".env"
        if not path.is_file():
            continue
        others = [
            problem
            for at, sddl in rights(path.parent).items()
            for problem in windows_rights.rights_problems(at, sddl, readers)
        ]
        lines = [line.strip().partition("=") for line in path.read_text(encoding="utf-8").splitlines()]
        empty = [of for of, sign, value in lines if sign and of[0] != "#" and not value.strip("'\"")]
        found.append({"path": str(path), "service": name, "empty": empty, "others": others})
    return found


def disks() -> list[dict[str, Any]]:
    """Free space of the drive that services write to. NTFS makes room for its entries itself."""
    of = shutil.disk_usage(ROOT)
    return [{"path": str(ROOT), "free": 100.0 * of.free / of.total, "inodes": 100.0}]


def writable() -> list[dict[str, Any]]:
    """Whether the services' account may write in each service's directory, by its rights."""
    sid = account_sid()
    found = []
    for path in (ROOT / "state" / name for name in services()):
        if path.is_dir():
            own = next(iter(rights(path).values()))
            found.append({"path": str(path), "user": ACCOUNT, "writable": sid in writers(own)})
    return found


class _Memory(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64)
        for name in ("total", "free", "pages", "free_pages", "space", "free_space", "more")
    ]


def memory() -> float:
    """Percent of the memory that programs can still have."""
    of = _Memory(ctypes.sizeof(_Memory))
    if not getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx(ctypes.byref(of)):  # noqa: B009
        raise RuntimeError("GlobalMemoryStatusEx failed")
    return 100.0 * float(of.free) / float(of.total)


def failed_units() -> list[str]:
    """Units that the launcher has given up."""
    told = status()["services"].values()
    return [unit for of in told for unit, state in (of.get("units") or {}).items() if state == "failed"]


def interpreters() -> list[dict[str, Any]]:
    """The Python of each service's runtime: its version, or why it does not start."""
    found = []
    for name in services():
        python = generation(name) / "venv/Scripts/python.exe"
        try:
            program = "import mt5crs, sys; print('%d.%d.%d' % sys.version_info[:3])"
            version, error = run(str(python), "-c", program).strip(), ""
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as problem:
            version, error = "", str(problem)
        found.append({"service": name, "version": version, "error": error})
    return found


def databases() -> list[dict[str, Any]]:
    """What SQLite says of each service's files, read without changing them."""
    found = []
    for path in (path for name in services() for path in sorted((ROOT / "state" / name).glob("*.db"))):
        try:
            with _opened(path) as db:
                said = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.Error as error:
            said = f"{error} (looked at for {_PROGRAM_S} s at most)"
        found.append({"path": str(path), "said": said})
    return found


def _opened(path: Path) -> closing[sqlite3.Connection]:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_ANSWER_S)
    until = time.monotonic() + _PROGRAM_S
    db.set_progress_handler(lambda: int(time.monotonic() > until), 100_000)
    return closing(db)


def signers() -> dict[str, Any]:
    """Whose bundles this host takes, and who else may change that."""
    path = ROOT / "allowed_signers"
    mine = {"SY", "BA", "S-1-5-18", "S-1-5-32-544"}
    others = {sid for sddl in rights(path).values() for sid in writers(sddl)} - mine
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
    return {"lines": lines, "others": sorted(others)}


def reboot() -> bool:
    """Whether updates wait for one."""
    registry = importlib.import_module("winreg")
    for key in _REBOOT:
        try:
            registry.CloseKey(registry.OpenKey(registry.HKEY_LOCAL_MACHINE, key))
        except FileNotFoundError:
            continue
        return True
    return False


def health(address: str, port: int) -> Any:
    """What a service says of itself."""
    connection = http.client.HTTPConnection(address, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def acts() -> list[dict[str, Any]]:
    """The newest resumes, and halts of people, that the gateway recorded."""
    with _opened(ROOT / "state/gateway/control.db") as db:
        rows = db.execute(
            "SELECT at_msc, act, magic FROM acts WHERE client NOT IN ('backup', 'gateway') "
            "ORDER BY at_msc DESC LIMIT ?",
            (_ACTS,),
        )
        return [{"at": at / 1000, "act": act, "magic": magic} for at, act, magic in rows]


def clock() -> bool:
    """RuntimeError: what w32tm prints depends on the language of Windows."""
    raise RuntimeError(_CLOCK)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """All sections. asked: `health` (service to address, port), `steered`; see `on_host.answer`."""
    began = time.time()
    wanted: dict[str, Callable[[], Any]] = {
        "status": status,
        "env": env_files,
        "disks": disks,
        "writable": writable,
        "memory": memory,
        "failed_units": failed_units,
        "interpreters": interpreters,
        "databases": databases,
        "signers": signers,
        "reboot": reboot,
        "health": lambda: {name: _section(lambda of=of: health(*of)) for name, of in asked["health"].items()},  # type: ignore[misc]
        "acts": acts,
    }
    if asked.get("steered"):
        wanted["clock"] = clock
    told = {name: _section(look) for name, look in wanted.items()}
    return {"began": began, "ended": time.time(), "python": platform.python_version(), "sections": told}


def _section(look: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": look()}
    except Exception as error:  # whatever it is: the section is unknown, and why
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
