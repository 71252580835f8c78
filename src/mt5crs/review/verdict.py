"""The verdict: an in-toto statement about a bundle, signed with a key that signs nothing else."""

from __future__ import annotations

import base64
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import msgspec

from mt5crs.review.model import ReviewError
from mt5crs.review.record import Record, digest, whole
from mt5crs.review.tree import run
from mt5crs_release.bundles import verdict as reading
from mt5crs_release.bundles.bundle import Bundle
from mt5crs_release.errors import ReleaseError

KEY_VARIABLE: Final = "MT5CRS_REVIEW_KEY"
LOCAL_KEY: Final = Path(".keys/review_ed25519")
VERIFIER: Final = "https://mt5crs.invalid/review"


def statement(record: Record, content: str) -> dict[str, Any]:
    """What is said of the bundle with this content."""
    decision = record.decision
    subjects = [
        {"name": reading.SUBJECT, "digest": {"sha256": content}},
        {"name": "tree", "digest": {"gitTree": decision.tree}},
    ]
    return {
        "_type": reading.STATEMENT,
        "subject": subjects,
        "predicateType": reading.SUMMARY,
        "predicate": {
            "verifier": {"id": VERIFIER, "version": {"mt5crs": record.tool}},
            "timeVerified": record.began,
            "resourceUri": f"pkg:generic/mt5crs-bundle@{content}",
            "policy": {"uri": f"{VERIFIER}/policy", "digest": {"sha256": decision.policy.digest}},
            "inputAttestations": [{"uri": f"{VERIFIER}/decision", "digest": {"sha256": digest(decision)}}],
            "verificationResult": decision.result,
            "verifiedLevels": decision.levels,
            "slsaVersion": "1.0",
            reading.DETAILS: {
                "threshold": decision.policy.threshold,
                "score": decision.score.total,
                "external": decision.external,
                "mode": decision.mode,
            },
        },
    }


def signing_key(root: Path) -> Path:
    """The key of verdicts: `$MT5CRS_REVIEW_KEY`, else a local one that is made on first use.

    :raises ReviewError: the named key does not exist, or none can be made
    """
    named = os.environ.get(KEY_VARIABLE)
    key = Path(named) if named else root / LOCAL_KEY
    if key.is_file():
        return key
    if named:
        raise ReviewError(f"{KEY_VARIABLE} names {key}, which is no file; put the key of verdicts there")
    key.parent.mkdir(mode=0o700, exist_ok=True)
    _ssh_keygen(["-q", "-t", "ed25519", "-N", "", "-C", reading.PRINCIPAL, "-f", str(key)])
    return key


def write(record: Record, content: str, bundle: Path, key: Path) -> Path:
    """Sign the verdict on a bundle and put it beside the bundle; return its path.

    :raises ReviewError: ssh-keygen is missing or cannot use the key
    """
    path = bundle.with_name(bundle.name + reading.SUFFIX)
    whole(path, signed(record, content, key))
    return path


def signed(record: Record, content: str, key: Path) -> bytes:
    """The signed verdict on a bundle.

    :raises ReviewError: ssh-keygen is missing or cannot use the key
    """
    payload = msgspec.json.encode(statement(record, content), order="sorted")
    signature = _ssh_keygen(
        ["-q", "-Y", "sign", "-f", str(key), "-n", reading.NAMESPACE], reading.signed_bytes(payload)
    )
    envelope = {
        "payloadType": reading.PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    return msgspec.json.encode(envelope) + b"\n"


def verify(bundle: Path, allowed_signers: Path, *, threshold: int, external: bool) -> str:
    """Check bundle and verdict with the code that a host does it with; return one sentence.

    :raises ReviewError: a host would refuse it
    """
    path = bundle.with_name(bundle.name + reading.SUFFIX)
    beside = base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""
    wanted = {"threshold": threshold, "external": external, "verdict": beside, "override": None}
    try:
        with Bundle(bundle, allowed_signers) as opened:
            said = reading.admit(wanted, opened.content, allowed_signers, datetime.now(timezone.utc))
    except ReleaseError as error:
        raise ReviewError(f"{error.message}; {error.remedy}") from None
    levels = " and ".join(said["levels"])
    return f"{bundle.name}: PASSED on {said['time']} with the score {said['score']}, {levels}"


def _ssh_keygen(arguments: list[str], told: bytes = b"") -> bytes:
    answer = run(["ssh-keygen", *arguments], os.environ, told, within_s=30)
    if answer.returncode != 0:
        said = answer.stderr.decode(errors="replace").strip()
        raise ReviewError(f"ssh-keygen failed: {said}. Check the key of verdicts and its mode (0600)")
    return answer.stdout
