"""A process that has the release tool imported and forks for each run: what that costs is the run itself.

`FakeHost.run` starts it with the interpreter of a run. A message brings the words, the variables and four
descriptors; on the last one comes the exit status, or its end alone if the run was killed.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import traceback

import mt5crs_release
from mt5crs_release.cli.run import main

_MOST = 1 << 16


def _imports() -> None:
    """What a run imports when it comes to it."""
    for module in pkgutil.walk_packages(mt5crs_release.__path__, "mt5crs_release."):
        if "windows" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _run(message: bytes, descriptors: list[int]) -> None:
    asked = json.loads(message)
    *streams, answer = descriptors
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["mt5crs-release", *asked["words"]]
    try:
        status = main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(answer, bytes([status]))


def serve(asking: socket.socket) -> None:
    """Fork for each message, until whoever started this is gone."""
    _imports()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        message, descriptors, _, _ = socket.recv_fds(asking, _MOST, 4, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asking.close()
            try:
                _run(message, descriptors)
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
