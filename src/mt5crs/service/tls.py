"""TLS on an end point: a certificate of the host's own, and what a connection waits for."""

from __future__ import annotations

import selectors
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

_OPENSSL = "/usr/bin/openssl"
_DAYS = 3650
_TIMEOUT_S = 20.0


class TlsError(OSError):
    """There is no certificate to be had; the text says why and what to do."""


class Tls:
    """Makes connections of one end point secret. TLS 1.2 or newer."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises TlsError when the two cannot be used."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(
                f"{certificate} and {key} cannot be used ({error}): put a certificate and its key there, or "
                "remove both and restart the service, which makes its own"
            ) from error

    def wrapped(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection with TLS, before its handshake; the plain one is no more."""
        return self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )

    @staticmethod
    def awaited(error: OSError) -> int | None:
        """What a connection has to wait for before it can go on (of `selectors`); None: it is an error."""
        if isinstance(error, ssl.SSLWantReadError):
            return selectors.EVENT_READ
        return selectors.EVENT_WRITE if isinstance(error, ssl.SSLWantWriteError) else None


def ends(certificate: Path) -> float:
    """When a certificate ends, in Unix time. Raises TlsError when it cannot be read."""
    command = [_OPENSSL, "x509", "-noout", "-enddate", "-in", str(certificate)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        return float(ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter=")))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise TlsError(f"when {certificate} ends is not known ({error})") from error


def own_certificate(directory: Path, address: str) -> tuple[Path, Path]:
    """Certificate and key in this directory, made if there are none: for ten years, signed by themselves.

    Who connects compares the fingerprint once. Raises TlsError.
    """
    certificate, key = directory / "tls.crt", directory / "tls.key"
    if certificate.is_file() and key.is_file():
        return certificate, key
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix=".tls-") as made:
            command = [
                *(_OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-sha256", "-days", str(_DAYS), "-subj", "/CN=mt5crs-hub"),
                *("-addext", f"subjectAltName=DNS:localhost,IP:{address},IP:127.0.0.1"),
                *("-keyout", f"{made}/tls.key", "-out", f"{made}/tls.crt"),
            ]
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
            if done.returncode:
                last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                raise TlsError(f"openssl made no certificate: {''.join(last) or done.returncode}")
            Path(made, "tls.key").chmod(0o600)
            # The key first: a certificate without one is replaced at the next start.
            Path(made, "tls.key").replace(key)
            Path(made, "tls.crt").replace(certificate)
    except (OSError, subprocess.SubprocessError) as error:
        if isinstance(error, TlsError):
            raise
        raise TlsError(
            f"no certificate could be made in {directory} ({error}): install openssl, or put tls.crt and "
            "tls.key there"
        ) from error
    return certificate, key
