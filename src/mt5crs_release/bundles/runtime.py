"""Runtimes: virtual environments built offline from a verified bundle, one per content and Python.

A runtime is built at its final path, since the scripts in a virtual environment name their interpreter
by absolute path. It counts only once its marker is written, after everything else is on disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mt5crs_release.bundles import runtime_files, runtime_marker
from mt5crs_release.bundles.bundle import Bundle, this_python
from mt5crs_release.desired.digest import SHORT, runtime_digest
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.storage import store
from mt5crs_release.storage.lock import Lock
from mt5crs_release.storage.paths import COMPLETE, TEMPORARY, Host
from mt5crs_release.systems import system

_BUILD_TIMEOUT_S = 300.0
_LOCK_WAIT_S = 300.0
_EXTRA = "extra"
"""Where a strategy's wheels are unpacked, below the core's."""
_REMEDY = (
    "free disk space if it says so (`mt5crs-release prune`), else build the bundle again; "
    "the old generation is still running"
)


def runtime_name(content: str) -> str:
    """Return the directory name of the runtime for bundle ``content`` on this host's Python."""
    return f"{content[:SHORT]}-{this_python()}"


def lock_runtimes(host: Host, command: str) -> Lock:
    """Return the lock that protects all runtimes of this host; taken after a service's lock, never before."""
    return Lock(host.runtimes / ".lock", command, _LOCK_WAIT_S)


def find_runtime(host: Host, content: str) -> dict[str, Any] | None:
    """Return what the marker of the complete runtime for ``content`` says; ``None`` when there is none, or
    one whose files were changed since it was built.
    """
    name = runtime_name(content)
    record = runtime_marker.read(host, name)
    if record is None or record.get("content") != content or runtime_files.problems(host.runtimes / name):
        return None
    return record


def build_runtime(
    host: Host, bundle: Bundle, beat: Callable[[str], None], extra: Bundle | None = None
) -> dict[str, Any]:
    """Build the runtime of ``bundle`` unless it is there; return what its marker says.

    :param extra: a strategy's bundle, whose wheels are installed with it

    The caller holds :func:`lock_runtimes`.

    :raises FailedError: pip failed or the disk is full; what was begun is removed
    """
    content = runtime_digest(bundle.content, None if extra is None else extra.code)
    found = find_runtime(host, content)
    if found is not None:
        return found
    store.sweep(host.runtimes)
    target = host.runtimes / runtime_name(content)
    if target.exists():
        # Programs may run from one that was changed: what they have open stays until the next build.
        target.rename(host.runtimes / f"{TEMPORARY}changed.{os.getpid()}")
    wheelhouse = host.runtimes / f"{TEMPORARY}wheels.{os.getpid()}"
    try:
        wheelhouse.mkdir(0o700)
        beat("unpacking the bundle")
        bundle.unpack(wheelhouse)
        if extra is not None:
            extra.unpack(wheelhouse / _EXTRA)
        beat("building the runtime")
        system.here().make_runtime(target)
        _check(target, wheelhouse)
        _install(target, wheelhouse)
        target.chmod(0o755)
        files = runtime_files.record(target)
        store.sync_file_system(target)
        record = {
            "files": files,
            "content": content,
            "version": bundle.version,
            "bundle": bundle.path.name,
            "protocol": bundle.protocol,
        }
        store.write_new(target / COMPLETE, json.dumps(record).encode(), 0o644)
        store.sync_directory(target)
        store.sync_directory(host.runtimes)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(wheelhouse, ignore_errors=True)
    return record


def _check(target: Path, directory: Path) -> None:
    """Run the interpreter that was made: one copied from an incomplete Python looks like any other.

    :raises FailedError: it does not start, is not the one of ``target``, or lacks what the services load
    """
    here = system.here()
    code = f"import sys; {here.runtime_needs()}; print(sys.prefix)"
    remedy = f"{here.python_remedy()}; the old generation is still running"
    said = _run(
        [str(here.runtime_python(target)), "-I", "-c", code],
        directory,
        "this host's Python is incomplete",
        remedy,
    )
    prefix = Path(said.strip().splitlines()[-1])
    if not prefix.is_dir() or not prefix.samefile(target):
        raise FailedError(f"the interpreter made in {target} believes to be in {prefix}", remedy=remedy)


def _install(target: Path, wheelhouse: Path) -> None:
    python = system.here().runtime_python(target)
    pip = sorted((wheelhouse / "wheels").glob("pip-*.whl"))
    if not pip:
        raise RefusedError(
            "the bundle carries no pip wheel", remedy="build it again with `make bundle`; nothing was changed"
        )
    options = "--isolated --no-input --no-cache-dir --disable-pip-version-check install"
    options += " --quiet --root-user-action=ignore --no-compile"
    options += " --no-index --only-binary=:all: --require-hashes"
    arguments = [*options.split(), "--find-links", str(wheelhouse / "wheels")]
    arguments += ["-r", str(wheelhouse / "requirements.txt")]
    remedy = _REMEDY
    if (wheelhouse / _EXTRA).is_dir():
        arguments += ["--find-links", str(wheelhouse / _EXTRA / "wheels")]
        arguments += ["-r", str(wheelhouse / _EXTRA / "requirements.txt")]
        remedy = (
            "if it names a conflict, the strategy's bundle does not fit this core: lock and build it again "
            f"(`make strategy-bundle NAME=…`); else {_REMEDY}"
        )
    _run(
        [str(python), "-m", "pip", *arguments],
        wheelhouse,
        remedy=remedy,
        PYTHONPATH=str(pip[-1]),
    )
    compile_all = "-m compileall -q --invalidation-mode unchecked-hash"
    _run([str(python), *compile_all.split(), str(system.here().runtime_library(target))], wheelhouse)
    _run([str(python), "-I", "-c", "import mt5crs"], wheelhouse)


def _run(
    command: list[str],
    directory: Path,
    failed: str = "building the runtime failed",
    remedy: str = _REMEDY,
    **variables: str,
) -> str:
    """Return what a command printed. FailedError, beginning with ``failed``, when it did not succeed."""
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=directory,
            env={**system.here().build_environment(directory), "PYTHONHASHSEED": "0", **variables},
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FailedError(
            f"building the runtime took longer than {_BUILD_TIMEOUT_S:g} s",
            remedy="look at the load and the disk of this host, then repeat; the old generation still runs",
        ) from None
    except OSError as error:
        raise FailedError(f"{failed}: {command[0]} does not start: {error}", remedy=remedy) from None
    if answer.returncode != 0:
        said = "\n".join(answer.stdout.strip().splitlines()[-8:])
        raise FailedError(f"{failed} ({' '.join(command[1:4])} …):\n{said}", remedy=remedy)
    return answer.stdout
