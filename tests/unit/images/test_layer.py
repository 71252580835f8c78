"""A layer depends on the tree alone: not on time, place, order, owner or umask of who makes it."""

import gzip
import os
import tarfile
from pathlib import Path

from images.layer import TIME, entries, largest, write_layer


def tree(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 50)
    (root / "a/link").symlink_to("../b.txt")
    return root


def test_two_trees_that_are_alike_give_the_same_bytes(tmp_path: Path) -> None:
    first = tree(tmp_path / "one", ["a/x", "a-b/y", "b.txt"])
    second = tree(tmp_path / "two/deeper", ["b.txt", "a-b/y", "a/x"])
    os.utime(second / "b.txt", (1, 1))
    made = [
        write_layer(root, entries(root), lambda name: 7 if name == "b.txt" else 0, tmp_path / f"{number}.gz")
        for number, root in enumerate((first, second))
    ]
    assert made[0].path.read_bytes() == made[1].path.read_bytes()
    assert (made[0].digest, made[0].plain, made[0].size) == (made[1].digest, made[1].plain, made[1].size)
    with gzip.open(made[0].path) as plain, tarfile.open(fileobj=plain) as archive:
        found = {entry.name: entry for entry in archive}
    assert list(found) == ["a", "a/link", "a/x", "a-b", "a-b/y", "b.txt"]
    assert {entry.mtime for entry in found.values()} == {TIME}
    assert {name: entry.uid for name, entry in found.items() if entry.uid} == {"b.txt": 7}


def test_a_changed_file_is_another_layer(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", ["a/x", "b.txt"])
    before = write_layer(root, entries(root), lambda _: 0, tmp_path / "1.gz")
    (root / "b.txt").write_text("other")
    assert write_layer(root, entries(root), lambda _: 0, tmp_path / "2.gz").digest != before.digest


def test_nothing_changes_who_it_runs_as_and_devices_stay_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", ["a/x"])
    (root / "a/x").chmod(0o6755)
    os.mkfifo(root / "pipe")
    made = write_layer(root, entries(root), lambda _: 0, tmp_path / "1.gz")
    with tarfile.open(made.path) as archive:
        assert {entry.name: entry.mode for entry in archive if entry.isfile()} == {"a/x": 0o755}
        assert "pipe" not in archive.getnames()


def test_the_largest_files_come_first(tmp_path: Path) -> None:
    root = tree(tmp_path, ["a/x", "a/longer", "b.txt"])
    assert [name for _, name in largest(root, entries(root), 2)] == ["a/longer", "b.txt"]
