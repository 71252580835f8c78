"""`make quick`: what a change needs while it is worked on, in two minutes at most on two cores.

Checks of the changed files, types, and the unit tests that the change affects. Everything: `make test`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.controller.programs import require
from tests.quick.changes import Changes, ChangesError, changes
from tests.quick.dependencies import graph
from tests.quick.plan import PROCESSES, Check, Selection, choose_checks, choose_tests
from tests.quick.seconds import SECONDS

ROOT = Path(__file__).resolve().parents[2]
SHORT_S = 4.0
"""Below this, more processes cost more than they save."""


def texts(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Every file with its content; what is not text refers to nothing."""
    return {path: (root / path).read_text(encoding="utf-8", errors="replace") for path in files}


def told(found: Changes, tests: Selection, checks: Sequence[Check]) -> list[str]:
    """What is going to run, and why."""
    files = "1 changed file" if len(found.paths) == 1 else f"{len(found.paths)} changed files"
    run = f"{len(tests.files)} of {tests.of} test files ({tests.why}), about {tests.seconds:.0f} s"
    names = ", ".join(check.name for check in checks) or "no checks"
    lines = [f"quick: {files} ({found.since}) -> {run}; {names}"]
    if tests.left_out:
        lines.append(
            f"quick: {len(tests.left_out)} more are affected but would take too long; `make unit` runs them"
        )
    return lines


def pytest_command(tests: Selection) -> list[str]:
    """How the chosen tests are run."""
    command = [sys.executable, "-m", "pytest", "-q", *tests.files]
    processes = min(PROCESSES, len(tests.files))
    if processes > 1 and tests.seconds > SHORT_S:
        command += ["--numprocesses", str(processes), "--dist", "worksteal"]
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. 0 when all passed, 1 when something failed, 2 when nothing could be compared."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.quick")
    parser.add_argument("--base", help="commit to compare with (default: where upstream/main was left)")
    parser.add_argument("--dry", action="store_true", help="only tell what would run")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        found = changes(ROOT, given.base)
    except ChangesError as error:
        print(f"quick: {error}", file=sys.stderr)
        return 2
    if not found.paths:
        print(f"quick: nothing has changed ({found.since}), nothing to run")
        return 0
    # A path that is gone still has a name, which others may refer to.
    known = graph({**dict.fromkeys(found.paths, ""), **texts(ROOT, found.files)})
    tests = choose_tests(found.paths, found.files, known, SECONDS)
    checks = choose_checks(found.paths, found.files)
    print("\n".join(told(found, tests, checks)), flush=True)
    if given.dry:
        print("\n".join(tests.files))
        return 0
    steps = [(check.name, [require(check.command[0]), *check.command[1:]]) for check in checks]
    if tests.files:
        steps.append(("unit tests", pytest_command(tests)))
    failed = [
        name for name, command in steps if subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    ]
    remaining = (
        "; left out, run `make unit`: " + str(len(tests.left_out)) + " test files" if tests.left_out else ""
    )
    verdict = f"FAILED: {', '.join(failed)}" if failed else "passed"
    print(f"quick: {verdict} after {time.monotonic() - began:.0f} s{remaining}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
