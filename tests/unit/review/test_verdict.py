"""A verdict is signed beside the bundle, and the host itself refuses what has none that is good."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from mt5crs.review import verdict
from mt5crs.review.decision import ExternalResult, Policy, decide
from mt5crs.review.local_gate import LocalResult
from mt5crs.review.record import Record
from mt5crs_release.bundles import verdict as reading
from mt5crs_release.desired.digest import generation_digest
from mt5crs_release.desired.spec import SpecError, parse_spec
from mt5crs_release.errors import RefusedError
from tests.release_host.host import FakeHost, specification

CONTENT = "ab" * 32
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
OVERRIDE = {"by": "ann", "reason": "the reviewer is down", "until": "2026-01-01T00:00:01Z"}


def record(*, mode: Any = "live", state: Any = "passed", threshold: int = 90) -> Record:
    said = ExternalResult(state=state, mode=mode)
    policy = Policy(threshold=threshold, external_required=mode == "live")
    decision = decide("t" * 40, None, {}, LocalResult(findings=[], programs=[]), said, policy)
    return Record(decision=decision, tool="1", began="2026-01-01T00:00:00Z", seconds=1.0, lines=1)


class Signed:
    """A key of verdicts, the file that trusts it, and what it signs, as a specification has it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = verdict.signing_key(directory)
        self.signers = directory / "allowed_signers"
        public = self.key.with_suffix(".pub").read_text()
        self.signers.write_text(f'{reading.PRINCIPAL} namespaces="{reading.NAMESPACE}" {public}')

    def review(self, made: Record | None = None, content: str = CONTENT, **others: Any) -> dict[str, Any]:
        path = verdict.write(made or record(), content, self.directory / "b.tar", self.key)
        text = base64.b64encode(path.read_bytes()).decode()
        return {"threshold": 90, "external": True, "override": None, "verdict": text, **others}


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("signed"))


def test_a_good_verdict_lets_its_bundle_in_and_no_other(signed: Signed) -> None:
    said = reading.admit(signed.review(), CONTENT, signed.signers, NOW)
    assert (said["score"], said["levels"]) == (100, [reading.LOCAL, reading.EXTERNAL])
    with pytest.raises(RefusedError, match="for another bundle"):
        reading.admit(signed.review(), "cd" * 32, signed.signers, NOW)


def test_a_strategys_bundle_needs_a_verdict_of_its_own(signed: Signed) -> None:
    theirs = "ef" * 32
    core, extra = signed.review(), signed.review(content=theirs)["verdict"]
    said = reading.admit({**core, "extra_verdict": extra}, CONTENT, signed.signers, NOW, theirs)
    assert said["extra"]["score"] == 100
    for given, why in (("", "no verdict of a review for the strategy's"), (core["verdict"], "for another")):
        with pytest.raises(RefusedError, match=why):
            reading.admit({**core, "extra_verdict": given}, CONTENT, signed.signers, NOW, theirs)


def tampered(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def done(review: dict[str, Any]) -> None:
        document = json.loads(base64.b64decode(review["verdict"]))
        payload = json.loads(base64.b64decode(document["payload"]))
        change(payload)
        document["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        review["verdict"] = base64.b64encode(json.dumps(document).encode()).decode()

    return done


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda review: review.update(verdict=""), "there is no verdict"),
        (lambda review: review.update(verdict="?"), "no envelope"),
        (lambda review: review.update(verdict=base64.b64encode(b"[" * 50_000).decode()), "no envelope"),
        (lambda review: review.update(threshold=91), "reached with the threshold 90"),
        (tampered(lambda payload: payload["subject"].reverse()), "signature of the verdict is not valid"),
        (tampered(lambda payload: payload["predicate"].update(x=1)), "signature of the verdict is not valid"),
    ],
)
def test_what_is_no_good_verdict_is_refused(
    change: Callable[[dict[str, Any]], None], why: str, signed: Signed
) -> None:
    review = signed.review()
    change(review)
    with pytest.raises(RefusedError, match=why):
        reading.admit(review, CONTENT, signed.signers, NOW)


def test_a_verdict_vouches_for_no_more_than_was_reviewed(signed: Signed) -> None:
    offline = signed.review(record(mode="offline", state="not_asked"))
    with pytest.raises(RefusedError, match="does not vouch for MT5CRS_REVIEW_EXTERNAL"):
        reading.admit(offline, CONTENT, signed.signers, NOW)
    assert reading.admit({**offline, "external": False}, CONTENT, signed.signers, NOW)["score"] == 100
    failed = signed.review(record(state="failed"))
    with pytest.raises(RefusedError, match="the verdict of the review is FAILED"):
        reading.admit(failed, CONTENT, signed.signers, NOW)


def test_a_key_of_bundles_signs_no_verdict(signed: Signed, tmp_path: Path) -> None:
    signers = tmp_path / "signers"
    signers.write_text(signed.signers.read_text().replace(reading.NAMESPACE, "mt5crs-bundle"))
    with pytest.raises(RefusedError, match="not valid"):
        reading.admit(signed.review(), CONTENT, signers, NOW)


def test_an_override_lets_in_until_it_is_over(signed: Signed) -> None:
    review = signed.review(override=OVERRIDE, verdict="")
    said = reading.admit(review, CONTENT, signed.signers, NOW)
    assert said == {"override": OVERRIDE, "instead_of": "there is no verdict of a review for this bundle"}
    for until, why in (("2026-01-01T00:00:00Z", "is over"), ("2026-13-01T00:00:00Z", "is no time in UTC")):
        with pytest.raises(RefusedError, match=f"the override by ann until {until} {why}"):
            reading.admit({**review, "override": {**OVERRIDE, "until": until}}, CONTENT, signed.signers, NOW)


def test_the_host_refuses_records_and_stays_the_same_generation(signed: Signed, tmp_path: Path) -> None:
    host = FakeHost.create(tmp_path / "root")
    (host.root / "etc/mt5crs").mkdir(parents=True, exist_ok=True)
    (host.root / "etc/mt5crs/allowed_signers").write_text(signed.signers.read_text())
    stage = ("stage", "gateway", "--content", CONTENT, "--dry-run")
    status, answer = host.run(*stage, spec=specification(code=True, review=signed.review(verdict="")))
    assert (status, answer["error"]["message"]) == (2, "there is no verdict of a review for this bundle")
    assert "mt5crs review run --bundle" in answer["error"]["remedy"]
    status, answer = host.run(*stage, spec=specification(code=True, review=signed.review()))
    assert (status, answer["review"]["score"]) == (0, 100)
    later = {**OVERRIDE, "until": "2999-01-01T00:00:00Z"}
    status, answer = host.run(
        *stage, spec=specification(code=True, review=signed.review(verdict="", override=later))
    )
    assert (status, answer["review"]["override"]["by"]) == (0, "ann")
    # What lets it in is no part of what it is: an override that ends makes no new generation.
    with_review = generation_digest(specification(review=signed.review()), CONTENT)
    assert with_review == generation_digest(specification(), CONTENT)


def test_a_specification_names_what_is_wrong_with_its_review() -> None:
    review = {"threshold": 101, "external": "no", "verdict": None, "override": {"by": " "}}
    with pytest.raises(SpecError) as caught:
        parse_spec(specification(review=review))
    assert len(caught.value.problems) == 6


def test_a_verdict_is_checked_by_others_with_ssh_keygen_alone(signed: Signed) -> None:
    document = json.loads(base64.b64decode(signed.review()["verdict"]))
    payload = base64.b64decode(document["payload"])
    signature = signed.directory / "sig"
    signature.write_bytes(base64.b64decode(document["signatures"][0]["sig"]))
    kind = document["payloadType"]
    told = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signed.signers), "-I", "mt5crs-review"]
    command += ["-n", "mt5crs-review", "-s", str(signature)]
    assert subprocess.run(command, input=told, capture_output=True, check=False).returncode == 0
    statement = json.loads(payload)
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert statement["predicate"]["verificationResult"] == "PASSED"
