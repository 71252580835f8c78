"""The signed record that puts a magic number under a phase: `ssh-keygen -Y`, as bundles are signed."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mt5crs.protocol.fields import Name
from mt5crs.protocol.plain_json import PlainJsonError, read_object

NAMESPACE = "mt5crs-phase"
_TIMEOUT_S = 20
_SIGNER = re.compile(
    r"(ssh-ed25519|sk-ssh-ed25519@openssh\.com|ecdsa-sha2-nistp256) [A-Za-z0-9+/]+=*( [A-Za-z0-9@._+ -]*)?"
)
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class RecordError(ValueError):
    """A record cannot be used; the text says why and what to do."""


class UncheckedError(RecordError):
    """The signature could not be looked at: nothing is known of it."""


class PhaseRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed. `by` names the key that signed; `override`: promoted without evidence, on purpose."""

    format: Annotated[int, Meta(ge=1, le=1)] = 1
    magic: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    account: str
    profile: str
    serial: Annotated[int, Meta(ge=1, le=2**53)]
    issued_msc: Annotated[int, Meta(ge=0, le=2**53)]
    expires_msc: Annotated[int, Meta(ge=0, le=2**53)]
    by: Name
    reason: Annotated[str, Meta(min_length=3, max_length=256)]
    override: bool


def text_of(record: PhaseRecord) -> str:
    """The text that is signed."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1).decode()


def read(text: str) -> PhaseRecord:
    """A record from its text. Raises RecordError."""
    try:
        return msgspec.convert(read_object(text.encode()), PhaseRecord)
    except (PlainJsonError, msgspec.ValidationError) as error:
        raise RecordError(
            f"the record cannot be read: {error}; make a new one with `mt5crs phase promote`"
        ) from None


def signer_problem(name: str, key: str) -> str | None:
    """Why a signer's public key cannot be used; None if it can."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name of a signer; use letters, digits and . _ : -"
    if _SIGNER.fullmatch(key):
        return None
    remedy = "print it with `ssh-keygen -y -f <private key>`"
    return (
        f"the key of {name} is no OpenSSH public key of one line, with a comment of plain letters; {remedy}"
    )


def sign(text: str, key: Path) -> str:
    """The armoured signature of a text by a private key (a file, or a public key whose agent is running).

    Raises RecordError.
    """
    return _ssh_keygen(
        ["-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE], text, "the record was not signed"
    )


def verify(text: str, signature: str, by: str, signers: Mapping[str, str]) -> None:
    """Raise RecordError unless the text was signed with the key of `by`, for phases."""
    if by not in signers:
        known = ", ".join(sorted(signers)) or "nobody"
        raise RecordError(f"{by} may not sign phases here ({known} may); add the key to fleet_phase_signers")
    with tempfile.TemporaryDirectory(prefix="mt5crs-phase-") as directory:
        listed, signed = Path(directory) / "signers", Path(directory) / "signature"
        listed.write_text(f'{by} namespaces="{NAMESPACE}" {signers[by]}\n', encoding="utf-8")
        signed.write_text(signature, encoding="utf-8")
        _ssh_keygen(
            ["-Y", "verify", "-f", str(listed), "-I", by, "-n", NAMESPACE, "-s", str(signed)],
            text,
            f"the signature is not shown to be that of {by}",
        )


def _ssh_keygen(arguments: list[str], text: str, failed: str) -> str:
    # without an agent's question to a person: it would wait for an answer that never comes
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    try:
        answer = subprocess.run(
            ["ssh-keygen", *arguments],
            input=text.encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except FileNotFoundError:
        raise UncheckedError(f"{failed}: ssh-keygen is not installed; install openssh-client") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UncheckedError(f"{failed}: ssh-keygen did not answer ({error}); try again") from None
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).decode(errors="replace").strip().splitlines()
        raise RecordError(f"{failed}: {said[-1] if said else 'ssh-keygen gives no reason'}")
    return answer.stdout.decode(errors="replace")
