"""Which files a build left, and that each is asked about."""

import json
from pathlib import Path

import pytest

from mt5crs_release.errors import RefusedError
from pipeline import built
from pipeline.errors import PipelineError

IMAGES = (
    "amd64.tar",
    "amd64.sbom.cdx.json",
    "amd64.provenance.json",
    "amd64.provenance.json.sig",
    "arm64.tar",
)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A bundle, its older one, and images for two machines; an older build of images too."""
    out = tmp_path / "dist"
    out.mkdir()
    (out / "latest.json").write_text(json.dumps({"bundles": {"linux": {"file": "mt5crs-1-new.tar"}}}))
    (out / "images.json").write_text(json.dumps({"file": "mt5crs-images-1-new-amd64.tar", "tag": "1-new"}))
    named = ["mt5crs-1-new.tar", "mt5crs-1-old.tar", "mt5crs-release", "mt5crs-images-1-old-amd64.tar"]
    for name in (*named, *(f"mt5crs-images-1-new-{each}" for each in IMAGES)):
        (out / name).write_text(name)
    return out


def test_the_newest_of_each_kind_and_nothing_older(dist: Path) -> None:
    found = {path.name for path in built.files(dist.parent)}
    assert found == {
        *(f"mt5crs-images-1-new-{each}" for each in IMAGES),
        *("latest.json", "mt5crs-1-new.tar", "mt5crs-release"),
    }
    assert set(built.digests(dist.parent)) == {f"dist/{name}" for name in found}


def test_every_signed_file_is_verified_and_the_first_bad_one_named(
    dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def verify(path: Path, _: Path) -> dict[str, str]:
        asked.append(path.name)
        return {"kind": "file"}

    monkeypatch.setattr(built, "verify", verify)
    assert len(built.check(dist.parent)) == 5
    assert not {"latest.json", "mt5crs-release"} & set(asked), "what is not signed is not called signed"

    def refuse(path: Path, _: Path) -> dict[str, str]:
        raise RefusedError(f"{path.name} is not the file that was signed", remedy="build it again")

    monkeypatch.setattr(built, "verify", refuse)
    with pytest.raises(PipelineError, match=r"not the file that was signed: build it again$"):
        built.check(dist.parent)


def test_images_without_their_statement_are_refused(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "verify", lambda *_: {"kind": "file"})
    (dist / "mt5crs-images-1-new-amd64.provenance.json").unlink()
    with pytest.raises(PipelineError, match="no provenance of images"):
        built.check(dist.parent)


def test_no_bundle_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"there is no bundle in .*dist: run `make bundle`$"):
        built.files(tmp_path)
