"""Signing a bundle with an SSH key; hosts verify with ``ssh-keygen -Y verify``. Ed25519 signatures repeat."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploy.controller.programs import require
from mt5crs_release.bundles.bundle import NAMESPACE, PRINCIPAL

KEY_VARIABLE = "MT5CRS_SIGNING_KEY"
LOCAL_KEY = Path(".keys/release_ed25519")


class SigningError(Exception):
    """The bundle could not be signed; the message names cause and remedy."""


def signing_key(root: Path) -> Path:
    """Return the private key: ``$MT5CRS_SIGNING_KEY``, else a local one that is made on first use.

    :raises SigningError: the named key does not exist, or none can be made
    """
    named = os.environ.get(KEY_VARIABLE)
    if named:
        key = Path(named)
        if not key.is_file():
            raise SigningError(
                f"{KEY_VARIABLE} names {key}, which is no file. "
                "Put the release key there, or unset the variable to sign with a local key."
            )
        return key
    key = root / LOCAL_KEY
    if not key.is_file():
        key.parent.mkdir(mode=0o700, exist_ok=True)
        _run(["-q", "-t", "ed25519", "-N", "", "-C", PRINCIPAL, "-f", str(key)])
    return key


def public_key(key: Path) -> str:
    """Return the public half of ``key`` as one line ``type base64``, for ``baseline_release_signers``.

    :raises SigningError: the key cannot be read
    """
    return " ".join(_run(["-y", "-f", str(key)]).decode().split()[:2])


def allowed_signers_line(public: str, namespace: str = NAMESPACE) -> str:
    """Return the line of an allowed-signers file that trusts ``public`` for ``namespace`` (bundles) only."""
    return f'{PRINCIPAL} namespaces="{namespace}" {public}\n'


def sign(content: bytes, key: Path, namespace: str = NAMESPACE) -> bytes:
    """Return the armoured signature of ``content``, good for ``namespace`` only.

    :raises SigningError: ssh-keygen failed
    """
    return _run(["-q", "-Y", "sign", "-f", str(key), "-n", namespace], content)


def _run(arguments: list[str], content: bytes | None = None) -> bytes:
    command = [require("ssh-keygen"), *arguments]
    try:
        answer = subprocess.run(command, input=content, capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        raise SigningError(
            "ssh-keygen asked for something (a pass phrase?). Use a key it can read alone."
        ) from None
    if answer.returncode != 0:
        said = answer.stderr.decode(errors="replace").strip()
        raise SigningError(f"ssh-keygen failed: {said}. Check the key and its mode (0600).")
    return answer.stdout
