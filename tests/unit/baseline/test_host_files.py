"""The shell that places and lists files, run for real in a directory of its own."""

import getpass
import grp
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from deploy.baseline.host_files import (
    KEPT,
    ManagedDirectory,
    ManagedFile,
    directory_script,
    encoded,
    listed,
    listing_script,
    placing_script,
    unlike,
)


def run(script: str, stdin: str = "") -> None:
    subprocess.run(["sh", "-c", script], input=stdin, text=True, check=True, timeout=30)


def place(file: ManagedFile) -> None:
    run(placing_script(file), encoded(file))


def seen(*paths: Path) -> dict[str, str]:
    answer = subprocess.run(
        ["sh", "-c", listing_script(map(str, paths))], capture_output=True, text=True, check=False, timeout=30
    )
    lines = [line.partition(" ") for line in answer.stdout.splitlines()]
    return listed(*([rest for word, _, rest in lines if word == of] for of in ("seen", "digest")))


def mine(
    path: Path, content: bytes = b"a 'quoted' line\n\x00\xff no newline", mode: str = "0640"
) -> ManagedFile:
    return ManagedFile(str(path), content, mode, getpass.getuser(), grp.getgrgid(os.getgid()).gr_name)


def test_a_placed_file_is_listed_as_wanted(tmp_path: Path) -> None:
    file = mine(tmp_path / "new folder" / "it's.conf")
    assert unlike([file], seen(Path(file.path))) == (file.path,)
    place(file)
    assert Path(file.path).read_bytes() == file.content
    assert unlike([file], seen(Path(file.path))) == ()
    assert [path.name for path in Path(file.path).parent.iterdir()] == ["it's.conf"]


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("keep")
    link.symlink_to(target)
    file = mine(link, b"new")
    assert unlike([file], seen(link)) == (str(link),)
    place(file)
    assert (link.is_symlink(), link.read_text(), target.read_text()) == (False, "new", "keep")


def test_wrong_mode_is_seen_and_mended(tmp_path: Path) -> None:
    file = mine(tmp_path / "file")
    place(file)
    Path(file.path).chmod(0o666)
    assert unlike([file], seen(Path(file.path))) == (file.path,)
    place(file)
    assert Path(file.path).stat().st_mode & 0o777 == 0o640


def test_directories(tmp_path: Path) -> None:
    wanted = ManagedDirectory(
        str(tmp_path / "a" / "b"), "0750", getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
    )
    assert unlike([wanted], seen(Path(wanted.path))) == (wanted.path,)
    run(directory_script(wanted))
    assert unlike([wanted], seen(Path(wanted.path))) == ()


def test_what_debian_had_there_is_kept_once_and_never_what_a_deployment_brought(tmp_path: Path) -> None:
    issue, here = tmp_path / "issue", tmp_path / "deployed"
    kept = tmp_path / f"issue{KEPT}"
    place(replace(mine(issue, b"ours\n"), kept_unless=str(here)))
    assert not kept.exists(), "there was none"
    issue.write_text("Debian\n")
    issue.chmod(0o604)
    for text in (b"ours\n", b"ours, interrupted and again\n"):
        place(replace(mine(issue, text), kept_unless=str(here)))
        assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("Debian\n", 0o604)
    kept.unlink()
    here.touch()
    place(replace(mine(issue, b"newer\n"), kept_unless=str(here)))
    assert (issue.read_text(), kept.exists()) == ("newer\n", False), "a fleet from before this was kept"
