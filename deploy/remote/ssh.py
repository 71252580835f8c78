"""Runs a command on a host of the fleet with OpenSSH, from the inventory's variables.

For pyinfra (by way of `deploy.operations.connector`) and for what a roll-out does beside its engine: keep the
lock, ask the Hub's Prometheus, give generations more time. All share one connection to a host and run.

What a host prints before a command does (`.bashrc`, a banner) is none of its answer: the command says when it
begins, whatever the user's shell is. Without that word nothing was run.
"""

from __future__ import annotations

import atexit
import base64
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from deploy.controller.programs import MissingProgramError, require
from deploy.fleet.connection import Connection, connection_of
from deploy.remote.release_call import document_of
from mt5crs.foreign_text import shown

TOOL = "/usr/local/sbin/mt5crs-release"
"""The release tool on every Linux host."""
STATUS = ("sh", "-c", f"if [ -x {TOOL} ]; then exec {TOOL} status --json \"$@\"; fi; echo '{{}}'", "status")
"""What a host runs, as the release tool there says; `{}` where it is not installed yet."""
BEGINS = "mt5crs: the answer begins"
CONTROL = "MT5CRS_SSH_CONTROL"
"""Environment variable: the directory of this run's shared connections, also for the processes beside it."""
_PERSIST_S = 30
_TEMPORARY = "/tmp"  # noqa: S108 -- a directory of our own in it; a socket's path may have 108 bytes only
LOST = 255
"""The status of ssh itself when there is no connection."""


@dataclass(frozen=True)
class Reply:
    """What a command answered, and what it complained; `status` is None when the host could not be asked."""

    status: int | None
    output: str
    error: str

    @property
    def document(self) -> dict[str, Any] | None:
        """The JSON object that it printed; None when it printed anything else, which is no answer."""
        return document_of(self.output)

    @property
    def why(self) -> str:
        """Why it failed: in the release tool's own words, if there are any."""
        told = ((self.document or {}).get("error") or {}).get("message")
        return shown(str(told or last_line(self.error) or last_line(self.output) or "it said nothing"))


def of_instance(command: Sequence[str], instance: object) -> list[str]:
    """A call of the release tool, or STATUS, for the services of one of a machine's instances.

    Any other command, or no instance: as it is.
    """
    called = command[0] == TOOL or (list(command[:2]) == ["sh", "-c"] and TOOL in command[2])
    return [*command, "--instance", str(instance)] if instance and called else list(command)


def framed(command: str) -> str:
    """A command line for any login shell: says BEGINS, then runs `command` (of sh) on the same input."""
    script = f"echo '{BEGINS}'\n{command}"
    return f"""sh -c 'eval "$(echo {base64.b64encode(script.encode()).decode()} | base64 -d)"'"""


def unframed(output: str) -> str | None:
    """What a framed command has printed; None when it was not run."""
    before, begins, answer = output.partition(f"{BEGINS}\n")
    return answer if begins and (not before or before.endswith("\n")) else None


def control_directory() -> str:
    """Directory of this run's shared connections, which end by themselves soon after it."""
    known = os.environ.get(CONTROL)
    if known is None:
        known = os.environ[CONTROL] = tempfile.mkdtemp(prefix="mt5crs-ssh-", dir=_TEMPORARY)
        atexit.register(_remove, known, os.getpid())
    return known


def _remove(directory: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)


def words(of: Connection) -> list[str]:
    """The ssh command line up to the host. MissingProgramError if this machine has no ssh."""
    shared = ("ControlMaster=auto", f"ControlPersist={_PERSIST_S}", f'ControlPath="{control_directory()}/%C"')
    options = [word for option in ("BatchMode=yes", *shared) for word in ("-o", option)]
    return [require("ssh"), *options, *of.words]


def leave(of: Connection) -> None:
    """Ask over a new connection from here on; what is under way on the old one is not disturbed."""
    subprocess.run([*words(of)[:-1], "-O", "stop", of.host], capture_output=True, timeout=20, check=False)


def execute(
    of: Connection, line: str, *, stdin: str | bytes | IO[bytes] = "", timeout_s: float | None
) -> Reply:
    """Run a framed line on a host; that it cannot be reached, or is silent for too long, is no exception.

    :param stdin: text, bytes, or a file that is open for reading
    """
    source = stdin.encode() if isinstance(stdin, str) else stdin
    given: dict[str, Any] = {"input": source} if isinstance(source, bytes) else {"stdin": source}
    try:
        answer = subprocess.run(
            [*words(of), line], capture_output=True, timeout=timeout_s, check=False, **given
        )
    except subprocess.TimeoutExpired:
        return Reply(None, "", f"no answer within {timeout_s:g} s")
    except MissingProgramError as error:
        return Reply(None, "", str(error))
    except OSError as error:
        return Reply(None, "", f"ssh could not be started: {error}")
    said = answer.stderr.decode(errors="replace")
    output = unframed(answer.stdout.decode(errors="replace"))
    if answer.returncode == LOST:
        return Reply(None, output or "", said.strip() or "the connection failed")
    if output is None:
        text = last_line(said) or last_line(answer.stdout.decode(errors="replace")) or "nothing"
        return Reply(None, "", f"the user's shell there did not run the command; it said: {text}")
    return Reply(answer.returncode, output, said)


def run(
    variables: Mapping[str, Any],
    command: Sequence[str],
    *,
    stdin: str | bytes | IO[bytes] = "",
    timeout_s: float,
) -> Reply:
    """Run a command as root on the host with these variables; `stdin` as in `execute`."""
    of = connection_of(variables)
    line = _as_root(of, of_instance(command, variables.get("fleet_instance")))
    return execute(of, line, stdin=stdin, timeout_s=timeout_s)


def begin(variables: Mapping[str, Any], command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Begin a command as root that goes on until its input is closed; its framed output comes by a pipe.

    MissingProgramError if this machine has no ssh, OSError if it cannot be started.
    """
    of = connection_of(variables)
    return subprocess.Popen(
        [*words(of), _as_root(of, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _as_root(of: Connection, command: Sequence[str]) -> str:
    # Framed within sudo, whose refusal is not the command's.
    return ("sudo -n -- " if of.become else "") + framed(shlex.join(command))


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
