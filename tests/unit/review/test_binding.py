"""A bundle is bound to every byte of the tree that was reviewed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from mt5crs.review.binding import bundles_of, content_of
from mt5crs.review.model import ReviewError
from mt5crs.review.tree import tree_of
from mt5crs_release.desired.digest import content_digest
from tests.unit.review.conftest import Commit


def bundle(
    path: Path, files: dict[str, bytes], members: dict[str, bytes] | None = None, **manifest_more: str
) -> Path:
    table = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"format": 1, "version": "1", "pythons": [], "platforms": [], "files": table, **manifest_more}
    manifest["content"] = content_digest(table)
    with tarfile.open(path, "w") as archive:
        for name, content in {
            "manifest.json": json.dumps(manifest).encode(),
            **files,
            **(members or {}),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def wheel(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**files, "mt5crs-1.dist-info/METADATA": "x"}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_a_bundle_is_bound_to_every_byte_that_was_reviewed(
    repository: Path, commit: Commit, tmp_path: Path
) -> None:
    foreign = b"a wheel of others"
    commit({"src/mt5crs/a.py": "x = 1\n", "uv.lock": f"sha256:{hashlib.sha256(foreign).hexdigest()}\n"})
    tree = tree_of(repository, "HEAD")
    ours, others = "wheels/mt5crs-1-py3-none-any.whl", "wheels/other-1.whl"
    good = {ours: wheel({"mt5crs/a.py": "x = 1\n"}), others: foreign, "requirements.txt": b""}
    assert len(content_of(bundle(tmp_path / "good.tar", good), tree)) == 64
    for changed, why in (
        ({**good, ours: wheel({"mt5crs/a.py": "x = 2\n"})}, "mt5crs/a.py"),
        ({**good, ours: wheel({})}, "mt5crs/a.py"),
        ({**good, ours: wheel({"mt5crs/a.py": "x = 1\n", "mt5crs/b.py": ""})}, "mt5crs/b.py"),
        ({**good, ours: wheel({"mt5crs/a.py": "x = 1\n", "site.pth": ""})}, "site.pth"),
        ({**good, others: b"another wheel"}, "wheels/other-1.whl"),
        ({others: foreign}, "0 wheels of our own"),
    ):
        with pytest.raises(ReviewError, match=f"was not made of the tree .*{why}"):
            content_of(bundle(tmp_path / "bad.tar", changed), tree)
    with pytest.raises(ReviewError, match=r"extra\.py"):
        content_of(bundle(tmp_path / "more.tar", good, {"extra.py": b""}), tree)
    (tmp_path / "none.tar").write_bytes(b"x")
    with pytest.raises(ReviewError, match="is no bundle"):
        content_of(tmp_path / "none.tar", tree)


MINE = "wheels/mine-1-py3-none-any.whl"


def mine(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**files, "mine-1.dist-info/METADATA": "x"}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_so_is_the_bundle_of_a_strategy(repository: Path, commit: Commit, tmp_path: Path) -> None:
    library, ready = b"a library", b"a wheel of the repository"
    pin = f"numpy==1 --hash=sha256:{hashlib.sha256(library).hexdigest()}\n"
    commit(
        {
            "strategies/mine.yml": "source: mine\nwheels: [ready.whl]\ndata: {m.json: mine/m.json}\n",
            "strategies/ready.whl": ready,
            "strategies/mine/src/mine/__init__.py": "x = 1\n",
            "strategies/mine/m.json": "{}",
            "strategies/mine/requirements.lock": pin,
        }
    )
    tree = tree_of(repository, "HEAD")
    good = {
        MINE: mine({"mine/__init__.py": "x = 1\n"}),
        "wheels/numpy-1.whl": library,
        "wheels/ready.whl": ready,
        "data/m.json": b"{}",
        "requirements.txt": b"",
    }
    whole = bundle(tmp_path / "strategy-mine.tar", good, kind="strategy", name="mine")
    assert len(content_of(whole, tree)) == 64
    for changed, why in (
        ({**good, MINE: mine({"mine/__init__.py": "x = 2\n"})}, "mine/__init__.py"),
        ({**good, MINE: mine({"mine/__init__.py": "x = 1\n", "evil.pth": "import os"})}, "evil.pth"),
        ({**good, "data/m.json": b"[]"}, "data/m.json"),
        ({**good, "data/more.json": b"{}"}, "data/more.json"),
    ):
        other = bundle(tmp_path / "other.tar", changed, kind="strategy", name="mine")
        with pytest.raises(ReviewError, match=f"was not made of the tree .*{why}"):
            content_of(other, tree)
    with pytest.raises(ReviewError, match=r"is no bundle|other\.tar"):
        content_of(
            bundle(tmp_path / "other.tar", {**good, "wheels/x.whl": b"x"}, kind="strategy", name="mine"), tree
        )
    with pytest.raises(ReviewError, match=r"strategies/theirs\.yml of the tree .* cannot be read"):
        content_of(bundle(tmp_path / "other.tar", good, kind="strategy", name="theirs"), tree)
    commit({"strategies/mine.yml": "source: mine\ndata: {m.json: ../../elsewhere/m.json}\n"})
    with pytest.raises(ReviewError, match=r"names \.\./elsewhere/m\.json, which the tree .* nobody has"):
        content_of(whole, tree_of(repository, "HEAD"))


def test_documents_stand_for_the_bundles_that_they_name(tmp_path: Path) -> None:
    latest = {"bundles": {"linux": {"file": "a.tar"}, "windows": {"file": "b.tar"}}}
    (tmp_path / "latest.json").write_text(json.dumps(latest))
    (tmp_path / "mine.json").write_text(json.dumps({"file": "c.tar"}))
    named = [tmp_path / "latest.json", tmp_path / "mine.json", Path("d.tar")]
    assert [path.name for path in bundles_of(named)] == ["a.tar", "b.tar", "c.tar", "d.tar"]
    for bad in ("[]", "{", '{"bundles": 1}'):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(ReviewError, match="does not say which bundles were built"):
            bundles_of([tmp_path / "bad.json"])
