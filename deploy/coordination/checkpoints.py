"""Signed checkpoints of the audit log: the head, signed with a release key by `ssh-keygen -Y`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.controller.programs import MissingProgramError, require
from mt5crs_release.records.audit_chain import Head, digest, line_of, parse

CHECKPOINT = "checkpoint"
NAMESPACE = "mt5crs-audit-log"
_PRINCIPAL = "release"
_TIMEOUT_S = 30


class CheckpointError(RuntimeError):
    """A signature could not be made or looked at; the text names cause and remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A signed checkpoint, looked at: record `n` signs the head `of`; why it is not good, or not known."""

    n: int
    of: int
    wrong: str = ""
    unknown: str = ""

    @property
    def good(self) -> bool:
        """Whether a key that counts now has signed what is there."""
        return not (self.wrong or self.unknown)


def signed(head: Head, key: Path) -> dict[str, Any]:
    """What the record of a checkpoint tells. CheckpointError when ssh-keygen fails."""
    of = {"log": head.log, "n": head.n, "hash": head.hash}
    signature = _ssh_keygen(["-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE], line_of(of))
    return {"of": of, "signature": signature.decode()}


def judged(content: bytes, signers: Sequence[str] | None) -> list[Checkpoint]:
    """Every checkpoint of a log. signers: release keys that count now; None: they are not known."""
    lines = content.split(b"\n")
    hashes = [digest(line) for line in lines]
    found = []
    for n, line in enumerate(lines, start=1):
        record = parse(line)
        if record is None or record.get("what") != CHECKPOINT:
            continue
        of = record.get("of")
        if not isinstance(of, dict) or not isinstance(of.get("n"), int):
            found.append(Checkpoint(n, 0, "is a checkpoint that says of nothing"))
        elif not 1 <= of["n"] < n or hashes[of["n"] - 1] != of.get("hash"):
            found.append(Checkpoint(n, of["n"], f"signs a record {of['n']} that is not the one here"))
        else:
            found.append(_judged(n, of, str(record.get("signature")), signers))
    return found


def _judged(n: int, of: dict[str, Any], signature: str, signers: Sequence[str] | None) -> Checkpoint:
    if signers is None:
        return Checkpoint(n, of["n"], unknown="no inventory says whose signature counts")
    with tempfile.TemporaryDirectory(prefix="mt5crs-checkpoint-") as directory:
        listed, given = Path(directory) / "signers", Path(directory) / "signature"
        lines = [f'{_PRINCIPAL} namespaces="{NAMESPACE}" {key}\n' for key in signers]
        listed.write_text("".join(lines), encoding="utf-8")
        given.write_text(signature, encoding="utf-8")
        common = ["-n", NAMESPACE, "-s", str(given)]
        try:
            _ssh_keygen(["-Y", "verify", "-f", str(listed), "-I", _PRINCIPAL, *common], line_of(of))
            return Checkpoint(n, of["n"])
        except CheckpointError:
            pass
        try:
            _ssh_keygen(["-Y", "check-novalidate", *common], line_of(of))
        except CheckpointError as error:
            return Checkpoint(n, of["n"], f"has no signature of what it signs ({error})")
    return Checkpoint(n, of["n"], unknown="its key is no release key that counts now")


def _ssh_keygen(arguments: Sequence[str], content: bytes) -> bytes:
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    try:
        answer = subprocess.run(
            [require("ssh-keygen"), *arguments],
            input=content,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except MissingProgramError as error:
        raise CheckpointError(str(error)) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckpointError(f"ssh-keygen did not answer: {error}; try again") from None
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).decode(errors="replace").strip().splitlines()
        raise CheckpointError(said[-1] if said else "ssh-keygen gives no reason")
    return answer.stdout
