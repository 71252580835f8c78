"""Building images: what a root is reduced to, which wheels count, and errors that leave nothing half made."""

import errno
import json
import os
from pathlib import Path

import pytest

from deploy.bundle.sbom import DebianPackage, bill_of_materials
from images import build, cli, code, root
from images.errors import ImageError
from images.services import SOCKETS, STATE, USER


def test_packages_are_read_as_the_hook_lists_them() -> None:
    text = f"zlib1g\t1:1.3\tamd64\t{'a' * 64}\nlibc6\t2.41-12\tamd64\t{'b' * 64}\n"
    assert [each.name for each in root.parse_packages(text)] == ["libc6", "zlib1g"]


def test_a_root_keeps_python_and_licences_and_loses_every_other_program(tmp_path: Path) -> None:
    for name in (
        "usr/bin/python3.13", "usr/bin/openssl", "usr/bin/sh", "usr/sbin/dpkg-preconfigure",
        "etc/apt/sources.list",
        "usr/share/doc/libc6/copyright", "usr/share/doc/libc6/changelog.gz", "usr/share/man/x",
        "usr/lib/x86_64-linux-gnu/gconv/X.so", "usr/lib/x86_64-linux-gnu/libc.so.6", "var/lib/dpkg/status",
        "usr/lib/python3.13/test/x.py", "usr/lib/python3.13/ssl.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    root._reduce(tmp_path)
    described = root.parse_descriptions("Package: libc6\nVersion: 2\n\nPackage: zlib1g\nVersion: 1\n\n")
    root._describe(tmp_path, described.values())
    files = {
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert files == {
        "usr/bin/python3.13", "usr/share/doc/libc6/copyright", "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/python3.13/ssl.py", "usr/lib/os-release", "etc/passwd", "etc/group", "etc/nsswitch.conf",
        "var/lib/dpkg/status.d/libc6", "var/lib/dpkg/status.d/zlib1g",
    }  # fmt: skip
    assert (tmp_path / "var/lib/dpkg/status.d/zlib1g").read_text() == "Package: zlib1g\nVersion: 1\n"
    assert str((tmp_path / "lib64").readlink()) == "usr/lib64"


def test_services_own_what_they_write_and_nothing_else() -> None:
    assert code.owner(f"{STATE}/gateway".lstrip("/")) == code.owner(SOCKETS.lstrip("/")) == USER
    for name in ("usr/bin/python3.13", code.SITE, "var/lib/mt5crs", "run", "opt/mt5crs/gateway"):
        assert code.owner(name) == 0
    names = (f"{code.SITE}/mt5crs", "usr/lib/python3.13", "usr/localx")
    assert [code.is_own(name) for name in names] == [True, False, False]


def test_only_the_wheel_that_was_installed_counts(tmp_path: Path) -> None:
    described = tmp_path / code.SITE / "msgspec-0.22.0.dist-info"
    described.mkdir(parents=True)
    (described / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp313-cp313-manylinux_2_17_x86_64\n")
    wheels = [
        Path(f"msgspec-0.22.0-{python}-{python}-manylinux_2_17_x86_64.whl") for python in ("cp312", "cp313")
    ]
    assert [code._installed(tmp_path, wheel) for wheel in wheels] == [False, True]


def test_the_bill_of_materials_names_debian_packages_with_hashes() -> None:
    package = DebianPackage("libc6", "2.41-12+deb13u5", "amd64", "a" * 64)
    told = bill_of_materials("mt5crs-images", "1", {}, packages=[package])
    assert told == bill_of_materials("mt5crs-images", "1", {}, packages=iter([package]))
    (component,) = json.loads(told)["components"]
    assert component["purl"] == "pkg:deb/debian/libc6@2.41-12%2Bdeb13u5?arch=amd64"
    assert component["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]


def one_sentence(capsys: pytest.CaptureFixture[str], out: Path) -> str:
    assert cli.main(["--out", str(out), "build"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("images: ")
    assert said.count("\n") == 1
    return said


def test_without_a_bundle_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "run `make bundle` first" in one_sentence(capsys, tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "as root" in one_sentence(capsys, tmp_path)
    with pytest.raises(ImageError, match="run `make images` first"):
        build.latest(tmp_path)


def with_bundle(out: Path) -> Path:
    (out / "b.tar").write_bytes(b"no bundle")
    (out / "latest.json").write_text(json.dumps({"bundles": {"linux": {"file": "b.tar"}}}))
    return out


@pytest.mark.parametrize("ending", ["full", "interrupted"])
def test_what_ends_a_build_leaves_nothing_half_made(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = with_bundle(tmp_path)
    (out / ".cache/.tmp-images-killed/tree").mkdir(parents=True)
    before = {path.name for path in out.iterdir()}

    def fails(target: Path, _mirror: str | None) -> root.Root:
        target.mkdir()
        raise (
            OSError(errno.ENOSPC, "No space left on device", str(target))
            if ending == "full"
            else KeyboardInterrupt
        )

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(root, "make", fails)
    status = cli.main(["--out", str(out), "build"])
    said = capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == before
    # nor what a build that was killed had left
    assert [path.name for path in (out / ".cache").iterdir()] == ["images.lock"]
    if ending == "full":
        assert status == 1
        assert "No space left on device; free some space in" in said
    else:
        assert (status, said) == (
            130,
            "\nimages: interrupted; nothing half made was kept, and a stack goes on as it is\n",
        )
