"""A fleet with a modelled Windows gateway, on a lab: hub-01, inf-01, gtw-01 (Linux), gtw-02 (Windows).

``python -m tests.windows_model.fleet up|down [--name win]`` boots a lab of four hosts, makes one of them a
modelled Windows host and writes ``.lab/<name>/windows/inventory.yml`` (and ``.py``). ``environment()``
has what Ansible needs to find the modelled modules.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import yaml

from deploy import keys
from lab.handle import Lab
from tests.windows_model.build import build

PROJECT = Path(__file__).resolve().parents[2]
GATEWAY = "gtw-02"
_TAKEN = "inf-02"
"""The lab's host that becomes the Windows gateway."""


def directory(name: str) -> Path:
    """Where the inventory and the built model of this fleet are."""
    return PROJECT / ".lab" / name / "windows"


def environment(name: str) -> dict[str, str]:
    """The environment in which Ansible finds the modelled modules (and nothing else differs)."""
    plain = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    return {**os.environ, **plain, "ANSIBLE_COLLECTIONS_PATH": str(directory(name) / "model")}


def up(name: str, *, alone: bool = False) -> Path:
    """Boot the lab if need be, install the model, write the inventory; return the inventory's path.

    :param alone: the inventory has only the Windows gateway
    """
    command = [sys.executable, "-m", "lab", "up", "--name", name, "--hosts", "4"]
    subprocess.run(command, cwd=PROJECT, check=True, timeout=300)
    lab = Lab.open(name)
    here = directory(name)
    here.mkdir(parents=True, exist_ok=True)
    build(here / "model")
    _install(lab, here / "model/on_host")
    path = here / "inventory.yml"
    path.write_text(inventory(lab, here, alone=alone))
    path.with_suffix(".py").write_text(
        '"""pyinfra inventory of this lab: exactly what Ansible reads from inventory.yml."""\n\n'
        "from deploy.inventory import hosts_of\n\nlab = hosts_of(__file__)\n"
    )
    keys.make(path)
    return path


def inventory(lab: Lab, here: Path, *, alone: bool) -> str:
    """Return the fleet's inventory as text."""
    addresses = {host.name: host.address for host in lab.plan.hosts}
    archive = here / "model/python.zip"
    ssh = PROJECT / ".lab" / lab.plan.name / "ssh"
    if not ssh.is_dir():
        ssh = ssh.parent
    windows: dict[str, Any] = {
        "ansible_host": addresses[_TAKEN],
        # The model is a Linux machine: its shell and its bundle are the only things that differ from Windows.
        "ansible_shell_type": "sh",
        "ansible_become": True,
        "fleet_bundle": "{{ 'dist/' ~ (lookup('file', 'dist/latest.json') | from_json).bundles.linux.file }}",
        "gateway_windows_python_archive": str(archive.relative_to(PROJECT)),
        "gateway_windows_python_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    tree: dict[str, Any] = {
        "lab": {
            "children": {
                "hub": {"hosts": {"hub-01": {"ansible_host": addresses["hub-01"]}}},
                "inf": {"hosts": {"inf-01": {"ansible_host": addresses["inf-01"], "fleet_gateway": GATEWAY}}},
                "gateway": {
                    "hosts": {GATEWAY: windows, "gtw-01": {"ansible_host": addresses["gtw-01"]}},
                },
                "windows": {"hosts": {GATEWAY: {}}},
            },
            "vars": {
                "fleet_environment": "lab",
                "fleet_networks": [lab.plan.network],
                "fleet_ssh_key": str(ssh / "id_ed25519"),
                "fleet_ssh_known_hosts": str(ssh / "known_hosts"),
            },
        }
    }
    if alone:
        children = tree["lab"]["children"]
        children["hub"], children["inf"] = {"hosts": {}}, {"hosts": {}}
        del children["gateway"]["hosts"]["gtw-01"]
        windows["baseline_ntp_servers"] = [lab.plan.controller_address]  # the lab's time server is the Hub
    return yaml.safe_dump(tree, sort_keys=False, width=200)


def _install(lab: Lab, source: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(source, ".")
    script = (
        "import base64,compileall,io,tarfile,sys;"
        "tarfile.open(fileobj=io.BytesIO(base64.b64decode(sys.stdin.read()))).extractall('/opt/winmodel');"
        "compileall.compile_dir('/opt/winmodel', quiet=1)"
    )
    import base64

    lab.exec(_TAKEN, ["python3", "-c", script], input_text=base64.b64encode(stream.getvalue()).decode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("action", choices=("up", "down"))
    parser.add_argument("--name", default="win")
    parser.add_argument("--alone", action="store_true", help="an inventory of the Windows gateway only")
    options = parser.parse_args()
    if options.action == "up":
        print(up(options.name, alone=options.alone))
    else:
        subprocess.run(
            [sys.executable, "-m", "lab", "down", "--name", options.name],
            cwd=PROJECT,
            check=True,
            timeout=120,
        )


if __name__ == "__main__":
    main()
