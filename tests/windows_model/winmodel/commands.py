"""The programs of Windows that are called: icacls.exe, sc.exe, schtasks.exe, powershell.exe.

Only what their documentation says they take is taken; everything else is an error, as on Windows.
"""
# mypy: disable-error-code="import-not-found,no-any-return"
# (the package is copied to the host and found there by PYTHONPATH)

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from winmodel import state

_GRANT = re.compile(r"(\*?[^:]+):((?:\([A-Z]+\))*)([A-Z]+)\Z")
_EXPRESSIONS = {
    re.compile(r"\(Get-LocalUser -Name '([^']+)'\)\.SID\.Value\Z"): lambda name: state.sid_of(name),
    re.compile(r"\(Get-Acl -LiteralPath '([^']+(?:','[^']+)*)'\)\.Sddl\Z"): lambda paths: "\n".join(
        _full_sddl(path) for path in paths.split("','")
    ),
}
_RIGHTS = {"F": "FullControl", "RX": "ReadAndExecute", "M": "Modify", "R": "Read"}
_ERROR_UNKNOWN_SERVICE = 1060
_ERROR_ALREADY_RUNNING = 1056
_ERROR_NOT_ACTIVE = 1062


def run(command: list[str]) -> tuple[int, str]:
    """Run one modelled program; return exit status and output."""
    if command[0] not in PROGRAMS:
        return 9009, f"'{command[0]}' is not recognized as an internal or external command"
    try:
        return PROGRAMS[command[0]](command[1:])
    except state.UnknownError as error:
        return 1332, str(error)


# --- icacls ------------------------------------------------------------------------------------------


def _icacls(words: list[str]) -> tuple[int, str]:
    path = state.local(words[0]) if not words[0].startswith(str(state.ROOT)) else Path(words[0])
    if not path.exists():
        return 2, f"{path}: The system cannot find the file specified."
    verb, *arguments = words[1:]
    if verb == "/save":
        return _save(path, arguments)
    acl = state.own_acl(path)
    if verb == "/setowner" and len(arguments) == 1:
        acl["owner"] = state.sid_of(arguments[0])
    elif verb == "/grant:r" and arguments:
        for argument in arguments:
            match = _GRANT.match(argument)
            if match is None or match[3] not in _RIGHTS:
                return 87, f'Invalid parameter "{argument}"'
            sid = state.sid_of(match[1])
            kept = [entry for entry in acl["entries"] if (entry["sid"], entry["type"]) != (sid, "allow")]
            acl["entries"] = [*kept, {"sid": sid, "type": "allow", "rights": _RIGHTS[match[3]]}]
    elif verb == "/inheritance:r" and not arguments:
        acl["protected"] = True
    else:
        return 87, f'Invalid parameter "{verb}"'
    state.set_acl(path, acl)
    state.effect(
        "rights", path=state.windows_path(path), by=verb, readers=state.readers(path), owner=acl["owner"]
    )
    return 0, "Successfully processed 1 files; Failed processing 0 files"


def _save(path: Path, arguments: list[str]) -> tuple[int, str]:
    target, *flags = arguments
    if not set(flags) <= {"/t", "/c", "/l", "/q"}:
        return 87, f'Invalid parameter "{flags}"'
    lines = [path.name, state.sddl(path)]
    if "/t" in flags:
        for parent, directories, files in os.walk(path):
            for name in sorted(files) + sorted(directories):
                each = Path(parent) / name
                if not each.is_symlink():
                    lines += [f"{path.name}\\{each.relative_to(path)}".replace("/", "\\"), state.sddl(each)]
    Path(state.translate(target)).write_bytes(("\n".join(lines) + "\n").encode("utf-16"))
    return 0, ""


# --- services ----------------------------------------------------------------------------------------


def _sc(words: list[str]) -> tuple[int, str]:
    verb, name, *rest = words
    services = state.look()["services"]
    if name not in services:
        return _ERROR_UNKNOWN_SERVICE, "The specified service does not exist as an installed service."
    if verb == "query" and not rest:
        return 0, f"SERVICE_NAME: {name}"
    if verb == "start" and not rest:
        return start_service(name)
    if verb == "stop" and not rest:
        return stop_service(name)
    if verb == "config" and len(rest) == 2 and rest[0] == "start=":
        modes = {"delayed-auto": "delayed", "auto": "auto", "demand": "manual", "disabled": "disabled"}
        if rest[1] not in modes:
            return 87, "The parameter is incorrect."
        with state.changing() as now:
            if now["services"][name]["start_mode"] != modes[rest[1]]:
                now["services"][name]["start_mode"] = modes[rest[1]]
                state.effect("service", name=name, start_mode=modes[rest[1]])
        return 0, "[SC] ChangeServiceConfig SUCCESS"
    return 87, f"sc.exe {' '.join(words)}: the parameter is incorrect"


def start_service(name: str) -> tuple[int, str]:
    """Start a service's registered program, for real."""
    with state.changing() as now:
        service = now["services"][name]
        if service["state"] == "started" and (not service.get("pid") or _alive(service["pid"])):
            return _ERROR_ALREADY_RUNNING, "An instance of the service is already running."
        if service["path"].startswith('"'):
            account = service["username"].removeprefix(".\\")
            if account not in ("LocalSystem", "LocalService"):
                if account not in now["users"]:
                    return 1069, "The service did not start due to a logon failure."
                if account not in now["rights"].get("SeServiceLogonRight", []):
                    return 1069, "The service did not start due to a logon failure (no SeServiceLogonRight)."
                if service.get("password") != now["users"][account]["password"]:
                    return 1069, "The service did not start due to a logon failure (password)."
            service["pid"] = _launch(service["path"])
        service["state"] = "started"
        state.effect("service", name=name, state="started")
    return 0, ""


def stop_service(name: str) -> tuple[int, str]:
    """Stop a service's program and wait for it."""
    with state.changing() as now:
        service = now["services"][name]
        pid = service.pop("pid", None)
        running = service["state"] == "started" and (pid is None or _alive(pid))
        service["state"] = "stopped"
        if not running:
            return _ERROR_NOT_ACTIVE, "The service has not been started."
        state.effect("service", name=name, state="stopped")
    if pid is not None:
        end(pid)
    return 0, ""


def end(pid: int) -> None:
    """Ask a program that the model started to end, and wait for it."""
    if _alive(pid):
        os.kill(pid, signal.SIGTERM)
        _wait(pid)


def _launch(command: str) -> int:
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
    process = subprocess.Popen(
        [state.translate(words[0]), *words[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
    )
    return process.pid


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _wait(pid: int, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)


# --- scheduled tasks ---------------------------------------------------------------------------------

_OPTIONS = {
    "/Create": {"/TN", "/TR", "/SC", "/MO", "/RU", "/RL"},
    "/Delete": {"/TN"},
    "/Run": {"/TN"},
    "/Query": {"/TN"},
    "/Change": {"/TN"},
}
_FLAGS = {"/Create": {"/F"}, "/Delete": {"/F"}, "/Change": {"/ENABLE", "/DISABLE"}}


def _schtasks(words: list[str]) -> tuple[int, str]:
    verb, *rest = words
    if verb not in _OPTIONS:
        return 1, f"ERROR: Invalid argument/option - '{verb}'."
    options: dict[str, str] = {}
    flags: set[str] = set()
    while rest:
        word = rest.pop(0)
        if word in _OPTIONS[verb] and rest:
            options[word] = rest.pop(0)
        elif word in _FLAGS.get(verb, set()):
            flags.add(word)
        else:
            return 1, f"ERROR: Invalid argument/option - '{word}'."
    name = options.get("/TN", "")
    with state.changing() as now:
        tasks = now["tasks"]
        if verb == "/Create":
            tasks[name] = {"command": options["/TR"], "every_min": int(options["/MO"]), "enabled": True}
            state.effect("task", name=name, created=True)
            return 0, "SUCCESS"
        if name not in tasks:
            return 1, "ERROR: The system cannot find the file specified."
        if verb == "/Delete":
            del tasks[name]
            state.effect("task", name=name, created=False)
        elif verb == "/Change":
            tasks[name]["enabled"] = "/ENABLE" in flags
        elif verb == "/Run":
            if not tasks[name].get("enabled", True):
                return 1, "ERROR: The task is disabled."
            if tasks[name].get("logon_type") == "interactive_token" and now["auto_logon"] is None:
                return 1, "ERROR: no session of the user, the task cannot start."
            tasks[name]["pid"] = _launch(tasks[name]["command"])
            state.effect("task", name=name, state="running")
    return 0, "SUCCESS"


# --- PowerShell --------------------------------------------------------------------------------------


def _powershell(words: list[str]) -> tuple[int, str]:
    """Only the expressions that the verify suite asks for."""
    *flags, expression = words
    if flags != ["-NoProfile", "-NonInteractive", "-Command"]:
        return 64, f"the model takes -NoProfile -NonInteractive -Command EXPRESSION, not {flags}"
    for pattern, answer in _EXPRESSIONS.items():
        match = pattern.match(expression)
        if match is not None:
            return 0, answer(match[1])
    return 1, f"the model knows no {expression}"


def _full_sddl(path: str) -> str:
    there = state.local(path)
    if not there.exists():
        raise state.UnknownError(f"Cannot find path '{path}' because it does not exist.")
    return f"O:{state.own_acl(there)['owner']}G:SY{state.sddl(there)}"


PROGRAMS = {"icacls.exe": _icacls, "sc.exe": _sc, "schtasks.exe": _schtasks, "powershell.exe": _powershell}
