"""A file goes to a host without a copy of it on this machine, whose /tmp may be full."""

from __future__ import annotations

import errno
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from deploy.operations.connector import FleetConnector
from deploy.remote import ssh


class Connector(FleetConnector):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def _ask(self, *_: Any, stdin: Any = None) -> ssh.Reply:
        self.sent.append(stdin if isinstance(stdin, bytes) else stdin.read())
        return ssh.Reply(0, "", "")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, no_room)


@pytest.mark.usefixtures("full")
def test_no_temporary_file_is_needed(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar"
    bundle.write_bytes(b"\x00code")
    connector = Connector()
    for given in (str(bundle), io.BytesIO(b"\x00code"), io.StringIO("text")):
        assert connector.put_file(given, "/opt/x")
    assert connector.sent == [b"\x00code", b"\x00code", b"text"]
