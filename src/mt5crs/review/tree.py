"""What is reviewed: a tree of git, which cannot change while it is looked at.

Files that are not committed yet are put into a tree first, in an index of its own. Blobs are read byte by
byte: attributes that hide a file from `git archive` or `git diff` hide nothing here, and no link is followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from mt5crs.review.model import ReviewError

MAX_BYTES: Final = 2_000_000
"""A larger file is not read by rules or reviewers; that is a finding."""
LINK, SUBMODULE = "120000", "160000"
_LONGEST_PATH: Final = 4096
_ATTEMPTS: Final = 5
_MOST_LINES: Final = 4
"""Of what git says when it fails; of more the last two say why."""
_OBJECT: Final = re.compile(r"[0-9a-f]{40,64}\Z")

Kind = Literal["text", "binary", "huge", "link", "submodule", "encoding", "deleted"]


class Entry(NamedTuple):
    """A file of a tree."""

    mode: str
    blob: str
    size: int


class File(NamedTuple):
    """A file that is reviewed: its text before and now. `text` is empty unless the kind is text or link."""

    path: str
    kind: Kind
    text: str
    """Of a link: where it leads."""
    before: str | None
    """None: there was no such file, or no text in it."""


class Tree(NamedTuple):
    """A tree object and its files."""

    repository: Path
    id: str
    files: Mapping[str, Entry]
    blobs: Mapping[str, bytes] | None = None
    """Contents that came with it; None: git is asked for them."""


def tree_of(repository: Path, revision: str | None = None) -> Tree:
    """The tree of a revision, or of the files as they are now (ignored ones excepted).

    :raises ReviewError: no git, no repository, or no such revision
    """
    root = Path(_git(repository, "rev-parse", "--show-toplevel").decode().strip())
    if revision is None:
        tree = _tree_of_files(root)
    else:
        if revision.startswith("-"):
            raise ReviewError(f"{revision!r} is no revision; name a commit, a tag or a branch")
        tree = _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{tree}}").decode().strip()
    if not _OBJECT.match(tree):
        raise ReviewError(f"git knows no tree of {revision or 'the files'}; name a commit, a tag or a branch")
    files: dict[str, Entry] = {}
    for line in _git(root, "ls-tree", "-r", "-z", "-l", tree).split(b"\0"):
        if line:
            about, _, name = line.partition(b"\t")
            mode, _, blob, size = about.decode().split()
            files[_name(name)] = Entry(mode, blob, int(size) if size.isdigit() else 0)
    return Tree(root, tree, files)


def read_blobs(tree: Tree, paths: Iterable[str], *files: Mapping[str, Entry]) -> dict[str, bytes]:
    """The contents by which these paths can be looked at elsewhere, by blob."""
    return _blobs(tree, wanted(paths, tree.files, *files))


def id_of(files: Mapping[str, Entry]) -> str:
    """The id that git gives to a tree of these files: it cannot be said of any others.

    :raises ReviewError: a name is none that a tree of git can have, or is a file and a directory
    """
    algorithm = "sha256" if any(len(entry.blob) == 64 for entry in files.values()) else "sha1"
    root: dict[bytes, Any] = {}
    for path, entry in files.items():
        *above, last = _name(path.encode(errors="surrogateescape")).encode().split(b"/")
        level = root
        for part in above:
            level = level.setdefault(part, {})
            if not isinstance(level, dict):
                raise ReviewError(f"{path!r} is below a file")
        level[last] = entry
    return _tree_id(root, algorithm)


def blob_id(content: bytes, like: str) -> str:
    """The id that git gives to a content, by the algorithm of the id `like`."""
    return _object_id("blob", content, "sha256" if len(like) == 64 else "sha1")


def _tree_id(level: Mapping[bytes, Any], algorithm: str) -> str:
    lines = []
    for name, entry in level.items():
        inside = isinstance(entry, dict)
        mode, made = ("40000", _tree_id(entry, algorithm)) if inside else (entry.mode, entry.blob)
        key = name + b"/" if inside else name  # git sorts directories so
        lines.append((key, mode.encode() + b" " + name + b"\0" + bytes.fromhex(made)))
    return _object_id("tree", b"".join(line for _, line in sorted(lines)), algorithm)


def _object_id(kind: str, content: bytes, algorithm: str) -> str:
    return hashlib.new(
        algorithm, f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False
    ).hexdigest()


def _name(name: bytes) -> str:
    """The path of a file. A tree that somebody made by hand may have names that lead out of it.

    :raises ReviewError: it is no path below the tree, or no UTF-8, so that it could not be told
    """
    try:
        path = name.decode()
    except UnicodeDecodeError:
        path = ""
    if any(part in ("", ".", "..") or part.casefold() == ".git" for part in path.split("/")):
        raise ReviewError(f"{name!r} in the tree is no name of a file that can be reviewed; rename it")
    return path


def _tree_of_files(root: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="mt5crs-review-") as scratch:
        index = Path(scratch) / "index"
        own = root / _git(root, "rev-parse", "--git-path", "index").decode().strip()
        if own.is_file():
            shutil.copyfile(own, index)  # known files need not be read again
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _git(root, "add", "--all", index=index)
                break
            except ReviewError as error:
                # A file that somebody writes just then is shorter than it was said to be.
                if attempt == _ATTEMPTS or "unable to index file" not in str(error):
                    raise
        return _git(root, "write-tree", index=index).decode().strip()


def commits(repository: Path, most: int) -> list[str]:
    """The newest commits of a branch, the newest first; those that a merge brought are left out.

    :raises ReviewError: no git, no repository, or no commit
    """
    return _git(repository, "rev-list", "--first-parent", f"--max-count={most}", "HEAD").decode().split()


def changed(tree: Tree, base: Tree | None) -> list[File]:
    """What differs from `base`, in the order of paths; everything when there is none."""
    before = base.files if base is not None else {}
    paths = sorted(
        path
        for path in {*tree.files, *before}
        if tree.files.get(path) is None
        or before.get(path) is None
        or tree.files[path][:2] != before[path][:2]
    )
    content = _blobs(tree, wanted(paths, tree.files, before))
    return [_file(path, tree.files.get(path), before.get(path), content) for path in paths]


def wanted(paths: Iterable[str], *files: Mapping[str, Entry]) -> list[str]:
    """The blobs that have to be read to look at these paths in every one of `files`."""
    entries = (each[path] for path in paths for each in files if path in each)
    return [entry.blob for entry in entries if _read(entry) or _leads(entry)]


def _read(entry: Entry) -> bool:
    return entry.mode not in (LINK, SUBMODULE) and entry.size <= MAX_BYTES


def _leads(entry: Entry) -> bool:
    """Whether it is a link that can lead anywhere; what is longer than a path leads nowhere."""
    return entry.mode == LINK and entry.size <= _LONGEST_PATH


def _file(path: str, now: Entry | None, before: Entry | None, content: Mapping[str, bytes]) -> File:
    was = _text(content[before.blob]) if before is not None and _read(before) else None
    old = was if isinstance(was, str) else None
    if now is None:
        return File(path, "deleted", "", old)
    if now.mode == LINK:
        goal = content[now.blob] if _leads(now) else b""
        return File(path, "link", goal.decode(errors="backslashreplace"), old)
    if now.mode == SUBMODULE:
        return File(path, "submodule", "", old)
    if now.size > MAX_BYTES:
        return File(path, "huge", "", old)
    text = _text(content[now.blob])
    if text is None:
        return File(path, "binary", "", old)
    return File(path, "encoding", "", old) if text is False else File(path, "text", str(text), old)


def _text(content: bytes) -> str | Literal[False] | None:
    """The text; False when it is text in another encoding, None when it is none."""
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return False


def _blobs(tree: Tree, blobs: Iterable[str]) -> dict[str, bytes]:
    """The content of every blob, from one run of git, or of what came with the tree."""
    wanted = sorted(set(blobs))
    if tree.blobs is not None:
        missing = [blob for blob in wanted if blob not in tree.blobs]
        if missing:
            raise ReviewError(f"{len(missing)} files did not come with the tree; submit it again")
        return {blob: tree.blobs[blob] for blob in wanted}
    if not wanted:
        return {}
    said = _git(tree.repository, "cat-file", "--batch", told="".join(f"{blob}\n" for blob in wanted).encode())
    content: dict[str, bytes] = {}
    at = 0
    for blob in wanted:
        end = said.index(b"\n", at)
        about = said[at:end].split()
        if len(about) != 3:
            raise ReviewError(f"git cannot read the object {blob}; repair the repository (`git fsck`)")
        size = int(about[2])
        content[blob] = said[end + 1 : end + 1 + size]
        at = end + size + 2
    return content


def contents(tree: Tree, paths: Iterable[str]) -> dict[str, bytes]:
    """The bytes of plain files of the tree."""
    entries = {path: tree.files[path] for path in paths}
    plain = {path: entry for path, entry in entries.items() if entry.mode not in (LINK, SUBMODULE)}
    found = _blobs(tree, (entry.blob for entry in plain.values()))
    return {path: found[entry.blob] for path, entry in plain.items()}


def write(tree: Tree, directory: Path) -> None:
    """Put the tree's plain files below `directory`, for programs that read files. Links are left out."""
    for path, content in contents(tree, tree.files).items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if tree.files[path].mode == "100755":
            target.chmod(0o755)


def _git(repository: Path, *arguments: str, index: Path | None = None, told: bytes | None = None) -> bytes:
    program = shutil.which("git")
    if program is None:
        raise ReviewError("git is not installed; install it with `apt-get install git` as root")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    answer = run([program, "-C", str(repository), *arguments], environment, told)
    if answer.returncode != 0 and "--quiet" not in arguments:
        lines = [line.strip() for line in answer.stderr.decode(errors="replace").splitlines() if line.strip()]
        said = lines if len(lines) <= _MOST_LINES else lines[-2:]
        raise ReviewError(
            f"git {arguments[0]} failed in {repository}: {' '.join(said) or 'no reason given'}. "
            "A review reads a repository of git that nobody writes to just then; name one with --tree"
        )
    return answer.stdout


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    told: bytes | None = None,
    *,
    directory: Path | None = None,
    within_s: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end.

    :raises ReviewError: it did not end within `within_s` seconds, or cannot be started
    """
    try:
        return subprocess.run(
            command,
            input=told or b"",
            capture_output=True,
            env=dict(environment),
            cwd=directory,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        name = Path(command[0]).name
        raise ReviewError(f"{name} did not end within {within_s:g} s; run it by hand") from None
    except OSError as error:
        raise ReviewError(f"{Path(command[0]).name} cannot be started: {error.strerror}") from None
