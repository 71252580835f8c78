"""What each file of the repository refers to, read from its text.

A Python file refers to the modules that it imports anywhere, and to what its strings name: a module (as in
`-m mt5crs.gateway`), a file, or a directory (`PROJECT / "templates"`), which stands for all files below it.

Every path begins somewhere: at the first directory of the repository or, in a file that uses `__file__`,
at its own or one above it. So a name counts when it is found from one of these; what is below a directory
(`TEMPLATES / name`) counts where the directory was named. What runs on hosts (`src/`) has no repository
there and begins in its own package only. A name that fits twice stands for both.

What a fleet is made of (roles, variables, templates, inventories, playbooks) refers to each other by the
rules of Ansible and Jinja: who refers to one file of it refers to all. The programs that it names run on
hosts, not in tests of it; a test that runs one names it too. `python -m tests.quick.proof` compares all
this with what tests really open.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

FLEET = ("roles/", "group_vars/", "inventory/", "templates/", "plugins/")
"""Directories of one whole; the playbooks and ansible.cfg, in the first directory, belong to it too."""
ONLY_READ = ("*.md", "*.toml", "*.lock", "*.txt", "*.html", "*.css", ".*", "Makefile", "LICENSE")
"""Text that is read and never run: it may name anything and needs nothing."""
READ = "read:"
"""Before a path that is only read: what it refers to does not matter."""
_SOURCE = "src/"
_ENTRY_POINTS = '[project.entry-points."'
_TOKEN = re.compile(r"[\w./@-]+")
_LISTING = frozenset({"iterdir", "listdir", "scandir", "walk"})
_PATH_CALLS = frozenset(
    {"Path", "PurePath", "PurePosixPath", "joinpath", "glob", "rglob", "with_name", "open"}
)


def of_fleet(path: str) -> bool:
    """Whether the file is one of those that refer to each other by the rules of Ansible and Jinja."""
    return path.startswith(FLEET) or ("/" not in path and path.endswith((".yml", ".cfg")))


def is_test(path: str) -> bool:
    """Whether pytest alone runs the file; who names its path at most reads it."""
    return PurePosixPath(path).name.startswith(("test_", "conftest.py")) and path.endswith(".py")


@dataclass
class Tree:
    """The paths of all files, and how they are found by name."""

    paths: frozenset[str]
    modules: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    directories: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def of(cls, paths: Iterable[str]) -> Tree:
        """Index these paths."""
        tree = cls(frozenset(paths))
        for path in tree.paths:
            for parent in list(PurePosixPath(path).parents)[:-1]:
                tree.directories[str(parent)].add(path)
            if path.endswith(".py"):
                name = path.removeprefix(_SOURCE).removesuffix(".py").removesuffix("/__init__")
                tree.modules[name.replace("/", ".")].add(path)
        return tree

    def module(self, name: str) -> Iterator[str]:
        """The files that an import of the module runs: its own and those of the packages around it."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            yield from self.modules.get(".".join(parts[:end]), ())

    def program(self, name: str) -> Iterator[str]:
        """The files that `python -m` runs."""
        yield from self.module(f"{name}.__main__")

    def below(self, prefix: str) -> Iterator[str]:
        """All modules whose names begin so."""
        yield from (path for name, paths in self.modules.items() if name.startswith(prefix) for path in paths)

    def found(self, starts: Sequence[PurePosixPath], path: str) -> Iterator[str]:
        """What there is of a path, from each directory in which it may begin."""
        if "*" in path:
            yield from self._matching(starts, path)
        for start in starts:
            wanted = start / path.strip("/")
            while wanted != start:
                if str(wanted) in self.paths:
                    yield str(wanted)
                    break
                if str(wanted) in self.directories:
                    yield from self.directories[str(wanted)]
                    break
                wanted = wanted.parent  # the rest is not known here: f"roles/{name}"

    def _matching(self, starts: Sequence[PurePosixPath], pattern: str) -> Iterator[str]:
        # From the nearest directory: a pattern for another one begins with its name, or was joined to it.
        for start in starts[:1]:
            for path in self.directories[str(start)] if start.parts else self.paths:
                below = PurePosixPath(path).relative_to(start)
                deep = bool(start.parts) or len(below.parts) == 1
                if deep and fnmatch(below.as_posix() if "/" in pattern else below.name, pattern):
                    yield path

    def named(self, starts: Sequence[PurePosixPath], text: str) -> Iterator[str]:
        """What a string names: modules, files, directories."""
        for word in _TOKEN.findall(text):
            token = word.strip("./-")
            if "." in word:
                yield from self.module(token)
                yield from self.program(token)
                if word == text and word.endswith("."):  # import_module(f"mt5crs.settings.{part}")
                    yield from self.below(f"{token}.")
            if "." in token or "/" in word:
                yield from self.found(starts, token)


@dataclass
class Source:
    """What of a Python file matters here."""

    path: str
    imports: list[str] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    """Strings that are, or may be, a part of a path."""
    names: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """Read it."""
        made = cls(path)
        parsed = ast.parse(text)
        package = PurePosixPath(path.removeprefix(_SOURCE)).parent.parts
        documentation: set[int] = set()
        for node in ast.walk(parsed):  # parents first
            if isinstance(node, ast.Expr):
                documentation.add(id(node.value))
            elif isinstance(node, ast.Import):
                made.imports += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                origin = [*above, *([node.module] if node.module else [])]
                made.imports += [".".join([*origin, alias.name]) for alias in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) not in documentation:
                    made.strings.append(node.value)
            elif isinstance(node, ast.Name | ast.Attribute):
                made.names.add(_name(node))
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                made.steps += _constants([node.left, node.right])
            elif isinstance(node, ast.Call) and _name(node.func) in _PATH_CALLS:
                made.steps += _constants(node.args)
            elif isinstance(node, ast.Tuple | ast.List | ast.Set):
                made.steps += _constants(node.elts)  # for directory in ("src", "deploy")
        return made

    def starts(self) -> list[PurePosixPath]:
        """Where its paths may begin."""
        parents = list(PurePosixPath(self.path).parents)
        if self.path.startswith(_SOURCE):
            return parents[:-2] if "__file__" in self.names else []
        return parents if "__file__" in self.names else parents[-1:]

    def references(self, tree: Tree) -> set[str]:
        """The files that it refers to, itself perhaps among them; READ before those that it cannot run."""
        found: set[str] = set()
        starts = self.starts()
        for string in self.strings:
            found.update(tree.named(starts, string))
            if "-m" in self.strings:
                found.update(tree.program(string))
        for step in self.steps:
            found.update(tree.found(starts, step))
        found = {f"{READ}{path}" if is_test(path) else path for path in found}
        for name in self.imports:
            found.update(tree.module(name))
        if "__file__" in self.names and self.names & _LISTING:
            found |= tree.directories[str(PurePosixPath(self.path).parent)]
        if "entry_points" in self.names:
            found |= {"pyproject.toml"} & tree.paths
        if self.path.startswith(_SOURCE):
            found = {path for path in found if path.startswith((_SOURCE, "pyproject.toml"))}
        return found


def _constants(nodes: Iterable[ast.AST]) -> list[str]:
    parts = [part for node in nodes for part in (node.values if isinstance(node, ast.JoinedStr) else [node])]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def references(path: str, text: str, tree: Tree) -> set[str]:
    """What the file refers to, itself left out."""
    found: set[str] = set()
    if path.endswith(".py"):
        # What cannot be read as Python fails in the tests of those that refer to it.
        with contextlib.suppress(SyntaxError):
            found = Source.of(path, text).references(tree)
    elif not any(fnmatch(path, pattern) for pattern in ONLY_READ):
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        found = set(tree.named(list(PurePosixPath(path).parents), "\n".join(lines)))
        if of_fleet(path):
            found = {name for name in found if not name.startswith(_SOURCE)}
    return found - {path}


def graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """What every file refers to; `texts` are all files with their content."""
    tree = Tree.of(texts)
    found = {path: references(path, text, tree) for path, text in texts.items()}
    declared = texts.get("pyproject.toml", "").partition(_ENTRY_POINTS)[2].partition("\n[")[0]
    entry_points = set(tree.named([], declared))
    whole = {path for path in texts if of_fleet(path)}
    for path, referred in found.items():
        if "pyproject.toml" in referred:
            referred |= entry_points - {path}
        if path in whole or referred & whole:
            referred |= whole - {path}
    return found


def distances(start: Iterable[str], found: Mapping[str, set[str]]) -> dict[str, int]:
    """How many steps each file is away that these files need."""
    steps = dict.fromkeys(start, 0)
    waiting = deque(steps)
    while waiting:
        path = waiting.popleft()
        for referred in found.get(path, ()):
            if referred not in steps:
                steps[referred] = steps[path] + 1
                waiting.append(referred)
    for path in [path for path in steps if path.startswith(READ)]:
        steps.setdefault(path.removeprefix(READ), steps[path])
    return steps
