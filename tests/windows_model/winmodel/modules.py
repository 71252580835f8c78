"""What each Ansible module does on the modelled host. Options are checked before, against the real ones.

Each function compares, says truthfully whether it changes anything, and changes only outside check mode.
"""
# mypy: disable-error-code="import-not-found,no-any-return"
# (the package is copied to the host and found there by PYTHONPATH)

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from winmodel import commands, state

Answer = dict[str, Any]
_FILE_RIGHTS = {
    "FullControl",
    "Modify",
    "ReadAndExecute",
    "Read",
    "Write",
    "Delete",
    "DeleteSubdirectoriesAndFiles",
    "ListDirectory",
    "Traverse",
}


def run(name: str, module: Any) -> None:
    """Answer for module ``name`` (an ``AnsibleModule`` with checked parameters)."""
    try:
        answer = _MODULES[name](module.params, module.check_mode)
    except (state.UnknownError, OSError, ValueError) as error:
        module.fail_json(msg=f"{name}: {error}")
        return
    if answer.pop("failed", False):
        module.fail_json(**answer)
    module.exit_json(**answer)


def _ping(given: Answer, _check: bool) -> Answer:
    return {"changed": False, "ping": given["data"]}


# --- accounts ----------------------------------------------------------------------------------------


def _user(given: Answer, check: bool) -> Answer:
    if given["state"] != "present":
        raise ValueError("the model knows only state present")
    with state.changing() as now:
        user = dict(now["users"].get(given["name"], {}))
        wanted = dict(user)
        for option in ("description", "password_never_expires", "user_cannot_change_password", "fullname"):
            if given[option] is not None:
                wanted[option] = given[option]
        if given["password"] is not None and (not user or given["update_password"] == "always"):
            wanted["password"] = given["password"]
        if not user:
            wanted["sid"] = f"S-1-5-21-1111-2222-3333-{now['next_rid']}"
        changed = wanted != user
        if changed and not check:
            now["users"][given["name"]] = wanted
            now["next_rid"] += 0 if user else 1
            state.effect("user", name=given["name"], created=not user)
    return {"changed": changed, "name": given["name"], "sid": wanted.get("sid", "")}


def _user_right(given: Answer, check: bool) -> Answer:
    with state.changing() as now:
        held = list(now["rights"].get(given["name"], []))
        for user in given["users"]:
            state.sid_of(user, now)
        if given["action"] == "set":
            wanted = sorted(given["users"])
        elif given["action"] == "add":
            wanted = sorted({*held, *given["users"]})
        else:
            wanted = sorted(set(held) - set(given["users"]))
        changed = wanted != held
        if changed and not check:
            now["rights"][given["name"]] = wanted
            state.effect("user right", name=given["name"], users=wanted)
    return {"changed": changed}


def _auto_logon(given: Answer, check: bool) -> Answer:
    key = r"HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon"
    with state.changing() as now:
        wanted = None
        if given["state"] == "present":
            if not given["username"] or not given["password"]:
                raise ValueError("state is present but all of the following are missing: username, password")
            secret = hashlib.sha256(given["password"].encode()).hexdigest()
            wanted = {"username": given["username"], "secret": secret}
        changed = now["auto_logon"] != wanted
        if changed and not check:
            now["auto_logon"] = wanted
            values = now["registry"].setdefault(key, {})
            values.pop("DefaultUserName", None)
            if wanted:
                values["DefaultUserName"] = {"type": "string", "data": wanted["username"]}
            state.effect("automatic logon", username=wanted and wanted["username"])
    return {"changed": changed}


# --- files -------------------------------------------------------------------------------------------


def _file(given: Answer, check: bool) -> Answer:
    path = state.local(given["path"])
    if given["state"] == "directory":
        if path.is_file():
            raise ValueError(f"{given['path']} is not a directory")
        changed = not path.is_dir()
        if changed and not check:
            path.mkdir(parents=True)
            state.effect("directory", path=state.windows_path(path), readers=state.readers(path))
    elif given["state"] == "absent":
        changed = path.exists()
        if changed and not check:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            state.effect("removed", path=state.windows_path(path))
    else:
        raise ValueError("the model knows only the states directory and absent")
    return {"changed": changed}


def _existing(given: Answer) -> Path:
    """The path of a module that changes rights; it must exist in check mode too, as for the real ones."""
    path = state.local(given["path"])
    if not path.exists():
        raise ValueError(f"{given['path']} file or directory does not exist on the host")
    return path


def _owner(given: Answer, check: bool) -> Answer:
    path = _existing(given)
    acl = state.own_acl(path)
    sid = state.sid_of(given["user"])
    changed = acl["owner"] != sid
    if changed and not check:
        state.set_acl(path, {**acl, "owner": sid})
        state.effect("rights", path=state.windows_path(path), by="owner", readers=state.readers(path))
    return {"changed": changed}


def _acl(given: Answer, check: bool) -> Answer:
    path = _existing(given)
    unknown = {right.strip() for right in given["rights"].split(",")} - _FILE_RIGHTS
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such FileSystemRights")
    sid = state.sid_of(given["user"])
    acl = state.own_acl(path)
    same = {"sid": sid, "type": given["type"], "rights": given["rights"]}
    others = [entry for entry in acl["entries"] if (entry["sid"], entry["type"]) != (sid, given["type"])]
    wanted = [*others, same] if given["state"] == "present" else others
    changed = (same in acl["entries"]) != (given["state"] == "present")
    if changed and not check:
        state.set_acl(path, {**acl, "entries": wanted})
        state.effect("rights", path=state.windows_path(path), by="entry", readers=state.readers(path))
    return {"changed": changed}


def _acl_inheritance(given: Answer, check: bool) -> Answer:
    path = _existing(given)
    acl = state.own_acl(path)
    wanted = given["state"] == "absent"
    changed = acl["protected"] != wanted
    if changed and not check:
        if wanted and given["reorganize"]:
            acl["entries"] = [
                {key: entry[key] for key in ("sid", "type", "rights")} for entry in state.entries_of(path)
            ]
        state.set_acl(path, {**acl, "protected": wanted})
        state.effect("rights", path=state.windows_path(path), by="inheritance", readers=state.readers(path))
    return {"changed": changed}


def _copy(given: Answer, check: bool) -> Answer:
    target = state.local(given["dest"])
    if given["content"] is not None:
        content = given["content"].encode()
    elif given["src"] is not None:
        content = Path(given["src"]).read_bytes()  # brought here by the action plugin
    else:
        raise ValueError("one of src and content is needed")
    if target.is_dir():
        raise ValueError(f"{given['dest']} is a directory; the roles name files")
    changed = not target.exists() or target.read_bytes() != content
    if not target.parent.is_dir():
        raise ValueError(f"{state.windows_path(target.parent)} does not exist")
    if changed and not check:
        state.effect("content", path=state.windows_path(target), readers=state.readers(target.parent))
        # Windows replaces the content and keeps the file, so its rights stay.
        with target.open("r+b" if target.exists() else "wb") as stream:
            stream.truncate(0)
            stream.write(content)
    return {"changed": changed, "checksum": hashlib.sha1(content, usedforsecurity=False).hexdigest()}


def _stat(given: Answer, _check: bool) -> Answer:
    path = state.local(given["path"])
    if not path.exists():
        return {"changed": False, "stat": {"exists": False}}
    found: Answer = {"exists": True, "isdir": path.is_dir(), "path": given["path"]}
    if path.is_file():
        found["size"] = path.stat().st_size
        if given["get_checksum"]:
            found["checksum"] = hashlib.new(given["checksum_algorithm"], path.read_bytes()).hexdigest()
    return {"changed": False, "stat": found}


def _unzip(given: Answer, check: bool) -> Answer:
    if given["creates"] and state.local(given["creates"]).exists():
        return {"changed": False, "skipped": True}
    source, target = state.local(given["src"]), state.local(given["dest"])
    if source.suffix != ".zip":
        raise ValueError(f"{given['src']}: only .zip files are unpacked without the PSCX module")
    if not check:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(target)
            for member in archive.infolist():
                mode = member.external_attr >> 16
                if mode and not member.is_dir():
                    (target / member.filename).chmod(mode & 0o777)
        state.effect("unpacked", path=state.windows_path(target), readers=state.readers(target))
        if given["delete_archive"]:
            source.unlink()
    return {"changed": True}


def _command(given: Answer, _check: bool) -> Answer:
    argv = given["argv"]
    if not argv:
        raise ValueError("the model runs argv only: a command line would have to be split as Windows does")
    if argv[0] in commands.PROGRAMS:
        code, said = commands.run(argv)
        return {"changed": True, "failed": code != 0, "rc": code, "stdout": said, "stderr": "", "msg": said}
    program = state.local(argv[0])
    if not os.access(program, os.X_OK):
        raise ValueError(f"{argv[0]}: The system cannot find the file specified")
    answer = subprocess.run(
        [str(program), *(state.translate(word) for word in argv[1:])],
        input=given["stdin"] or "",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return {
        "changed": True,
        "failed": answer.returncode != 0,
        "rc": answer.returncode,
        "stdout": answer.stdout.rstrip("\n"),
        "stderr": answer.stderr,
        "stdout_lines": answer.stdout.splitlines(),
        "stderr_lines": answer.stderr.splitlines(),
        "cmd": subprocess.list2cmdline(argv),
        **({"msg": "non-zero return code"} if answer.returncode else {}),
    }


# --- registry, power, firewall -----------------------------------------------------------------------


def _regedit(given: Answer, check: bool) -> Answer:
    if not given["path"].startswith(("HKLM:\\", "HKCU:\\", "HKU:\\", "HKCR:\\", "HKCC:\\")):
        raise ValueError(f"path: {given['path']} is not a valid registry path")
    data: Any = given["data"]
    if given["type"] in ("dword", "qword"):
        data = int(data)
    with state.changing() as now:
        values = dict(now["registry"].get(given["path"], {}))
        if given["state"] == "present":
            values[given["name"]] = {"type": given["type"], "data": data}
        else:
            values.pop(given["name"], None)
        changed = values != now["registry"].get(given["path"], {})
        if changed and not check:
            now["registry"][given["path"]] = values
            state.effect("registry", path=given["path"], name=given["name"])
    return {"changed": changed}


def _reg_stat(given: Answer, _check: bool) -> Answer:
    value = state.look()["registry"].get(given["path"], {}).get(given["name"])
    if value is None:
        return {"changed": False, "exists": False}
    return {"changed": False, "exists": True, "type": value["type"], "value": value["data"]}


def _power_plan(given: Answer, check: bool) -> Answer:
    if not given["guid"]:
        raise ValueError("the model knows power plans by guid only: names differ by language")
    with state.changing() as now:
        changed = now["power_plan"] != given["guid"]
        if changed and not check:
            now["power_plan"] = given["guid"]
            state.effect("power plan", guid=given["guid"])
    return {"changed": changed}


def _firewall(given: Answer, check: bool) -> Answer:
    with state.changing() as now:
        wanted = {name: dict(value) for name, value in now["firewall"].items()}
        for profile in given["profiles"]:
            wanted[profile] = {"state": given["state"], "inbound": given["inbound_action"]}
        changed = wanted != now["firewall"]
        if changed and not check:
            now["firewall"] = wanted
            state.effect("firewall", inbound=given["inbound_action"])
    return {"changed": changed}


def _firewall_rule(given: Answer, check: bool) -> Answer:
    name = given["name"]
    with state.changing() as now:
        rules = now["rules"]
        if given["state"] == "absent":
            changed = name in rules
            if changed and not check:
                del rules[name]
                state.effect("firewall rule", name=name, removed=True)
            return {"changed": changed}
        known = rules.get(name, {})
        options = ("localport", "remoteip", "protocol", "direction", "action", "enabled", "group")
        wanted = known | {option: given[option] for option in options if given[option] is not None}
        if given["profiles"]:
            wanted["profiles"] = sorted(given["profiles"])
        if wanted.get("remoteip"):
            wanted["remoteip"] = ",".join(sorted(wanted["remoteip"].split(",")))
        changed = wanted != known
        if changed and not check:
            rules[name] = wanted
            state.effect("firewall rule", name=name, remoteip=wanted.get("remoteip"))
    return {"changed": changed}


# --- services and tasks ------------------------------------------------------------------------------


def _service(given: Answer, check: bool) -> Answer:
    name = given["name"]
    known = state.look()["services"].get(name)
    if given["state"] == "absent":
        if known is not None and not check:
            commands.stop_service(name)
            with state.changing() as now:
                del now["services"][name]
            state.effect("service", name=name, removed=True)
        return {"changed": known is not None, "exists": False}
    if known is None and not given["path"]:
        raise ValueError(f"service {name} does not exist: path is needed to create it")
    with state.changing() as now:
        service = dict(now["services"].get(name, {"state": "stopped", "start_mode": "auto"}))
        for option in (
            "path",
            "username",
            "start_mode",
            "display_name",
            "description",
            "dependencies",
            "failure_actions",
            "failure_actions_on_non_crash_failure",
        ):
            if given[option] is not None:
                service[option] = given[option]
        if given["failure_reset_period_sec"] is not None:
            service["failure_reset_period_sec"] = int(given["failure_reset_period_sec"])
        if given["username"]:
            state.sid_of(given["username"], now)
        new_password = given["password"] is not None and (
            known is None
            or given["update_password"] in ("always", None)
            or known.get("username") != service["username"]
        )
        changed = service != now["services"].get(name) or new_password
        if changed and not check:
            if new_password:
                service["password"] = given["password"]
            now["services"][name] = service
            state.effect("service", name=name, created=known is None)
    running = known is not None and known["state"] == "started"
    if given["state"] == "restarted" or (given["state"] == "started" and not running):
        if not check:
            commands.stop_service(name)
            code, said = commands.start_service(name)
            if code != 0:
                raise ValueError(f"failed to start service: {said}")
        changed = True
    elif given["state"] == "stopped" and running:
        if not check:
            commands.stop_service(name)
        changed = True
    return {"changed": changed, "exists": True}


def _service_info(given: Answer, _check: bool) -> Answer:
    if not given["name"] or "*" in given["name"]:
        raise ValueError("the model tells of one named service only")
    known = state.look()["services"].get(given["name"])
    services = []
    if known is not None:
        shown = {name: known.get(name) for name in ("state", "start_mode", "username", "path", "description")}
        services = [{"name": given["name"], **shown}]
    return {"changed": False, "exists": known is not None, "services": services}


def _scheduled_task(given: Answer, check: bool) -> Answer:
    folder = given["path"].rstrip("\\")
    name = f"{folder}\\{given['name']}"
    with state.changing() as now:
        known = now["tasks"].get(name)
        if given["state"] == "absent":
            if known is not None and not check:
                del now["tasks"][name]
                state.effect("task", name=name, created=False)
            return {"changed": known is not None}
        action = given["actions"][0]
        wanted = {
            "command": f'"{action["path"]}" {action["arguments"] or ""}'.strip(),
            "triggers": [trigger["type"] for trigger in given["triggers"]],
            "username": given["username"],
            "logon_type": given["logon_type"],
            "run_level": given["run_level"],
            "enabled": True,
        }
        state.sid_of(given["username"], now)
        changed = {key: value for key, value in (known or {}).items() if key != "pid"} != wanted
        if changed and not check:
            now["tasks"][name] = {**wanted, **({"pid": known["pid"]} if known and "pid" in known else {})}
            state.effect("task", name=name, created=known is None)
    return {"changed": changed}


_MODULES: dict[str, Callable[[Answer, bool], Answer]] = {
    "win_acl": _acl,
    "win_acl_inheritance": _acl_inheritance,
    "win_auto_logon": _auto_logon,
    "win_command": _command,
    "win_copy": _copy,
    "win_file": _file,
    "win_firewall": _firewall,
    "win_firewall_rule": _firewall_rule,
    "win_owner": _owner,
    "win_ping": _ping,
    "win_power_plan": _power_plan,
    "win_reg_stat": _reg_stat,
    "win_regedit": _regedit,
    "win_scheduled_task": _scheduled_task,
    "win_service": _service,
    "win_service_info": _service_info,
    "win_stat": _stat,
    "win_unzip": _unzip,
    "win_user": _user,
    "win_user_right": _user_right,
}
