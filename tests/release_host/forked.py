"""Runs of the release tool by a process that forks for them (zygote.py)."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

KILLED = -9
_ZYGOTE = Path(__file__).with_name("zygote.py")


@cache
def _zygote(python: str, sources: str, _process: int) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """One that belongs to this process and ends with it, and the way to ask it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [python, "-S", str(_ZYGOTE), str(its.fileno())],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": sources},
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return ours, process


def run(
    python: str,
    sources: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    text: str,
    limit_s: float,
) -> tuple[int, str, str]:
    """Exit status (KILLED: it had none) and both outputs of a run with this text as its input."""
    asked = json.dumps({"words": list(words), "environment": dict(environment)}).encode()
    ends, answers = os.pipe()
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryFile() as told,
    ):
        try:
            given.write(text.encode())
            given.seek(0)
            streams = [given.fileno(), said.fileno(), told.fileno()]
            zygote, _ = _zygote(python, sources, os.getpid())
            socket.send_fds(zygote, [asked], [*streams, answers])
        finally:
            os.close(answers)
        try:
            if not select.select([ends], [], [], limit_s)[0]:
                raise TimeoutError(f"{words} has not ended within {limit_s:g} s")
            status = os.read(ends, 1)
        finally:
            os.close(ends)
        said.seek(0)
        told.seek(0)
        return (status[0] if status else KILLED), said.read().decode(), told.read().decode()
