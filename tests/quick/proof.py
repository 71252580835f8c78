"""`python -m tests.quick.proof`: is each file that a unit test opens one that `make quick` ties to it?

Each file of tests runs under strace, with all processes that it starts (minutes). What one opens that its
dependencies do not name is listed: a change of that would not run the test.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deploy.controller.programs import require
from tests.quick.__main__ import ROOT, texts
from tests.quick.changes import changes
from tests.quick.dependencies import distances, graph
from tests.quick.plan import AFFECT_ALL, ALWAYS, TESTS, is_collected, started_with

BUILD = (".gitignore",)
"""Opened by whatever builds a wheel; a change of it runs all tests, since no test names it."""
_OPENED = re.compile(r'openat\(.*\) = \d+<([^>]+)>|execve\("([^"]+)".*= 0')
_COMPILED = re.compile(r"(.*?)__pycache__/([^.]+)\..*\.pyc")


def opened(log: Iterable[str], root: Path) -> set[str]:
    """The paths below `root` that strace's log says were opened or run; for compiled Python its source."""
    found: set[str] = set()
    for line in log:
        match = _OPENED.search(line)
        path = (match[1] or match[2]) if match else ""
        if path.startswith(f"{root}/"):
            path = path.removeprefix(f"{root}/")
            compiled = _COMPILED.fullmatch(path)
            found.add(f"{compiled[1]}{compiled[2]}.py" if compiled else path)
    return found


def missed(test: str, found: set[str], known: Mapping[str, set[str]]) -> list[str]:
    """What the test opened of the repository although its dependencies do not name it."""
    if test in ALWAYS:
        return []
    tied = {*distances(started_with(test, known), known), *AFFECT_ALL, *BUILD}
    return sorted(found & known.keys() - tied)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each file of tests. 1 when one opened what it is not tied to."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.quick.proof")
    parser.add_argument("tests", nargs="*", help="files of tests; none: all")
    files = texts(ROOT, changes(ROOT).files)
    known = graph(files)
    every = sorted(path for path in files if path.startswith(TESTS) and is_collected(path))
    bad = 0
    for test in parser.parse_args(arguments).tests or every:
        with tempfile.NamedTemporaryFile("r", errors="replace") as log:
            command = [
                require("strace"),
                "-f",
                "-qq",
                "--seccomp-bpf",
                "-y",
                "-e",
                "trace=open,openat,execve",
            ]
            command += ["-o", log.name, sys.executable, "-m", "pytest", "-q", "--tb=no", test]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            unknown = missed(test, opened(log, ROOT), known)
        bad += bool(unknown)
        said = done.stdout.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        print(f"{test}: {said[0].strip('= ')}: {', '.join(unknown) or 'nothing unknown'}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
