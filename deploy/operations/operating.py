"""operate.py: a task of a fleet that is deployed, done before pyinfra makes a connection.

What is operated is asked by the command itself, all gateways at once; a host that is down must not keep the
others from being halted, and pyinfra would give up over it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pyinfra.api.exceptions import DeployError, PyinfraError

from deploy.controller.operating import OPTIONS, TASKS, listed, problem, words
from deploy.fleet.vault_password import PROJECT

NOT_OURS = DeployError(
    "operate.py works with an inventory/<environment>.py of this project; nothing was done"
)
"""For an inventory that does not read its fleet by `deploy.inventory`."""


def operate(inventory: Path, options: Mapping[str, Any]) -> NoReturn:
    """Do what `--data do=…` says, and end with its exit status. PyinfraError: nothing was done.

    :param inventory: the one that Ansible reads
    :param options: pyinfra's own, as they were typed
    """
    command = command_of(options)
    acts = TASKS[command[0]].acts
    if options.get("dry") and acts:
        print(f"dry: mt5crs … {' '.join(command)} would be run; nothing was done", flush=True)
        sys.exit(0)
    if acts and not options.get("yes"):
        raise PyinfraError(f"{command[0]} acts at once, without being asked: add -y. Nothing was done")
    line = [sys.executable, "-m", "mt5crs", "--inventory", str(inventory.resolve()), *command]
    # It is told of Ctrl-C by the terminal, and says what it did; whoever ends pyinfra means it as well.
    signal.signal(signal.SIGINT, lambda *_: None)
    with subprocess.Popen(line, cwd=PROJECT) as running:
        signal.signal(signal.SIGTERM, lambda *_: running.terminate())
        status = running.wait()
    sys.exit(status if status >= 0 else 128 - status)


def command_of(options: Mapping[str, Any]) -> list[str]:
    """The words of the task that `--data` names. PyinfraError."""
    if len(options.get("operations") or ()) != 1:
        raise PyinfraError("operate.py is run by itself; nothing was done")
    for option in ("limit", "exclude"):
        if options.get(option):
            raise PyinfraError(f"--{option} means nothing here: the whole fleet is asked; nothing was done")
    given = [str(one).partition("=") for one in options.get("data") or ()]
    told = {name: value for name, _, value in given}
    task = told.pop("do", "")
    unknown = [name for name in told if name not in OPTIONS]
    if unknown:
        known = ", ".join(("do", *OPTIONS))
        raise PyinfraError(
            f"operate.py knows no {', '.join(unknown)} (it takes {known}), and the tasks {listed()}. "
            "Nothing was done"
        )
    why = problem(task, told)
    if why:
        raise PyinfraError(f"--data do={task}: {why}" if task else f"name one with --data do=…: {why}")
    return words(task, told)
