"""Where a verdict is wanted, code needs one: asked for by both engines and by the host itself."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import resolve
from deploy.rollout.generation import desired, find_bundle
from lab.state import PROJECT
from mt5crs.review import verdict
from mt5crs.review.decision import ExternalResult, Policy, decide
from mt5crs.review.local_gate import LocalResult
from mt5crs.review.record import Record
from mt5crs_release.bundles.verdict import SUFFIX
from tests.lab.deployers import TOOL
from tests.lab.engines import Fleet, Ran

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

OVERRIDE = {"by": "ann", "reason": "the reviewer is down", "until": "2999-01-01T00:00:00Z"}
ROOT = "/tmp/mt5crs-empty"
EMPTY_HOST = (
    f"mkdir -p {ROOT}/etc/mt5crs && cp /etc/mt5crs/allowed_signers {ROOT}/etc/mt5crs/ && "
    f"cp /opt/mt5crs/bundles/{{bundle}} {ROOT}/altered.tar && printf '\\{{byte}}' | "
    f"dd of={ROOT}/altered.tar bs=1 seek={{at}} conv=notrunc status=none"
)
"""A host beside the one that is there, without code, and a bundle of which one byte is another."""
TAKE_ALTERED = (TOOL, "stage", "strategy", "--json", "--root", ROOT, "--bundle", f"{ROOT}/altered.tar")
STAGE = (TOOL, "stage", "strategy", "--dry-run", "--json", "--content")


@pytest.fixture
def bundle(fleet: Fleet, tmp_path: Path) -> Path:
    """A copy of the bundle that the fleet runs, beside which no verdict lies."""
    runs = PROJECT / next(iter(resolve(fleet.inventory).hosts.values()))["fleet_bundle"]
    return Path(shutil.copy2(runs, tmp_path))


def pass_review(bundle: Path, key: Path) -> None:
    """Put the verdict of a review that found nothing, and asked nobody, beside the bundle."""
    nobody = ExternalResult(state="not_asked", mode="offline")
    policy = Policy(threshold=90, external_required=False)
    decision = decide("t" * 40, None, {}, LocalResult(findings=[], programs=[]), nobody, policy)
    made = Record(decision=decision, tool="1", began="2026-01-01T00:00:00Z", seconds=1.0, lines=1)
    verdict.write(made, find_bundle(str(bundle)).content, bundle, key)


def reviews(ran: Ran) -> list[dict[str, Any]]:
    """Why each host took the strategy's code, as the run recorded it."""
    return [entry["review"] for entry in ran.record["services"] if entry["service"] == "strategy"]


def stage(fleet: Fleet, specification: dict[str, Any], content: str) -> tuple[int, dict[str, Any]]:
    """What a host says to a specification that no controller has checked."""
    told = json.dumps(specification)
    done = fleet.lab.exec("inf-01", [*STAGE, content], input_text=told, timeout_s=60, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, answer


def test_code_is_staged_with_a_good_verdict_or_a_named_override(
    fleet: Fleet, bundle: Path, tmp_path: Path
) -> None:
    key = verdict.signing_key(tmp_path)
    wanted: dict[str, Any] = {
        "fleet_bundle": str(bundle),
        "fleet_review_required": True,
        "fleet_review_external": False,
        "baseline_review_signers": [key.with_suffix(".pub").read_text().strip()],
        "strategy_tick_interval_s": 1.5,
    }
    before, pids = fleet.generations(), fleet.pids()
    fleet.override(**wanted)
    for refused in (fleet.pyinfra(), fleet.playbook("site.yml")):
        assert refused.status != 0
        assert "there is no verdict of a review for this bundle" in refused.output, refused.output[-3000:]
        assert "mt5crs review run --bundle" in refused.output
    assert (fleet.generations(), fleet.pids()) == (before, pids)

    pass_review(bundle, key)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert [each["score"] for each in reviews(ran)] == [100] * len(fleet.hosts("strategy"))

    want = desired("strategy", resolve(fleet.inventory).hosts["inf-01"])
    assert want.bundle is not None
    specification = json.loads(want.specification)
    specification["files"][".env"]["content"] += "# not what runs\n"
    assert stage(fleet, specification, want.bundle.content)[0] == 0
    altered = bytearray(base64.b64decode(specification["review"]["verdict"]))
    altered[len(altered) // 2] ^= 1
    specification["review"]["verdict"] = base64.b64encode(altered).decode()
    status, answer = stage(fleet, specification, want.bundle.content)
    assert status == 2
    assert "verdict" in answer["error"]["message"]

    bundle.with_name(bundle.name + SUFFIX).unlink()
    fleet.override(**{**wanted, "strategy_tick_interval_s": 1.6}, fleet_review_override=OVERRIDE)
    ran = fleet.playbook("site.yml", "--tags", "strategy")
    assert ran.status == 0, ran.output[-3000:]
    assert [each["override"] for each in reviews(ran)] == [OVERRIDE] * len(fleet.hosts("strategy"))


@pytest.mark.slow(reason="reviews this whole tree; what hosts do with verdicts is the test above")
def test_a_review_of_this_tree_lets_its_bundle_in_and_none_that_was_altered(
    fleet: Fleet, bundle: Path, tmp_path: Path
) -> None:
    key = verdict.signing_key(tmp_path)
    public = key.with_suffix(".pub").read_text().strip()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MT5CRS_REVIEW_KEY": str(key)}

    def review(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("mt5crs")), "review", *words]
        return subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    told = review("run", "--bundle", str(bundle), "--no-external", "--out", str(tmp_path / "records"))
    assert told.returncode == 0, told.stdout + told.stderr
    fleet.override(
        fleet_bundle=str(bundle),
        fleet_review_required=True,
        fleet_review_external=False,
        baseline_review_signers=[public],
        strategy_tick_interval_s=1.7,
    )
    ran = fleet.playbook("site.yml", "--tags", "baseline,strategy")
    assert ran.status == 0, ran.output[-3000:]
    assert [each["score"] >= 90 for each in reviews(ran)] == [True] * len(fleet.hosts("strategy"))

    # The same is said here, by whom the host trusts; and that nobody elsewhere was asked.
    signers = tmp_path / "signers"
    signers.write_text(fleet.lab.exec("inf-01", ["cat", "/etc/mt5crs/allowed_signers"]).stdout)
    verify = ("verify", str(bundle), "--signers", str(signers))
    good = review(*verify, "--no-external")
    assert good.returncode == 0, good.stderr
    doubted = review(*verify)
    assert (doubted.returncode, "does not vouch for" in doubted.stderr) == (1, True), doubted.stderr

    # A host that has no code yet is told to take a bundle in which one byte differs: what is signed, or code.
    want = desired("strategy", resolve(fleet.inventory).hosts["inf-01"])
    assert want.bundle is not None
    with tarfile.open(bundle) as archive:
        members = {member.name: member for member in archive}
    wheel = next(name for name in members if name.startswith("wheels/mt5crs-"))
    for name, why in (("manifest.json", "signature"), (wheel, "differs")):
        middle = members[name].offset_data + members[name].size // 2
        other = bundle.read_bytes()[middle] ^ 1
        made = EMPTY_HOST.format(bundle=want.bundle.path.name, byte=f"{other:03o}", at=middle)
        fleet.lab.exec("inf-01", ["sh", "-c", made])
        refused = fleet.lab.exec(
            "inf-01", TAKE_ALTERED, input_text=want.specification, timeout_s=60, check=False
        )
        left = fleet.lab.exec("inf-01", ["sh", "-c", f"ls {ROOT}/opt/mt5crs/runtimes; rm -r {ROOT}"]).stdout
        assert (refused.returncode, left) == (2, ""), (name, refused.stdout)
        assert why in json.loads(refused.stdout)["error"]["message"], refused.stdout
