"""Builds what a modelled Windows host needs: the two collections, whose options are those of the real ones.

``python -m tests.windows_model.build DIRECTORY`` writes ``DIRECTORY/ansible_collections`` (for
``ANSIBLE_COLLECTIONS_PATH``), ``DIRECTORY/on_host`` (copied to the host's /opt/winmodel) and
``DIRECTORY/python.zip`` (what stands for python.org's archive).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible import module_utils

HERE = Path(__file__).resolve().parent
MODULES = {
    "ansible.windows": [
        *("win_acl", "win_acl_inheritance", "win_auto_logon", "win_command", "win_copy", "win_file"),
        *("win_firewall", "win_owner", "win_ping", "win_reg_stat", "win_regedit", "win_service"),
        *("win_service_info", "win_stat", "win_user", "win_user_right"),
    ],
    "community.windows": ["win_firewall_rule", "win_power_plan", "win_scheduled_task", "win_unzip"],
}
# win_command cannot say beforehand what a program would do; the real one is skipped in check mode, too.
_NO_CHECK_MODE = {"win_command"}
# The arguments are put in as text. Were ansible.module_utils imported by name, ansible-core would send its
# sources along, and the host would compile them at every call; so they lie beside the model.
_STUB = '''\
#!/usr/bin/python
"""Modelled {name}: the real module's options, the modelled host's behaviour. Written by build.py."""

import importlib
import json
import sys

ARGUMENTS = r\'\'\'<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>\'\'\'
OPTIONS = json.loads({options!r})


def main():
    sys.path.insert(0, "/opt/winmodel")
    basic = importlib.import_module("ansible.module_utils.basic")
    arguments = json.dumps({{"ANSIBLE_MODULE_ARGS": json.loads(ARGUMENTS)}})
    basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = arguments.encode(), "legacy"
    module = basic.AnsibleModule(argument_spec=OPTIONS, supports_check_mode={check_mode})
    importlib.import_module("winmodel.modules").run("{short}", module)


if __name__ == "__main__":
    main()
'''
_PYTHON = """\
#!/bin/sh
# Stands for python.exe: the release tool runs as on Windows, everything else with this machine's Python.
WINMODEL_PYTHON="$0" PYTHONPATH=/opt/winmodel exec /usr/bin/python3 -m winmodel.python "$@"
"""


def documented(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the options of the installed, real modules, from their own documentation."""
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_COLLECTIONS_PATH"}
    answer = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-doc"), "-t", "module", "--json", *names],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
    found: dict[str, dict[str, Any]] = json.loads(answer.stdout)
    return {name: entry["doc"]["options"] for name, entry in found.items()}


def argument_spec(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the options of a module as ``AnsibleModule`` checks them."""
    spec: dict[str, Any] = {}
    for name, option in options.items():
        entry: dict[str, Any] = {"type": option.get("type", "raw")}
        for key in ("required", "choices", "elements", "aliases"):
            if option.get(key):
                entry[key] = option[key]
        if option.get("default") is not None:
            entry["default"] = option["default"]
        if "password" in name and entry["type"] == "str":
            entry["no_log"] = name == "password"
        if option.get("suboptions"):
            entry["options"] = argument_spec(option["suboptions"])
        spec[name] = entry
    return spec


def build(directory: Path) -> None:
    """Write everything below ``directory``, which is replaced."""
    shutil.rmtree(directory, ignore_errors=True)
    names = [f"{collection}.{module}" for collection, modules in MODULES.items() for module in modules]
    options = documented(names)
    for collection, modules in MODULES.items():
        plugins = directory / "ansible_collections" / collection.replace(".", "/") / "plugins"
        (plugins / "modules").mkdir(parents=True)
        for module in modules:
            text = _STUB.format(
                name=f"{collection}.{module}",
                short=module,
                options=json.dumps(argument_spec(options[f"{collection}.{module}"])),
                check_mode=module not in _NO_CHECK_MODE,
            )
            (plugins / "modules" / f"{module}.py").write_text(text)
    action = directory / "ansible_collections/ansible/windows/plugins/action"
    action.mkdir()
    shutil.copy2(HERE / "action/win_copy.py", action)
    on_host = directory / "on_host"
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / "winmodel", on_host / "winmodel", ignore=compiled)
    sources = Path(module_utils.__file__).parent
    shutil.copytree(sources, on_host / "ansible/module_utils", ignore=compiled)
    (on_host / "ansible/__init__.py").touch()
    with zipfile.ZipFile(directory / "python.zip", "w") as archive:
        member = zipfile.ZipInfo("tools/python.exe", (2024, 1, 1, 0, 0, 0))
        member.external_attr = 0o100755 << 16
        archive.writestr(member, _PYTHON)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
