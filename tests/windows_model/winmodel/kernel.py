"""What the release tool asks of Windows, answered by the model: the only thing replaced in the tool."""
# mypy: disable-error-code="import-not-found,no-any-return"
# (the package is copied to the host and found there by PYTHONPATH)

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from winmodel import commands, state

from mt5crs_release.systems.windows.kernel import Kernel, no_account

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Stand for the job object: Linux kills this child when the thread that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ModelKernel(Kernel):
    """Real files, processes and locks of this machine; rights, services and boots of the model."""

    load_stable_abi = "ctypes.CDLL(None)"

    def run(self, command: Sequence[str], timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Answer one of the modelled programs. An unknown one, or an unknown option of it, is an error."""
        del timeout_s
        code, said = commands.run(list(command))
        return subprocess.CompletedProcess(list(command), code, said, "" if code == 0 else said)

    def spawn(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start the service's real program; Windows paths in its settings mean places of the model."""
        state.effect("process", command=[state.windows_path(Path(command[0])), *command[1:]])
        with log.open("ab") as stream:
            return subprocess.Popen(
                [state.translate(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={name: state.translate(value) for name, value in environment.items()},
                preexec_fn=_die_with_parent,
            )

    def base_environment(self) -> dict[str, str]:
        """Return what a program needs here."""
        return {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}

    def make_runtime(self, target: Path) -> None:
        """Create a virtual environment that looks as one does on Windows."""
        venv.EnvBuilder(with_pip=False, symlinks=True).create(target)
        (target / "Scripts").symlink_to("bin")
        (target / "Lib").symlink_to("lib")
        (target / "bin/python.exe").symlink_to("python")

    def create_file(self, path: Path, content: bytes) -> None:
        """Create a file and log who could read it when its content arrived."""
        state.effect("content", path=state.windows_path(path), readers=state.readers(path.parent))
        super().create_file(path, content)

    def is_administrator(self) -> bool:
        """Tell whether this process may change the host."""
        return os.geteuid() == 0

    def boot_clock(self) -> float:
        """Return seconds since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """Return the identifier of this (modelled) boot."""
        real = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{real}-{state.look()['boot']}"

    def replace(self, source: Path, target: Path) -> None:
        """Give ``source`` the name of file ``target``."""
        if target.name == "current":
            state.effect("pointer", path=state.windows_path(target), to=source.read_text())
        source.replace(target)

    def rename_directory(self, source: Path, target: Path) -> None:
        """Give a directory another name; as on Windows, not over one that exists."""
        if target.exists():
            raise FileExistsError(17, "File exists", str(target))
        state.effect("rename", path=state.windows_path(source), to=state.windows_path(target))
        source.rename(target)

    def junction(self, link: Path, target: Path) -> None:
        """Make directory ``link`` show what is in ``target``."""
        state.effect("junction", path=state.windows_path(link), to=state.windows_path(target))
        link.symlink_to(target)

    def try_lock(self, descriptor: int) -> bool:
        """Take the lock of an open file without waiting."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def flush_volume(self, path: Path) -> None:
        """Put everything written on disk."""
        del path
        os.sync()

    def account_sid(self, account: str) -> str:
        """Return the SID of a local account."""
        try:
            return state.sid_of(account)
        except state.UnknownError:
            raise no_account(account) from None

    def is_alive(self, pid: int) -> bool:
        """Tell whether a process runs (a zombie does not)."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    def interrupt(self, child: subprocess.Popen[bytes]) -> None:
        """Ask a child to end; stands for Ctrl-Break."""
        child.send_signal(signal.SIGINT)

    def serve(self, name: str, body: Callable[[Callable[[], bool]], int]) -> int:
        """Be the service: the modelled manager stops it with SIGTERM."""
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(name))
        return body(lambda: bool(asked))
