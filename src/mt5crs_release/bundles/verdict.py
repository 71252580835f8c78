"""The verdict of a review: read and checked by the host itself before it stages a bundle.

It is a DSSE envelope around an in-toto statement with a SLSA verification summary, signed by
``ssh-keygen -Y`` with a key that signs verdicts and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mt5crs_release.bundles.bundle import verify_signature
from mt5crs_release.errors import RefusedError

NAMESPACE = "mt5crs-review"
PRINCIPAL = "mt5crs-review"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
SUBJECT = "mt5crs-bundle-content"
LOCAL = "MT5CRS_REVIEW_LOCAL"
EXTERNAL = "MT5CRS_REVIEW_EXTERNAL"
"""What a verdict vouches for (``verifiedLevels``): the rules here, and a live reviewer elsewhere."""
DETAILS = "mt5crs"
"""Our own field of the summary: threshold, score, mode."""
SUFFIX = ".verdict.json"
"""A verdict lies beside its bundle, with this after the bundle's name."""

_NOTHING = "nothing was changed"


def signed_bytes(payload: bytes) -> bytes:
    """Return what is signed: DSSE's encoding of type and payload before each other."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def admit(
    review: Mapping[str, Any], content: str, allowed_signers: Path, now: datetime, extra: str | None = None
) -> dict[str, Any]:
    """Return why the code may be staged: its verdict, or an override by name, reason and expiry.

    :param review: ``review`` of the specification: threshold, external, verdict (base64), override, and
        ``extra_verdict`` where there is a second bundle
    :param extra: content of that one; it needs a verdict of its own
    :raises RefusedError: neither is there and good
    """
    try:
        said = _verdict(review, review["verdict"], content, allowed_signers, "this bundle")
        if extra is not None:
            of = "the strategy's bundle"
            said["extra"] = _verdict(review, review["extra_verdict"], extra, allowed_signers, of)
        return said
    except RefusedError as refused:
        override = review["override"]
        if override is None:
            raise
        until = _time(override["until"])
        if until is None or now >= until:
            state = "is no time in UTC such as 2026-01-31T18:00:00Z" if until is None else "is over"
            raise RefusedError(
                f"{refused.message}; the override by {override['by']} until {override['until']} {state}",
                remedy=f"review the bundle (`mt5crs review run --bundle FILE`); {_NOTHING}",
            ) from None
        return {"override": dict(override), "instead_of": refused.message}


def _verdict(
    review: Mapping[str, Any], given: str, content: str, allowed_signers: Path, of: str
) -> dict[str, Any]:
    if not given:
        raise _refused(f"there is no verdict of a review for {of}")
    statement = read(given, allowed_signers)
    predicate = statement["predicate"]
    subjects = [each["digest"].get("sha256") for each in statement["subject"] if each.get("name") == SUBJECT]
    if subjects != [content]:
        raise _refused(f"the verdict is for another bundle, not for {of} (content {content[:12]})")
    if predicate["verificationResult"] != "PASSED":
        raise _refused(f"the verdict of the review is {predicate['verificationResult']}")
    wanted = [LOCAL, EXTERNAL] if review["external"] else [LOCAL]
    missing = [level for level in wanted if level not in predicate["verifiedLevels"]]
    if missing:
        raise _refused(f"the verdict does not vouch for {' and '.join(missing)}")
    details = predicate[DETAILS]
    if details["threshold"] < review["threshold"]:
        raise _refused(
            f"the verdict was reached with the threshold {details['threshold']}, "
            f"this environment wants {review['threshold']}"
        )
    return {
        "verifier": str(predicate["verifier"]["id"]),
        "time": str(predicate["timeVerified"]),
        "score": details["score"],
        "levels": list(predicate["verifiedLevels"]),
    }


def read(envelope: str, allowed_signers: Path) -> dict[str, Any]:
    """Return the statement in ``envelope`` (base64 of the file), once its signature is good.

    :raises RefusedError: it is no such envelope, not signed by an allowed key, or no such statement
    """
    try:
        document = json.loads(base64.b64decode(envelope, validate=True))
        payload = base64.b64decode(document["payload"], validate=True)
        (signature,) = (base64.b64decode(each["sig"], validate=True) for each in document["signatures"])
        kind = document["payloadType"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        raise _refused("the verdict is no envelope with one signature") from None
    if kind != PAYLOAD_TYPE:
        raise _refused(f"the verdict is no {PAYLOAD_TYPE}")
    verify_signature(
        signed_bytes(payload),
        signature,
        allowed_signers,
        "the verdict",
        principal=PRINCIPAL,
        namespace=NAMESPACE,
        setting="baseline_review_signers",
    )
    try:
        statement = json.loads(payload)
        predicate = statement["predicate"]
        good = (
            statement["_type"] == STATEMENT
            and statement["predicateType"] == SUMMARY
            and all(isinstance(each["digest"], dict) for each in statement["subject"])
            and isinstance(predicate["verificationResult"], str)
            and isinstance(predicate["verifiedLevels"], list)
            and isinstance(predicate["verifier"]["id"], str)
            and isinstance(predicate["timeVerified"], str)
            and isinstance(predicate[DETAILS]["threshold"], int)
            and isinstance(predicate[DETAILS]["score"], int)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise _refused("the verdict is no in-toto statement with a verification summary")
    return dict(statement)


def _time(text: str) -> datetime | None:
    """A time in UTC; nothing else is one, so that nobody's time zone decides."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _refused(message: str) -> RefusedError:
    return RefusedError(
        message,
        remedy="review the bundle with `mt5crs review run --bundle FILE`, or set fleet_review_override with "
        f"name, reason and expiry; {_NOTHING}",
    )
