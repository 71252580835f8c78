"""pyinfra's way to a host: OpenSSH's own client, as Ansible uses it, with `deploy.fleet.connection`'s words.

pyinfra finds it as the connector `fleet` (entry point in pyproject.toml); `deploy.operations.context` names
hosts `@fleet/<host>`, and they are known by their plain names from then on.
"""
# mypy: disable-error-code="misc"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.util import get_file_io
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    extract_control_arguments,
    make_unix_command_for_host,
)

from deploy.fleet.connection import Connection, connection_of
from deploy.fleet.vault_password import PROJECT
from deploy.operations import command_line
from deploy.operations.context import fleet, is_loaded, not_reached, variables
from deploy.remote import ssh
from mt5crs.foreign_text import shown

_CONNECT_TIMEOUT_S = 60.0
"""ssh has its own, shorter one; this is for a host that lets one in and then says nothing."""


class LostError(OSError):
    """There is no connection to the host; what was asked of it may have been done."""


class FleetConnector(BaseConnector):
    """Runs commands and copies files over this run's connection to one host."""

    handles_execution = True

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """The one host that `@fleet/<name>` stands for; `--limit` takes its groups, too."""
        of = fleet()
        yield name, {}, [group for group, members in of.groups.items() if name in members]

    @property
    def connection(self) -> Connection:
        """How the inventory says that the host is reached."""
        return connection_of(variables(self.host.name))

    def connect(self) -> None:
        """Find out whether the host lets us in. ConnectError with ssh's reason if not."""
        reply = ssh.execute(self.connection, ssh.framed("true"), timeout_s=_CONNECT_TIMEOUT_S)
        not_reached.pop(self.host.name, None)
        if reply.status != 0:
            not_reached[self.host.name] = reply.why
            raise ConnectError(reply.why)

    def disconnect(self) -> None:
        """Ask over a new connection from here on."""
        ssh.leave(self.connection)

    def run_shell_command(
        self, command: Any, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run a command; LostError when the connection was lost, or there is no answer in time."""
        good = arguments.get("_success_exit_codes") or (0,)
        reply = self._ask(command, print_input, arguments)
        lines = [OutputLine("stdout", shown(text)) for text in reply.output.splitlines()]
        lines += [OutputLine("stderr", shown(text)) for text in reply.error.splitlines()]
        if print_output:
            for said in lines:
                print(f"{self.host.print_prefix}{said.line}")
        return reply.status in good, CommandOutput(lines)

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,  # noqa: ARG002 -- pyinfra's signature
        print_output: bool = False,  # noqa: ARG002
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Write a local file on the host, with the rights that `_sudo` gives. OSError says why not."""
        write = StringCommand("cat", ">", QuoteString(remote_filename))
        # No copy of a file: a bundle is large, and where copies go may be full.
        with get_file_io(filename_or_io) as given:
            content: IO[bytes] | bytes = given
            if not isinstance(filename_or_io, (str, Path)):
                data = given.read()
                content = data.encode() if isinstance(data, str) else data
            reply = self._ask(write, print_input, arguments, stdin=content)
        if reply.status != 0:
            raise OSError(reply.why)
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,  # noqa: ARG002 -- pyinfra's signature
        print_output: bool = False,  # noqa: ARG002
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Read a text file of the host. OSError says why not."""
        read = StringCommand("cat", QuoteString(remote_filename))
        reply = self._ask(read, print_input, arguments)
        if reply.status != 0:
            raise OSError(reply.why)
        with get_file_io(filename_or_io, "wb") as target:
            target.write(reply.output.encode())
        return True

    def _ask(
        self,
        command: Any,
        print_input: bool,
        arguments: dict[str, Any],
        stdin: IO[bytes] | bytes | None = None,
    ) -> ssh.Reply:
        """Run a command with pyinfra's arguments; LostError when the host cannot be asked."""
        control = extract_control_arguments(arguments)
        line = make_unix_command_for_host(self.state, self.host, command, **arguments)
        if print_input:
            print(f"{self.host.print_prefix}>>> {line}")
        reply = ssh.execute(
            self.connection,
            ssh.framed(line.get_raw_value()),
            stdin=_lines(control.get("_stdin")) if stdin is None else stdin,
            timeout_s=control.get("_timeout"),
        )
        if reply.status is None:
            raise LostError(reply.why)
        return reply


def _lines(given: Any) -> str:
    """What pyinfra was given for standard input, as text that ends with a line's end."""
    if given is None:
        return ""
    if hasattr(given, "read"):
        given = given.read()
    parts = given if isinstance(given, (list, tuple)) else [given]
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in parts)


def insist_on_a_fleet() -> None:
    """PyinfraError when pyinfra is about to run a deploy file of ours on no fleet.

    It takes an inventory that does not exist for one without hosts, and succeeds. It loads its connectors
    whatever the inventory is, once that is read, so this module asks.
    """
    context = click.get_current_context(silent=True)
    given = dict(context.params) if context is not None else {}
    if not command_line.is_ours(given) or is_loaded():
        return
    wanted = Path(str(given.get("inventory")))
    plain = wanted.with_suffix(".yml")
    if wanted.is_file():
        why = f"{wanted} names no fleet; pyinfra takes the .py beside an inventory, as inventory/staging.py"
    elif plain.is_file():
        why = f"{plain} has no {wanted.name} beside it, which pyinfra reads; copy inventory/staging.py there"
    else:
        there = ", ".join(sorted(path.stem for path in (PROJECT / "inventory").glob("*.py")))
        why = f"{wanted} does not exist; in inventory/ there are {there}"
    raise PyinfraError(f"{why}. Nothing was changed")


insist_on_a_fleet()
