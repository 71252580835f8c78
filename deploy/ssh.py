"""Runs a command on a host of the fleet with OpenSSH, from the inventory's variables.

For what a roll-out does beside its engine, alike for both: ask the Hub's Prometheus (also when the run is
limited to other hosts), and give generations that wait for confirmation more time.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.programs import MissingProgramError, require
from deploy.release_call import document_of

TOOL = "/usr/local/sbin/mt5crs-release"
"""The release tool on every Linux host."""
STATUS = ("sh", "-c", f"if [ -x {TOOL} ]; then {TOOL} status --json; else echo '{{}}'; fi")
"""What a host runs, as the release tool there says; `{}` where it is not installed yet."""


@dataclass(frozen=True)
class Reply:
    """What a command answered; `status` is None when the host could not be asked, and `error` says why."""

    status: int | None
    output: str
    error: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that it printed; `{}` when it printed none."""
        return document_of(self.output) or {}

    @property
    def why(self) -> str:
        """Why it failed: in the release tool's own words, if there are any."""
        return str((self.document.get("error") or {}).get("message") or self.error)


def arguments(variables: Mapping[str, Any], command: Sequence[str]) -> list[str]:
    """The ssh command line that runs `command` on the host with these variables, as root.

    MissingProgramError if this machine has no ssh.
    """
    words = [require("ssh"), "-o", "BatchMode=yes"]
    words += shlex.split(str(variables.get("ansible_ssh_common_args", "")))
    if variables.get("ansible_ssh_private_key_file"):
        words += ["-i", str(variables["ansible_ssh_private_key_file"])]
    words += ["-p", str(variables.get("ansible_port", 22))]
    words += ["-l", str(variables.get("ansible_user", "root")), str(variables["ansible_host"])]
    become = ["sudo", "-n", "--"] if variables.get("ansible_become") else []
    return [*words, shlex.join([*become, *command])]


def run(variables: Mapping[str, Any], command: Sequence[str], *, stdin: str = "", timeout_s: float) -> Reply:
    """Run a command on a host; a host that cannot be reached or does not answer in time is no exception."""
    try:
        answer = subprocess.run(
            arguments(variables, command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Reply(None, "", f"no answer within {timeout_s:g} s")
    except MissingProgramError as error:
        return Reply(None, "", str(error))
    except OSError as error:
        return Reply(None, "", f"ssh could not be started: {error}")
    said = answer.stderr.strip().splitlines()
    if answer.returncode == 255:  # ssh's own failure
        return Reply(None, answer.stdout, said[-1] if said else "the connection failed")
    return Reply(answer.returncode, answer.stdout, said[-1] if said else "")
