"""Building images: what a root is reduced to, which wheels count, and errors that leave nothing half made."""

import errno
import json
import os
import platform
from pathlib import Path
from typing import ClassVar

import pytest

from deploy.bundle.build import KEPT
from deploy.bundle.sbom import DebianPackage, bill_of_materials
from images import architecture, build, cli, code, root, selftest
from images.architecture import AMD64, ARM64, Architecture
from images.errors import ImageError
from images.services import SOCKETS, STATE, USER
from images.steps import debian
from images.steps.wheels import SITE


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
    debian.reduce(tmp_path)
    described = debian.parse_descriptions("Package: libc6\nVersion: 2\n\nPackage: zlib1g\nVersion: 1\n\n")
    debian.describe(tmp_path, described.values())
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
    assert str((tmp_path / "lib").readlink()) == "usr/lib"
    assert not (tmp_path / "lib64").is_symlink()
    (tmp_path / "usr/lib64").mkdir()  # as amd64 has it
    debian.describe(tmp_path, [])
    assert str((tmp_path / "lib64").readlink()) == "usr/lib64"


def test_services_own_what_they_write_and_nothing_else() -> None:
    assert code.owner(f"{STATE}/gateway".lstrip("/")) == code.owner(SOCKETS.lstrip("/")) == USER
    for name in ("usr/bin/python3.13", SITE, "var/lib/mt5crs", "run", "opt/mt5crs/gateway"):
        assert code.owner(name) == 0
    names = (f"{SITE}/mt5crs", "usr/lib/python3.13", "usr/localx")
    assert [code.is_own(name) for name in names] == [True, False, False]


def test_only_the_wheel_that_was_installed_counts(tmp_path: Path) -> None:
    described = tmp_path / SITE / "msgspec-0.22.0.dist-info"
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
    made = {"linux": {"file": "b.tar"}, "linux-arm64": {"file": "b.tar"}}
    (out / "latest.json").write_text(json.dumps({"bundles": made}))
    return out


@pytest.fixture
def on_amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.usefixtures("on_amd64")
def test_without_an_emulator_nothing_is_made_for_another_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = with_bundle(tmp_path)
    monkeypatch.setattr(architecture, "find", lambda _name: None)
    monkeypatch.setattr(root, "make", lambda *_: pytest.fail("a root was made"))
    assert cli.main(["--out", str(out), "build", "--architecture", "arm64"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("images: qemu-aarch64-static is missing")
    assert "apt-get install qemu-user-static" in said
    assert said.count("\n") == 1
    assert {path.name for path in out.iterdir()} == {"b.tar", "latest.json"}


@pytest.mark.usefixtures("on_amd64")
def test_without_a_bundle_for_an_architecture_it_says_what_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--out", str(tmp_path), "build", "--architecture", "arm64"]) == 1
    assert "run `python -m deploy.bundle --platform linux-arm64` first" in capsys.readouterr().err


def test_a_machine_that_no_image_is_for_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    said = one_sentence(capsys, with_bundle(tmp_path))
    assert "this machine is riscv64, and images are made on x86_64 and aarch64 only" in said


@pytest.mark.parametrize("wanted", [AMD64, ARM64], ids=lambda each: str(each.name))
def test_a_bundle_for_another_architecture_is_refused(wanted: Architecture, tmp_path: Path) -> None:
    class Other:
        manifest: ClassVar = {"pythons": ["cp313"], "platforms": ["win-x86_64"]}
        path = Path("x.tar")

        def check_kind(self, _kind: str) -> None:
            pass

    with pytest.raises(ImageError, match=f"x.tar is not for linux-{wanted.machine} with cp313"):
        code.install(tmp_path, Other(), wanted)  # type: ignore[arg-type]


def test_images_of_each_architecture_are_remembered_and_forgotten_by_themselves(tmp_path: Path) -> None:
    for number in range(KEPT + 2):
        for each in (AMD64, ARM64):
            archive = tmp_path / f"mt5crs-images-1-{number}-{each.name}.tar"
            archive.write_bytes(b"")
            os.utime(archive, (number, number))
            build._remember(tmp_path, archive, f"1-{number}", each)
    build._forget_old(tmp_path, f"mt5crs-images-1-{KEPT + 1}-arm64", ARM64)
    left = {each: len(list(tmp_path.glob(f"*-{each}.tar"))) for each in ("amd64", "arm64")}
    assert left == {"amd64": KEPT + 2, "arm64": KEPT}
    assert {
        name: json.loads((tmp_path / name).read_text())["file"]
        for name in ("images.json", "images-arm64.json")
    } == {
        "images.json": f"mt5crs-images-1-{KEPT + 1}-amd64.tar",
        "images-arm64.json": f"mt5crs-images-1-{KEPT + 1}-arm64.tar",
    }


@pytest.mark.usefixtures("on_amd64")
def test_an_image_that_fails_its_trial_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is what a trial put into the root left in it."""
    tree = tmp_path / "tree"
    (tree / "tmp").mkdir(parents=True)
    (tree / "tmp/left").write_text("")
    (tmp_path / "qemu").write_text("")
    monkeypatch.setattr(selftest, "emulator_of", lambda _architecture: str(tmp_path / "qemu"))

    def fails(_root: Path, command: list[str]) -> str:
        raise ImageError(f"{command[0]} failed")

    monkeypatch.setattr(selftest, "in_root", fails)
    with pytest.raises(ImageError, match="/emulator failed"):
        selftest.run(tree, {}, ARM64)
    assert [path.name for path in tree.rglob("*")] == ["tmp"]


@pytest.mark.parametrize("ending", ["full", "interrupted"])
def test_what_ends_a_build_leaves_nothing_half_made(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = with_bundle(tmp_path)
    (out / ".cache/.tmp-images-killed/tree").mkdir(parents=True)
    before = {path.name for path in out.iterdir()}

    def fails(target: Path, *_: object) -> root.Root:
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


def test_documentation_is_unpacked_for_its_licences_though_hosts_have_none() -> None:
    """What says so last counts."""
    told = [option for option in root.argv(Path("root"), None, "amd64") if option.startswith("--dpkgopt=")]
    assert told[-1] == "--dpkgopt=path-include=/usr/share/doc/*"
    assert "--dpkgopt=path-exclude=/usr/share/doc/*" in told
