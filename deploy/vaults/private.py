"""A private place for a decrypted text: in memory where there is such a place, removed whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- a directory of our own in it, 0700
_MOUNTS: Final = Path("/proc/self/mounts")
_ENDING: Final = ("SIGTERM", "SIGHUP", "SIGQUIT")


class InterruptedByError(BaseException):
    """A signal that ends this process came; everything is tidied up on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def in_memory() -> list[Path]:
    """Directories whose files are never on a disk (but may be in swap), best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    wanted = [Path(runtime)] if runtime else []
    wanted.append(_MEMORY)
    try:
        lines = [line.split() for line in _MOUNTS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    kinds = {words[1]: words[2] for words in lines if len(words) > 2}
    return [
        path
        for path in wanted
        if _kind(path, kinds) in ("tmpfs", "ramfs") and path.is_dir() and os.access(path, os.W_OK | os.X_OK)
    ]


def _kind(path: Path, kinds: dict[str, str]) -> str:
    whole = path.resolve()
    mount = next((str(each) for each in (whole, *whole.parents) if str(each) in kinds), "")
    return kinds.get(mount, "")


@contextlib.contextmanager
def place() -> Iterator[tuple[Path, bool]]:
    """A directory of ours alone (0700), and whether it is in memory; gone afterwards with all that is in it.

    What a killed process left is removed first. Signals that end a process remove it too: inside, they are
    an `InterruptedByError`.
    """
    memory = in_memory()
    parent = memory[0] if memory else Path(tempfile.gettempdir())
    prefix = f"mt5crs-secrets-{os.getuid()}-"
    _forget_dead(parent, prefix)
    with _ending_raises():
        directory = Path(tempfile.mkdtemp(dir=parent, prefix=f"{prefix}{os.getpid()}-"))
        try:
            yield directory, bool(memory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _forget_dead(parent: Path, prefix: str) -> None:
    for path in parent.glob(f"{prefix}*"):
        process = path.name.removeprefix(prefix).partition("-")[0]
        with contextlib.suppress(OSError):
            if process.isdigit() and path.lstat().st_uid == os.getuid() and not _lives(int(process)):
                shutil.rmtree(path, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


_heard: list[int] | None = None
"""Signals that wait for the end of `undisturbed`; None: none waits."""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A signal that ends this process raises at the end of the body: what it starts is known by then."""
    global _heard  # a process has one set of signal handlers
    _heard = []
    try:
        yield
    finally:
        came, _heard = _heard, None
    if came:
        raise InterruptedByError(came[0])


@contextlib.contextmanager
def _ending_raises() -> Iterator[None]:
    def end(number: int, _frame: FrameType | None) -> None:
        for each in held:  # a second one must not stop the tidying up
            signal.signal(each, signal.SIG_IGN)
        if _heard is not None:
            _heard.append(number)
            return
        raise InterruptedByError(number)

    held: dict[int, object] = {}
    try:
        for name in _ENDING:
            number = getattr(signal, name)
            held[number] = signal.signal(number, end)
    except ValueError:  # not the main thread: no signal arrives here
        pass
    try:
        yield
    finally:
        for number, before in held.items():
            signal.signal(number, before)  # type: ignore[arg-type]
