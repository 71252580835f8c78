"""Images for arm64, made and tried on this machine."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from deploy.bundle.archive import ROOT
from deploy.bundle.build import main as make_bundle
from images import build
from images.architecture import ARM64
from mt5crs_release.bundles.provenance import verify

OUT = ROOT / "dist"
MIRROR = os.environ.get("LAB_DEBIAN_MIRROR")


@pytest.mark.slow(reason="emulated, minutes; an image for amd64 is built and run in every run")
def test_images_for_arm64_pass_their_audit_and_are_the_same_twice(tmp_path: Path) -> None:
    assert make_bundle(["--out", str(OUT), "--platform", ARM64.wheels.name]) == 0
    made = build.build(OUT, ROOT, MIRROR, ARM64)
    assert made.tried == ("mt5crs audit", "prometheus-alertmanager --version", "prometheus --version")
    with tarfile.open(made.archive) as archive:
        described = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
    assert {each["platform"]["architecture"] for each in described["manifests"]} == {"arm64"}
    assert verify(made.archive, build.allowed_signers(tmp_path, ROOT))["provenance"].endswith(
        "-arm64.provenance.json"
    )
    # In another place, with a Debian part of its own.
    other = tmp_path / "other"
    other.mkdir()
    for name in (
        "latest.json",
        json.loads((OUT / "latest.json").read_text())["bundles"][ARM64.wheels.name]["file"],
    ):
        shutil.copy2(OUT / name, other)
    again = build.build(other, ROOT, MIRROR, ARM64)
    assert [each.digest for each in again.images] == [each.digest for each in made.images]
    assert again.archive.read_bytes() == made.archive.read_bytes()
