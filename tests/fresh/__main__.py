"""`python -m tests.fresh`: the set-up on a machine that has nothing, the first stage of `make test`.

A minimal Debian with make, git, ca-certificates and python3, a fresh clone, an empty home and no variables:
there `make setup bundle`, then every module is imported. What this machine has besides cannot help.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.controller.programs import MissingProgramError, require
from lab.errors import LabError
from lab.image import root_argv, write_root
from lab.plan import RELEASES
from lab.state import PROJECT
from tests.fresh import workflow

# What a new user has: make and git to get this far, and what Debian's own installer brings.
GIVEN = ("make", "git", "ca-certificates", "python3")
CHECKOUT = "srv/mt5crs"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
ON_RUNNERS = ("bash", "python3-venv", "sudo")
"""What the steps of workflows find on GitHub's machines besides."""
SETUP = ("make", "setup", "bundle")
IMPORTS = (".venv/bin/python", "-m", "tests.fresh.imports")
PYTHONS = {"12": "3.11", "13": "3.13"}
"""Of each release."""
UNITS = (".venv/bin/pytest", "tests/unit", "--numprocesses", "3", "--dist", "loadfile", "-q")
# `/proc` of its own: what is started in the root ends with it.
ENTER = """
set -eu
root=$1
shift
# A mount of its own, as the root of a machine is: tests make mount namespaces.
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
exec chroot "$root" /bin/sh -c 'cd "/$0" && exec .ci/scrubbed "$@"' "$@"
"""


class FreshError(RuntimeError):
    """The set-up did not work on the empty machine, or that machine could not be made."""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say what is done and how long it took."""
    begin = time.monotonic()
    yield
    print(f"fresh: {what} {time.monotonic() - begin:.1f} s", flush=True)


def clone(root: Path) -> str:
    """Put a clone of this checkout into the root, without what is not committed; return its commit."""
    git = require("git")
    # A clone that another user owns is as good as one's own here: it is only read.
    command = [git, "-c", "safe.directory=*", "clone", "--quiet", "--no-local", PROJECT, root / CHECKOUT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise FreshError(
            f"this checkout could not be cloned: {done.stderr.strip()}: run it in a clone made by git"
        )
    commit = [git, "-C", root / CHECKOUT, "rev-parse", "--short", "HEAD"]
    return subprocess.run(commit, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def run_inside(root: Path, command: tuple[str, ...]) -> None:
    """Run a command in the clone, scrubbed. FreshError if it fails; its output goes to ours."""
    enter = [require("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    done = subprocess.run(
        [*enter, "/bin/sh", "-c", ENTER, "sh", root, CHECKOUT, *command],
        env={**os.environ, "SSL_CERT_FILE": f"/{CERTIFICATES}"},
        stdin=subprocess.DEVNULL,
        timeout=1200,
        check=False,
    )
    if done.returncode != 0:
        raise FreshError(
            f"`{' '.join(command)}` ended with {done.returncode} on the empty machine (see above)"
        )


def _run_workflow(root: Path, python: str) -> None:
    """Run the light steps in the clone, each with GitHub's shell."""
    for (name, job), wanted in workflow.LIGHT.items():
        for step in workflow.steps(name, job, wanted, {"python": python}):
            script = root / "root" / "step.sh"
            script.write_text(step.script)
            with told(step.name):
                run_inside(root, (*workflow.SHELL, "/root/step.sh"))


def main() -> None:
    """Make the root, set up in it, import everything; exit status 1 with one sentence if that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.fresh", description=__doc__)
    parser.add_argument("--debian", choices=RELEASES, default="12", help="release of the root (default 12)")
    parser.add_argument("--units", action="store_true", help="run the unit tests in it too")
    parser.add_argument("--workflow", action="store_true", help="run the light steps of ci.yml instead")
    options = parser.parse_args()
    given = (*GIVEN, *ON_RUNNERS) if options.workflow else GIVEN
    try:
        with tempfile.TemporaryDirectory(prefix="mt5crs-fresh-") as scratch:
            root = Path(scratch) / "root"
            with told(f"Debian {options.debian} with {', '.join(given)} and nothing else"):
                write_root(root_argv(options.debian, given, (), root, os.environ.get("LAB_DEBIAN_MIRROR")))
                # The index may be behind a proxy whose certificate this machine trusts.
                trusted = os.environ.get("SSL_CERT_FILE") or f"/{CERTIFICATES}"
                (root / CERTIFICATES).write_bytes(Path(trusted).read_bytes())
            with told("clone"):
                commit = clone(root)
            if options.workflow:
                _run_workflow(root, PYTHONS[options.debian])
                return
            with told(f"`{' '.join(SETUP)}` at {commit}"):
                run_inside(root, SETUP)
            with told("imports"):
                run_inside(root, IMPORTS)
            if options.units:
                with told("unit tests"):
                    run_inside(root, UNITS)
    except (FreshError, LabError, MissingProgramError) as error:
        sys.exit(f"fresh: {error}")


if __name__ == "__main__":
    main()
