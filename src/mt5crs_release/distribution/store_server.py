"""Serves bundles of the store to the fleet's hosts by HTTPS, for as long as one deployment brings them.

There is no service for it: the deployment starts this on the Hub over SSH, and it ends with that connection.
Key, certificate and token are made for this one time. The certificate and the token reach the hosts by
SSH, so a host knows exactly whom it talks to, and nobody else can read. The files are opened first; then the
process gives up root for a user who owns nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import secrets
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mt5crs_release.distribution.pacing import Pace, block_size
from mt5crs_release.distribution.partial import wanted
from mt5crs_release.distribution.release_store import ReleaseStore
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.storage.journal import timestamp
from mt5crs_release.storage.paths import Host

assert sys.platform != "win32"  # noqa: S101 -- the Hub runs Linux; for the type checker, too

MB = 1000 * 1000
_SILENCE_S = 20.0
"""A peer that takes nothing for so long is let go."""
_MOST_CONNECTIONS, _MOST_OF_ONE = 256, 4
_RANGE = re.compile(r"bytes=([0-9]{1,15})-\Z")
_NOBODY = 65534
_ACCESS_LOG_BYTES = 1 << 20


def serve(host: Host, document: Mapping[str, Any], said: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Serve what ``document`` lists until standard input ends; ``said`` gets where, certificate and token.

    :raises RefusedError: a file is not in the store, or the request is no good
    :raises FailedError: no certificate can be made, or the port is taken
    """
    store = ReleaseStore(host)
    files = store.opened(wanted(document, named=False))
    address, port = str(document.get("address") or ""), document.get("port")
    rates = [document.get(name) for name in ("host_mb_s", "total_mb_s", "within_s")]
    if type(port) is not int or not all(isinstance(rate, (int, float)) and rate > 0 for rate in rates):
        raise RefusedError(
            "the request names no port, or a rate or time that is not above 0",
            remedy="send what the deployment sends; see `mt5crs-release store --help`",
        )
    host_mb_s, total_mb_s, within_s = (float(rate or 0) for rate in rates)
    certificate, context = _own_certificate()
    token = secrets.token_urlsafe(32)
    access = _access_log(store.directory)
    try:
        server = StoreServer((address, port), context, token, files, host_mb_s * MB, total_mb_s * MB, access)
    except OSError as error:
        raise FailedError(
            f"port {port} of {address} cannot be listened on: {error.strerror or error}",
            remedy="choose another fleet_store_port, or see who listens there (`ss -ltnp`)",
        ) from None
    _give_up_root()
    began = time.monotonic()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said({"port": server.server_address[1], "certificate": certificate, "token": token})
    _until_input_ends(within_s)
    server.shutdown()
    server.server_close()
    return {"changed": False, "sent": dict(server.sent), "seconds": round(time.monotonic() - began, 3)}


class StoreServer(ThreadingHTTPServer):
    """Accepts and counts; each connection has a thread of its own, in which also TLS begins."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        token: str,
        files: Mapping[str, tuple[int, int]],
        host_bytes_s: float,
        total_bytes_s: float,
        access: int | None = None,
    ) -> None:
        """``files``: descriptor and size by SHA-256. ``access``: where requests are noted, a line each."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.context, self.token, self.files = context, token, files
        self.total = Pace(total_bytes_s)
        self.block = block_size(min(host_bytes_s, total_bytes_s))
        self.sent: dict[str, int] = {}
        self._host_bytes_s, self._access = host_bytes_s, access
        self._paces: dict[str, Pace] = {}
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 -- socketserver's
        """Tell whether a peer may have one more connection."""
        with self._lock:
            return (
                sum(self._open.values()) < _MOST_CONNECTIONS
                and self._open.get(client_address[0], 0) < _MOST_OF_ONE
            )

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin TLS and answer, in the connection's own thread."""
        peer = client_address[0]
        with self._lock:
            self._open[peer] = self._open.get(peer, 0) + 1
        try:
            request.settimeout(_SILENCE_S)
            with self.context.wrap_socket(request, server_side=True) as secured:
                _Handler(secured, client_address, self)
        except OSError:
            pass  # a peer that speaks no TLS, or has gone
        finally:
            with self._lock:
                self._open[peer] -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whatever goes wrong with one peer is no concern of the others; it fetches again, or tells."""

    def pace(self, peer: str, count: int) -> None:
        """Wait until ``count`` bytes may be sent to ``peer``."""
        with self._lock:
            own = self._paces.setdefault(peer, Pace(self._host_bytes_s))
        wait = max(own.take(count), self.total.take(count))
        if wait > 0:
            time.sleep(wait)

    def note(self, peer: str, what: str, status: int, count: int) -> None:
        """Record a request: who, what, how it was answered, how many bytes went."""
        with self._lock:
            self.sent[peer] = self.sent.get(peer, 0) + count
        if self._access is not None:
            line = {"time": timestamp(), "peer": peer, "file": what, "status": status, "bytes": count}
            with contextlib.suppress(OSError):  # a full disk does not stop a deployment
                os.write(self._access, json.dumps(line).encode() + b"\n")


class _Handler(BaseHTTPRequestHandler):
    """GET /<SHA-256> with the token; `Range: bytes=N-` goes on from there."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mt5crs-store", ""
    timeout = _SILENCE_S
    server: StoreServer

    def do_GET(self) -> None:
        """Answer."""
        peer = self.client_address[0]
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            return self._refuse(401, peer, "")
        digest = self.path.removeprefix("/")
        if digest not in self.server.files:
            return self._refuse(404, peer, "")
        descriptor, size = self.server.files[digest]
        wanted_range = _RANGE.match(self.headers.get("Range", "bytes=0-"))
        begin = int(wanted_range[1]) if wanted_range else size
        if begin >= size:
            return self._refuse(416, peer, digest)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - begin))
        self.end_headers()
        sent = 0
        try:
            while block := os.pread(descriptor, self.server.block, begin + sent):
                self.server.pace(peer, len(block))
                self.wfile.write(block)
                sent += len(block)
        finally:
            self.server.note(peer, digest, 206, sent)

    def _refuse(self, status: int, peer: str, what: str) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.note(peer, what, status, 0)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: `note` keeps what is worth it."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return TLS 1.3 with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    return context


def _own_certificate() -> tuple[str, ssl.SSLContext]:
    """Return a new certificate, and TLS with it; its key is in this process only when this returns."""
    with tempfile.TemporaryDirectory(prefix="mt5crs-store-") as directory:
        certificate, key = Path(directory) / "certificate.pem", Path(directory) / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-nodes", "-sha256", "-days", "2", "-subj", "/CN=mt5crs-store"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            done = subprocess.CompletedProcess(command, 1, "", str(error))
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise FailedError(
                f"no certificate can be made for the store: {last}",
                remedy="install the package openssl on the Hub",
            )
        return certificate.read_text(), server_context(certificate, key)


def _access_log(directory: Path) -> int | None:
    """Open the file of requests, its former part beside it; ``None`` when it cannot be."""
    path = directory / "access.jsonl"
    try:
        if path.is_file() and path.stat().st_size > _ACCESS_LOG_BYTES:
            path.replace(directory / "access.1.jsonl")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None


def _give_up_root() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _until_input_ends(within_s: float) -> None:
    end = time.monotonic() + within_s
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([0], [], [], left)
        if ready and not os.read(0, 4096):
            return
