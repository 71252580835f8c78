"""Building and verifying bundles: repeatable bytes, and nothing unpacked that was not signed."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import build, signing
from deploy.bundle.sbom import bill_of_materials
from deploy.bundle.wheel_facts import facts_of
from deploy.bundle.wheelhouse import LINUX, WINDOWS, Requirement, parse_requirements, sha256
from deploy.bundle.zipapp_build import SHEBANG, build_zipapp
from mt5crs_release.bundles.bundle import (
    MANIFEST,
    SIGNATURE,
    Bundle,
    peek_content,
    this_platform,
    this_python,
    verify_signature,
)
from mt5crs_release.desired.digest import content_digest
from mt5crs_release.errors import FailedError, RefusedError

ROOT = Path(__file__).resolve().parents[3]
ORIGIN = build.Origin("0123abcd", 1_700_000_000)


def a_wheel(path: Path, metadata: str, **files: str) -> Path:
    """A wheel with this metadata; `files`: contents by name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a_b-1.0.dist-info/METADATA", metadata)
        for name, content in files.items():
            archive.writestr(name, content)
    return path


class Maker:
    """Makes small bundles with a key of their own; ``open`` verifies as a host does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.signers = directory / "allowed_signers"
        self.signers.write_text(signing.allowed_signers_line(signing.public_key(self.key)))
        self.own = a_wheel(directory / "mt5crs-9.8.7-py3-none-any.whl", "Name: mt5crs\n")
        self.pip = a_wheel(directory / "pip-26.0-py3-none-any.whl", "Name: pip\n")

    def members(self, origin: build.Origin = ORIGIN, **manifest: Any) -> dict[str, bytes]:
        wheels = {path.name: path for path in (self.own, self.pip)}
        pin = Requirement("pip", "26.0", None, (sha256(self.pip),))
        files, described = build.contents("9.8.7", origin, LINUX, [pin], self.own, wheels)
        described["pythons"] = [this_python()]
        files[MANIFEST] = build.canonical({**described, **manifest})
        files[SIGNATURE] = signing.sign(files[MANIFEST], self.key)
        return files

    def write(self, members: dict[str, bytes]) -> Path:
        path = self.directory / "bundle.tar"
        path.write_bytes(build.pack(members, ORIGIN.built))
        return path

    def open(self, members: dict[str, bytes]) -> Bundle:
        return Bundle(self.write(members), self.signers)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test_good_bundle_is_verified_and_unpacked(maker: Maker, tmp_path: Path) -> None:
    with maker.open(maker.members()) as bundle:
        bundle.check_platform()
        bundle.unpack(tmp_path / "out")
    assert (tmp_path / "out/wheels" / maker.own.name).read_bytes() == maker.own.read_bytes()
    lines = (tmp_path / "out/requirements.txt").read_text().splitlines()
    # pip's own wheel travels along, to be run and not to be installed
    assert [path.name.partition("-")[0] for path in (tmp_path / "out/wheels").glob("pip-*")] == ["pip"]
    assert [line.split("==")[0] for line in lines] == ["mt5crs"]
    assert all("--hash=sha256:" in line for line in lines)


def test_two_builds_are_byte_identical(maker: Maker) -> None:
    first, second = (build.pack(maker.members(), ORIGIN.built) for _ in range(2))
    assert first == second


def test_commit_and_time_do_not_change_the_release(maker: Maker) -> None:
    one, two = (json.loads(maker.members(origin)[MANIFEST]) for origin in (ORIGIN, build.Origin("ffff", 5)))
    assert one["commit"] != two["commit"]
    assert one["content"] == two["content"]


def test_tampered_file_is_refused_and_named(maker: Maker, tmp_path: Path) -> None:
    members = maker.members()
    members[f"wheels/{maker.own.name}"] = b"bad wheel"
    with maker.open(members) as bundle, pytest.raises(RefusedError, match="differs from the signed manifest"):
        bundle.unpack(tmp_path / "out")


def test_changed_manifest_is_refused(maker: Maker) -> None:
    members = maker.members()
    members[MANIFEST] = members[MANIFEST].replace(b"0123abcd", b"0123abce")
    with pytest.raises(RefusedError, match=r"signature of .* is not valid"):
        maker.open(members)


def test_unsigned_bundle_is_refused(maker: Maker) -> None:
    members = maker.members()
    del members[SIGNATURE]
    with pytest.raises(RefusedError, match="it is not signed"):
        maker.open(members)


def test_other_key_and_missing_signers_are_refused(maker: Maker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Maker(tmp_path / "other")
    path = stranger.write(stranger.members())
    with pytest.raises(RefusedError, match="is not valid"):
        Bundle(path, maker.signers)
    with pytest.raises(RefusedError, match="no bundle is trusted"):
        Bundle(path, tmp_path / "none")


def test_key_for_another_purpose_is_refused(maker: Maker) -> None:
    members = maker.members()
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(maker.key), "-n", "file"]
    members[SIGNATURE] = subprocess.run(
        command, input=members[MANIFEST], capture_output=True, check=True
    ).stdout
    with pytest.raises(RefusedError, match="is not valid"):
        maker.open(members)


@pytest.mark.parametrize(
    "name", ["../escape", "/etc/passwd", "wheels/../../x", ".hidden", "wheels/extra.whl"]
)
def test_member_that_is_not_in_the_manifest_is_refused(maker: Maker, name: str) -> None:
    with pytest.raises(RefusedError, match=r"not a safe path|is not in the manifest"):
        maker.open({**maker.members(), name: b"x"})


def test_unsafe_path_in_a_signed_manifest_is_refused(maker: Maker) -> None:
    files = {"../../etc/cron.d/x": "0" * 64}
    members = maker.members(files=files, content=content_digest(files))
    with pytest.raises(RefusedError, match="unsafe path"):
        maker.open(members)


def test_links_twins_and_missing_files_are_refused(maker: Maker) -> None:
    members = maker.members()
    path = maker.write(members)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("wheels/link.whl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(RefusedError, match="not a regular file"):
        Bundle(path, maker.signers)
    path = maker.write(members)
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo(MANIFEST), io.BytesIO())
    with pytest.raises(RefusedError, match="twice"):
        Bundle(path, maker.signers)
    del members["requirements.txt"]
    with pytest.raises(RefusedError, match=r"'requirements\.txt' is missing"):
        maker.open(members)


def test_content_digest_must_fit(maker: Maker) -> None:
    with pytest.raises(RefusedError, match="content digest does not fit"):
        maker.open(maker.members(content="0" * 64))


def test_other_platform_and_other_python_are_refused(maker: Maker) -> None:
    with maker.open(maker.members(platforms=["win-x86_64"])) as bundle:
        _refused(bundle, f"this host is {this_platform()}")
    with maker.open(maker.members(pythons=["cp27"])) as bundle:
        _refused(bundle, f"this host has {this_python()}")


def _refused(bundle: Bundle, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        bundle.check_platform()


def test_what_is_not_a_bundle_is_refused(maker: Maker, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar" * 500)
    with pytest.raises(RefusedError, match="not a valid bundle"):
        Bundle(tmp_path / "x.tar", maker.signers)
    with pytest.raises(RefusedError, match="cannot be opened"):
        Bundle(tmp_path / "none.tar", maker.signers)


@pytest.mark.timeout(20)
def test_a_pipe_or_device_in_place_of_a_bundle_blocks_nobody(maker: Maker, tmp_path: Path) -> None:
    pipe, directory = tmp_path / "pipe.tar", tmp_path / "directory.tar"
    os.mkfifo(pipe)
    directory.mkdir()
    for path in (pipe, directory, Path("/dev/zero")):
        with pytest.raises(RefusedError, match="cannot be opened: it is no regular file"):
            Bundle(path, maker.signers)
        assert peek_content(path) is None


def test_bill_of_materials_lists_every_wheel_and_repeats(tmp_path: Path) -> None:
    """With licences, and with the libraries inside wheels, which have flaws of their own."""
    names = ("a_b-1.0-py3-none-any.whl", "a_b-1.0-cp311-cp311-win_amd64.whl")
    libraries = {"a_b.libs/libzmq-2f02442c.so.5.2.5": "z", "a_b/_native.cpython-311.so": "n"}
    metadata = "Name: a-b\nLicense-Expression: MIT OR Apache-2.0\n\nText"
    wheels = {name: facts_of(a_wheel(tmp_path / name, metadata, **libraries)) for name in names}
    text = bill_of_materials("mt5crs", "1", wheels)
    assert text == bill_of_materials("mt5crs", "1", dict(reversed(wheels.items())))
    document = json.loads(text)
    assert document["bomFormat"] == "CycloneDX"
    (component,) = document["components"]
    assert component["purl"] == "pkg:pypi/a-b@1.0"
    assert component["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert {part["name"]: part["hashes"][0]["content"] for part in component["components"]} == {
        name: sha256(tmp_path / name) for name in names
    }
    for part in component["components"]:
        (library,) = part["components"]
        assert (library["name"], library["licenses"]) == ("libzmq", [{"expression": "MPL-2.0"}])
        assert library["hashes"][0]["content"] == hashlib.sha256(b"z").hexdigest()


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License: MIT\nClassifier: License :: OSI Approved :: BSD License\n", "BSD License"),
        ("License: Apache 2.0\n", "Apache 2.0"),
        ("Name: a-b\n", "NOASSERTION"),
    ],
)
def test_licences_of_older_wheels(metadata: str, licence: str, tmp_path: Path) -> None:
    assert facts_of(a_wheel(tmp_path / "a_b-1.0-py3-none-any.whl", metadata)).licence == licence


def test_requirements_apply_by_platform_and_python() -> None:
    text = "a==1 ; sys_platform == 'win32' \\\n    --hash=sha256:" + "0" * 64
    text += "\nb==2 ; python_full_version < '3.11' --hash=sha256:" + "1" * 64
    first, second = parse_requirements(text)
    assert (first.applies(LINUX, "3.11"), first.applies(WINDOWS, "3.11")) == (False, True)
    assert (second.applies(LINUX, "3.10"), second.applies(LINUX, "3.11")) == (True, False)
    assert first.hashes == ("0" * 64,)


def test_a_full_disk_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/mt5crs-sig-x")

    (tmp_path / "signers").write_text("")
    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    with pytest.raises(FailedError, match=r"/tmp/mt5crs-sig-x\): No space left") as error:
        verify_signature(b"", b"", tmp_path / "signers", "x")
    assert "df /tmp /var/tmp" in error.value.remedy


def test_zipapp_repeats_and_runs(tmp_path: Path) -> None:
    content = build_zipapp(ROOT / "src/mt5crs_release")
    assert content == build_zipapp(ROOT / "src/mt5crs_release")
    assert content.startswith(SHEBANG)
    tool = tmp_path / "mt5crs-release"
    tool.write_bytes(content)
    with zipfile.ZipFile(tool) as archive:
        assert archive.testzip() is None
    command = ["python3", "-IS", str(tool), "status", "--json", "--root", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(answer.stdout)["services"] == {}


def test_zipapp_says_what_it_was_built_from(tmp_path: Path) -> None:
    def says(tool: Path) -> str:
        command = ["python3", "-IS", str(tool), "--version"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    sources = shutil.copytree(ROOT / "src/mt5crs_release", tmp_path / "mt5crs_release")
    (tmp_path / "first").write_bytes(build_zipapp(sources, "1.2.3"))
    with (sources / "errors.py").open("a") as module:
        module.write("# changed\n")
    (tmp_path / "second").write_bytes(build_zipapp(sources, "1.2.3"))
    first, second = says(tmp_path / "first"), says(tmp_path / "second")
    assert first.startswith("mt5crs-release 1.2.3 (sources ")
    assert second.startswith("mt5crs-release 1.2.3 (sources ")
    assert first != second


def test_whole_build_repeats_byte_by_byte(tmp_path: Path) -> None:
    """Everything from the sources again; only the downloads are shared."""
    builds: list[dict[str, bytes]] = []
    for out in (tmp_path / "one", tmp_path / "two"):
        if builds:
            shutil.copytree(tmp_path / "one/.cache", out / ".cache", ignore=shutil.ignore_patterns("own-*"))
        build.build(out, [LINUX], lambda _: nullcontext())
        builds.append({path.name: path.read_bytes() for path in out.iterdir() if path.is_file()})
    one, two = builds
    assert one == two
    assert len(one) == 3
