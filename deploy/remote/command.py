"""A command line on a host, over a connection that Ansible holds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from deploy.remote.ssh import framed, last_line, unframed


class Told(NamedTuple):
    """What a command answered; `unheard` says why there is no answer: it was not run at all."""

    status: int
    output: str
    errors: str
    unheard: str = ""

    @property
    def said(self) -> str:
        """Whatever there is of a reason when it failed."""
        return self.unheard or self.output or self.errors or "no answer"


def tell(
    execute: Callable[..., Mapping[str, Any]], argv: Sequence[str], stdin: str | bytes | None = None
) -> Told:
    """Run the words as they are, no shell expands them, by an action's `_low_level_execute_command`.

    There is always something on standard input, or a terminal would mix output and errors.
    """
    command = framed(shlex.join(argv) + (" </dev/null" if stdin is None else ""))
    data = stdin if isinstance(stdin, bytes) else (stdin or "\n").encode()
    answer = execute(command, in_data=data)
    output = unframed(str(answer["stdout"]).replace("\r\n", "\n"))
    status, errors = int(answer["rc"]), str(answer["stderr"])
    if output is None:
        said = last_line(errors) or last_line(str(answer["stdout"])) or "nothing"
        why = f"the user's shell there did not run the command; it said: {said}"
        return Told(status or 1, "", errors, why)
    return Told(status, output, errors)
