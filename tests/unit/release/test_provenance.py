"""`mt5crs-release verify`: what was signed passes, and no byte of it can be changed unnoticed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from deploy.bundle import archive, signing
from mt5crs_release.bundles.bundle import FORMAT, MANIFEST, SIGNATURE
from mt5crs_release.bundles.provenance import PREDICATE, STATEMENT, SUFFIX, verify
from mt5crs_release.cli.run import main
from mt5crs_release.desired.digest import content_digest
from mt5crs_release.errors import RefusedError

BUILT = 1_700_000_000


class Release:
    """A small bundle, a file, and a statement that names the file; signed with a key of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self.key = key
        self.signers = directory / "signers"
        self.signers.write_text(signing.allowed_signers_line(signing.public_key(key)))
        files = {"wheels/a-1.whl": b"wheel" * 30, "requirements.txt": b"a==1\n"}
        table = {name: archive.digest_of(content) for name, content in files.items()}
        manifest = {
            "format": FORMAT, "kind": "core", "version": "1", "commit": "abc", "pythons": [], "platforms": [],
            "files": table, "content": content_digest(table),
        }  # fmt: skip
        told = archive.canonical(manifest)
        members = {**files, MANIFEST: told, SIGNATURE: signing.sign(told, key)}
        self.bundle = directory / "bundle.tar"
        self.bundle.write_bytes(archive.pack(members, BUILT))
        self.images = directory / "images.tar"
        self.images.write_bytes(b"layers" * 100)
        self.statement = directory / f"images{SUFFIX}"
        self.state({"images.tar": archive.digest_of(self.images.read_bytes())})

    def state(self, subjects: dict[str, str], **other: object) -> None:
        document = {
            "_type": STATEMENT,
            "predicateType": PREDICATE,
            "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
            **other,
        }
        content = archive.canonical(document)
        self.statement.write_bytes(content)
        self.signature.write_bytes(signing.sign(content, self.key))

    @property
    def signature(self) -> Path:
        return self.statement.with_name(f"{self.statement.name}.sig")

    def refused(self, path: Path, statement: Path | None = None) -> str:
        with pytest.raises(RefusedError) as caught:
            verify(path, self.signers, statement)
        return str(caught.value)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release(tmp_path_factory.mktemp("release"))


def test_what_was_signed_passes(release: Release, capfd: pytest.CaptureFixture[str]) -> None:
    for path in (release.bundle, release.images, release.statement):
        assert main(["verify", str(path), "--signers", str(release.signers)]) == 0
    bundle, images, statement = capfd.readouterr().out.splitlines()
    assert "signature good, every byte is as it was built; core bundle 1" in bundle
    assert images == f"images.tar: every byte is as images{SUFFIX} says, whose signature is good"
    assert statement.endswith("signature good; it names images.tar")


def flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


@pytest.mark.parametrize("kind", ["bundle", "images", "statement", "signature"])
def test_no_byte_can_be_flipped(release: Release, kind: str) -> None:
    """In a bundle also of the headers, of what fills blocks up and of its end, which no hash covers."""
    changed: Path = getattr(release, kind)
    asked = release.bundle if kind == "bundle" else release.images
    good = changed.read_bytes()
    step = 211 if kind == "bundle" else max(1, len(good) // 30)
    try:
        for number, at in enumerate(range(0, len(good), step)):
            changed.write_bytes(flipped(good, at, number % 8))
            assert release.refused(asked), at
            if kind == "statement":
                assert release.refused(release.statement), at
    finally:
        changed.write_bytes(good)
    assert verify(asked, release.signers)


@pytest.mark.parametrize("at", [0, 100, 105, 108, 136, 148, 156, 257, 300, 511])
def test_no_byte_of_a_header_can_be_flipped(release: Release, tmp_path: Path, at: int) -> None:
    bad = tmp_path / "bundle.tar"
    bad.write_bytes(flipped(release.bundle.read_bytes(), at, 0))
    assert release.refused(bad)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 512, b"more"])
def test_nothing_can_be_added_to_a_bundle(release: Release, tmp_path: Path, tail: bytes) -> None:
    bad = tmp_path / "bundle.tar"
    bad.write_bytes(release.bundle.read_bytes() + tail)
    assert "is not the file that was signed" in release.refused(bad)


def test_a_line_end_of_a_signature_counts(release: Release) -> None:
    """ssh-keygen itself reads over white space."""
    good = release.signature.read_bytes()
    release.signature.write_bytes(good.replace(b"\n", b"\x0b\n", 2))
    try:
        assert "no signature as ssh-keygen writes it" in release.refused(release.images)
    finally:
        release.signature.write_bytes(good)


def test_a_stranger_is_refused(release: Release, tmp_path: Path) -> None:
    nobody = tmp_path / "signers"
    nobody.write_text("")
    for path in (release.bundle, release.images):
        with pytest.raises(RefusedError, match="not valid"):
            verify(path, nobody)
    with pytest.raises(RefusedError, match="no signature is trusted"):
        verify(release.images, tmp_path / "missing")


def test_a_file_that_nothing_names_is_refused(release: Release, tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    other.write_bytes(b"x")
    assert "nothing signed says" in release.refused(other)
    assert "says nothing about other.tar" in release.refused(other, release.statement)


def test_a_statement_without_its_signature_is_refused(release: Release, tmp_path: Path) -> None:
    alone = tmp_path / release.statement.name
    alone.write_bytes(release.statement.read_bytes())
    assert f"{alone.name}.sig cannot be read" in release.refused(release.images, alone)


def test_signed_but_of_another_form_is_refused(release: Release, tmp_path: Path) -> None:
    """A bundle's manifest has a good signature as well, and is no statement."""
    odd = tmp_path / f"old{SUFFIX}"
    odd.write_bytes(json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "subject": []}).encode())
    odd.with_name(f"{odd.name}.sig").write_bytes(signing.sign(odd.read_bytes(), release.key))
    assert "no statement of this form" in release.refused(odd)
