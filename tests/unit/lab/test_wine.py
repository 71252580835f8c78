import hashlib
import re
import zipfile
from pathlib import Path

import pytest

from deploy.bundle.wheelhouse import Requirement
from lab import wine
from lab.errors import LabError
from lab.wine import VARIABLE, Windows, archive

_ENTRY = re.compile(r"^(\w+)==(\S+) ((?:.*\\\n)*.*)$", re.MULTILINE)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


def packed(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, name)
    return path


def test_the_named_archive_counts_before_the_one_beside_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wine, "PROJECT", tmp_path / "checkout")
    beside = tmp_path / "shared/windows-python/cpython-3.12.1-windows-x86_64.zip"
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(LabError, match=f"no Python for Windows.*official package.*set {VARIABLE}"):
        archive()
    beside.parent.mkdir(parents=True)
    packed(beside, "python.exe")
    assert archive() == beside
    named = packed(tmp_path / "python.3.12.nupkg", "tools/python.exe")
    monkeypatch.setenv(VARIABLE, str(named))
    assert archive() == named
    monkeypatch.setenv(VARIABLE, "/nowhere.zip")
    with pytest.raises(LabError, match=r"/nowhere\.zip is no archive"):
        archive()


@pytest.mark.parametrize("inside", ["", "tools/"])
def test_python_is_unpacked_from_where_it_lies(tmp_path: Path, inside: str) -> None:
    files = [f"{inside}{name}" for name in ("python.exe", "python312.dll", "Lib/os.py")]
    source = packed(
        tmp_path / "python.zip", *files, "Lib-elsewhere/x", "tools-too/venv/scripts/nt/python.exe"
    )
    wine._unpack(source, tmp_path / "python")
    assert (tmp_path / "python/Lib/os.py").read_text() == f"{inside}Lib/os.py"
    assert (tmp_path / "python/python.exe").is_file()


def test_an_archive_of_another_python_is_refused(tmp_path: Path) -> None:
    source = packed(tmp_path / "python.zip", "python.exe", "python313.dll")
    with pytest.raises(LabError, match=r"holds no CPython 3\.12 for Windows"):
        wine._unpack(source, tmp_path / "python")


def test_the_root_is_named_by_what_it_is_made_of(tmp_path: Path) -> None:
    source = packed(tmp_path / "python.zip", "python.exe")
    requirements = [Requirement("numpy", "2.0.0", None, (hashlib.sha256(b"").hexdigest(),))]
    first = wine._digest(source, requirements)
    assert first == wine._digest(source, requirements)
    newer = [Requirement("numpy", "2.0.2", None, requirements[0].hashes)]
    assert wine._digest(source, newer) != first
    assert wine._digest(packed(source, "python.exe", "more"), requirements) != first


def test_a_program_gets_the_named_directories_and_variables_and_nothing_else(tmp_path: Path) -> None:
    windows = Windows(
        tmp_path,
        shared={Path("/srv/a b"): "/opt/a"},
        written={Path("/srv/state"): "/state"},
        variables={"STATE_DIR": r"C:\s"},
    )
    argv = windows.argv(Path("/scratch"), "python.exe", "-V")
    entered = argv[argv.index("sh") + 1 :]
    assert entered[:3] == [str(tmp_path), "/scratch", "thrown"]
    assert entered[3:9] == ["/srv/a b", "/opt/a", "ro", "/srv/state", "/state", "rw"]
    assert entered[9:12] == ["--", "/usr/bin/env", "-i"]
    assert r"STATE_DIR=C:\s" in entered
    assert entered[-3:] == [wine.WINE, "python.exe", "-V"]


def test_what_users_install_by_hand_is_what_is_tried() -> None:
    """windows/wine-requirements.txt is written from uv.lock; versions and hashes must be its own."""
    text = (wine.PROJECT / "windows" / "wine-requirements.txt").read_text(encoding="utf-8")
    of_hand = {
        name: (version, tuple(sorted(_HASH.findall(rest)))) for name, version, rest in _ENTRY.findall(text)
    }
    tried = {each.name: (each.version, tuple(sorted(each.hashes))) for each in wine._requirements()}
    assert of_hand.keys() == {"metatrader5", "msgspec", "numpy"}
    assert {name: tried[name] for name in of_hand} == of_hand
