"""Listening sockets from one process to the next, by way of what keeps them as systemd does."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no systemd on Windows")

ANYWHERE = "0.0.0.0"  # noqa: S104 -- the test's own port
# Takes the descriptors that it inherits for those of systemd, listens, says at what, and stays.
SERVICE = """
import os, sys
passed = sys.argv[3].split(",") if sys.argv[3] else []
kept = [os.dup2(int(number), 200 + place) for place, number in enumerate(passed)]
for place, number in enumerate(kept):
    os.dup2(number, 3 + place)
os.environ.update(LISTEN_FDS=str(len(passed)), LISTEN_PID=str(os.getpid()))
from mt5crs.service.held import HeldSockets
held = HeldSockets()
listening = held.tcp(sys.argv[1], int(sys.argv[2]))
held.drop_unclaimed()
print(listening.getsockname()[0], os.fstat(listening.fileno()).st_ino, flush=True)
sys.stdin.read()
"""


class Store:
    """What systemd keeps: descriptors by name, as the notifications say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def read(self) -> None:
        """Do what was asked since; systemd does it some time later, too."""
        while True:
            try:
                message, rights, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(16))
            except BlockingIOError:
                return
            lines = dict(line.split("=", 1) for line in message.decode().splitlines())
            if "FDSTORE" in lines:
                number = array.array("i")
                number.frombytes(rights[0][2][:4])
                self.kept[lines["FDNAME"]] = number[0]
            elif "FDSTOREREMOVE" in lines:
                os.close(self.kept.pop(lines["FDNAME"]))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "notify")
    yield made
    made.read()
    for number in made.kept.values():
        os.close(number)


@contextmanager
def service(store: Store, port: int, peers: str, address: str = "127.0.0.1") -> Iterator[list[str]]:
    """A process of the service, started with everything that is kept; yields its address and its inode."""
    numbers = list(store.kept.values())
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": str(store.path),
        "HOLD_SOCKETS_FOR": peers,
        "LISTEN_FDNAMES": ":".join(store.kept),
    }
    command = [sys.executable, "-c", SERVICE, address, str(port), ",".join(map(str, numbers))]
    with subprocess.Popen(
        command, env=environment, pass_fds=numbers, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = process.stdout.readline().split()
        yield told
        process.kill()
    store.read()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_port_stays_open_from_one_process_to_the_next(store: Store, port: int) -> None:
    with service(store, port, "10.0.0.1") as first:
        assert listens(port)
    assert listens(port), "nobody serves it, but who connects is not refused"
    with service(store, port, "10.0.0.1") as second:
        assert second == first


def test_other_peers_get_a_socket_of_their_own_at_the_same_port(store: Store, port: int) -> None:
    with service(store, port, "10.0.0.1") as first:
        pass
    with service(store, port, "10.0.0.1 10.0.0.2") as second:
        assert second[1:] != first[1:]
        assert listens(port)
    assert len(store.kept) == 1
    # A generation that is taken back meets the socket of the one that failed.
    with service(store, port, "10.0.0.1") as third:
        assert third[1:] not in (first[1:], second[1:])
        assert listens(port)
    assert len(store.kept) == 1


def test_another_address_at_the_same_port(store: Store, port: int) -> None:
    with service(store, port, "10.0.0.1"):
        pass
    with service(store, port, "10.0.0.1", ANYWHERE) as everywhere:
        assert everywhere[0] == ANYWHERE
        assert listens(port)
    with service(store, port, "10.0.0.1") as here:
        assert here[0] == "127.0.0.1"
