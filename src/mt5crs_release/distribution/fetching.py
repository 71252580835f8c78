"""Fetches bundles from the Hub's release store, going on where it was cut; the Hub is not trusted.

What came counts only when its SHA-256 is the one that the deployment named; what is in it is checked by
`stage`, as for a bundle that was uploaded.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mt5crs_release.distribution.partial import PART, Part, Wanted, digest_of, require_room, wanted
from mt5crs_release.distribution.release_store import ReleaseStore
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.storage import store
from mt5crs_release.storage.lock import Lock
from mt5crs_release.storage.paths import TEMPORARY, Host

_CONNECT_S = 5.0
_BEGIN_S = 15.0
"""From the connection to the end of the answer's headers."""
_SILENCE_S = 10.0
_WINDOW_S = 10.0
"""Over so long the Hub has to keep the least rate."""
_TRIES = 3
_OLD_PART_S = 86400.0
_BLOCK = 1 << 18
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: the one certificate is given, and a host's clock may be wrong yet."""
_DIRECT = "the deployment uploads the bundle directly instead"


class _CutError(OSError):
    """The transfer ended before the file did, after something had come."""


def fetch(host: Host, document: Mapping[str, Any], *, wait_s: float) -> dict[str, Any]:
    """Bring the files that ``document`` lists to the directory of bundles.

    :raises RefusedError: the request is no good
    :raises BusyError: another run fetches
    :raises FailedError: the Hub does not answer, is too slow, sends something else, or the disk is full; what
        came so far stays for the next time
    """
    files = wanted(document, named=True)
    source = _Source(document)
    store.ensure_directory(host.bundles)
    done = []
    with Lock(host.bundles / ".fetch.lock", "fetch", wait_s):
        _remove_old_parts(host.bundles)
        for want in files:
            done.append({"name": want.name, **_bring(host, want, source)})
    return {
        "changed": any(entry["from"] != "here" for entry in done),
        "files": done,
        "bytes": sum(int(entry["bytes"]) for entry in done),
    }


def _bring(host: Host, want: Wanted, source: _Source) -> dict[str, Any]:
    target = host.bundles / want.name
    if digest_of(target) == want.sha256:
        return {"bytes": 0, "resumed_at": 0, "from": "here"}
    own = ReleaseStore(host).path(want)
    if digest_of(own) == want.sha256:
        _link(own, target)
        return {"bytes": 0, "resumed_at": 0, "from": "own store"}
    with Part(host.bundles, want) as part:
        began = part.held
        require_room(host.bundles, want.size - began)
        _receive(part, source)
        part.publish(target)
    return {"bytes": want.size - began, "resumed_at": began, "from": "hub"}


def _receive(part: Part, source: _Source) -> None:
    tried = 0
    while part.held < part.want.size:
        tried += 1
        try:
            source.read_into(part)
        except _CutError as error:
            if tried >= _TRIES:
                raise FailedError(
                    f"the Hub's store was cut off {tried} times, last after {part.held} of "
                    f"{part.want.size} bytes: {error}",
                    remedy=f"look at the Hub and the way to it; {_DIRECT}",
                ) from None


class _Source:
    """Where the deployment says that the store is, and how it is known."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.address, self.port = document.get("address"), document.get("port")
        self.token, certificate = document.get("token"), document.get("certificate")
        least, within_s = document.get("least_bytes_s", 0), document.get("within_s")
        words = all(isinstance(text, str) and text for text in (self.address, self.token, certificate))
        numbers = type(self.port) is int and isinstance(least, (int, float)) and least >= 0
        if not words or not numbers or not isinstance(within_s, (int, float)):
            raise RefusedError(
                "the request does not say where the store is, or how it is known",
                remedy="send address, port, certificate, token and within_s, as the deployment does",
            )
        self.least_bytes_s, self.until = float(least), time.monotonic() + float(within_s)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Only this certificate counts, whatever name it has: it was made for this one deployment.
        self.context.check_hostname = False
        self.context.verify_flags |= _NO_CHECK_TIME
        try:
            self.context.load_verify_locations(cadata=str(certificate))
        except ssl.SSLError:
            raise RefusedError(
                "the certificate of the store cannot be read", remedy="send it as PEM, as the Hub told it"
            ) from None

    def read_into(self, part: Part) -> None:
        """Add what is missing of the file.

        :raises _CutError: it ended too early
        :raises FailedError: there is no connection, it is too slow, or it is not what was asked for
        """
        with self._answer(part) as answer:
            wanted_range = f"bytes {part.held}-{part.want.size - 1}/{part.want.size}"
            told = answer.getheader("Content-Range", "")
            if answer.status != 206 or told != wanted_range:
                what = f"{answer.status} {told}".strip()
                raise FailedError(
                    f"the Hub's store answers {what!r}, wanted was 206 {wanted_range!r}",
                    remedy=f"run the deployment again; {_DIRECT}",
                )
            window, came = time.monotonic(), 0
            while part.held < part.want.size:
                try:
                    block = answer.read1(_BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    raise _CutError(_reason(error)) from None
                if not block:
                    raise _CutError("it closed the connection")
                part.append(block)
                came += len(block)
                now = time.monotonic()
                if now > self.until or (now - window > _WINDOW_S and self._slow(came, now - window)):
                    raise FailedError(
                        f"the Hub's store is too slow: {part.held} of {part.want.size} bytes came",
                        remedy=f"look at the load of the Hub and fleet_store_total_mb_s; {_DIRECT}",
                    )
                if now - window > _WINDOW_S:
                    window, came = now, 0

    def _slow(self, came: int, seconds: float) -> bool:
        return came / seconds < self.least_bytes_s

    @contextmanager
    def _answer(self, part: Part) -> Iterator[http.client.HTTPResponse]:
        try:
            raw = socket.create_connection((str(self.address), self.port), timeout=_CONNECT_S)
        except OSError as error:
            raise self._unreached(error) from None
        raw.settimeout(_SILENCE_S)
        with self.context.wrap_socket(raw, do_handshake_on_connect=False) as secured:
            # Each piece that comes resets the time-out of the socket, so the beginning has one as a whole.
            ending = threading.Timer(_BEGIN_S, _shut, [secured])
            ending.daemon = True
            ending.start()
            try:
                secured.do_handshake()
                connection = http.client.HTTPConnection(str(self.address), self.port)
                connection.sock = secured
                headers = {"Authorization": f"Bearer {self.token}", "Range": f"bytes={part.held}-"}
                connection.request("GET", f"/{part.want.sha256}", headers=headers)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._unreached(error) from None
            finally:
                ending.cancel()
            with answer:
                yield answer

    def _unreached(self, error: Exception) -> FailedError:
        where = f"{self.address} port {self.port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return FailedError(
                f"who answers at {where} is not the Hub's store of this deployment: its certificate differs",
                remedy=f"see who listens there on the Hub (`ss -ltnp`); {_DIRECT}",
            )
        return FailedError(
            f"the Hub's store at {where} does not answer: {_reason(error)}",
            remedy=f"look at the Hub and its firewall (a deployment opens fleet_store_port); {_DIRECT}",
        )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _link(own: Path, target: Path) -> None:
    """On the Hub itself: the file is there, and need not be there twice."""
    temporary = target.with_name(f"{TEMPORARY}{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    os.link(own, temporary)
    temporary.replace(target)
    store.sync_directory(target.parent)


def _remove_old_parts(directory: Path) -> None:
    for path in directory.glob(f"*{PART}"):
        if path.lstat().st_mtime < time.time() - _OLD_PART_S:
            path.unlink()
