"""Linux: symbolic links, modes and owners, flock, systemd."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt5crs_release.errors import FailedError
from mt5crs_release.systems.system import Owner

if TYPE_CHECKING:
    from mt5crs_release.systems.system import Services

assert sys.platform != "win32"  # noqa: S101 -- what follows does not exist there, for the type checker either


class Linux:
    """See :class:`mt5crs_release.systems.system.System`."""

    links_units = True
    keeps_modes = True

    def root(self) -> Path:
        """Return the root of a real host."""
        return Path("/")

    def base(self, root: Path) -> Path:
        """Return the tool's own directory."""
        return root / "opt/mt5crs"

    def allowed_signers(self, root: Path) -> Path:
        """Return the file that says whose bundles are accepted."""
        return root / "etc/mt5crs/allowed_signers"

    def may_change(self) -> bool:
        """Tell whether this process is root's."""
        return os.geteuid() == 0

    def boot_id(self) -> str:
        """Return the kernel's identifier of this boot."""
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def boot_clock(self) -> float:
        """Return CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def try_lock(self, descriptor: int) -> bool:
        """Take the kernel's lock (flock) without waiting."""
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise
            return False
        return True

    def create_file(self, path: Path, content: bytes, mode: int, owner: Owner | None) -> None:
        """Create ``path``; never readable by others before it has its mode, and never through a link."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename."""
        source.replace(target)

    def publish(self, source: Path, target: Path) -> None:
        """Rename."""
        source.rename(target)

    def sync_directory(self, path: Path) -> None:
        """Put the entries of directory ``path`` on disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_file_system(self, path: Path) -> None:
        """Put everything on the file system of ``path`` on disk (syncfs).

        :raises FailedError: the disk reports an error
        """
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if libc.syncfs(descriptor) != 0:
                code = ctypes.get_errno()
                raise FailedError(
                    f"the disk below {path} could not be synced: {os.strerror(code)}",
                    remedy="check the disk (dmesg, df), then repeat the command; nothing was switched",
                )
        finally:
            os.close(descriptor)

    def read_pointer(self, path: Path) -> str:
        """Return the target of a symbolic link."""
        return str(path.readlink())

    def make_pointer(self, path: Path, target: str) -> None:
        """Make a symbolic link."""
        path.symlink_to(target)

    def follow(self, pointer: Path) -> Path:
        """Return the link itself."""
        return pointer

    def link_directory(self, link: Path, target: Path) -> None:
        """Make a relative symbolic link."""
        link.symlink_to(os.path.relpath(target, link.parent))

    def owner(self, user: str, group: str) -> Owner | None:
        """Return user and group as numbers; ``None`` for others than root, who cannot give files away."""
        import grp
        import pwd

        numbers = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
        return numbers if os.geteuid() == 0 else None

    def protect(self, directory: Path) -> None:
        """Leave ``directory`` to its owner."""
        directory.chmod(0o700)

    def release(self, directory: Path) -> None:
        """Let others into ``directory``; its files have modes of their own."""
        directory.chmod(0o755)

    def make_runtime(self, target: Path) -> None:
        """Create an empty virtual environment."""
        import venv

        venv.EnvBuilder(with_pip=False, symlinks=True).create(target)

    def runtime_needs(self) -> str:
        """Return imports of what a distribution may have left out."""
        return "import ctypes, sqlite3"

    def python_remedy(self) -> str:
        """Return whose Python it should be."""
        return "install the distribution's packages python3 and python3-venv again"

    def runtime_python(self, target: Path) -> Path:
        """Return ``bin/python``."""
        return target / "bin/python"

    def runtime_library(self, target: Path) -> Path:
        """Return ``lib``."""
        return target / "lib"

    def environment(self) -> dict[str, str]:
        """Return the path, and messages in English."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}

    def build_environment(self, directory: Path) -> dict[str, str]:
        """Return as little as pip needs."""
        return {**self.environment(), "HOME": str(directory), "TMPDIR": str(directory)}

    def own_program(self, program: Path) -> list[str]:
        """Return the program, which is executable."""
        return [str(program)]

    def services(self, base: Path, beat: Callable[[], None] = lambda: None) -> Services:
        """Return systemd."""
        from mt5crs_release.systems.linux.systemd import Systemd

        del base
        return Systemd(beat)

    def active(self, base: Path, units: Sequence[str]) -> Mapping[str, str]:
        """Return what ``systemctl show`` says, in one call; nothing when it does not answer."""
        import subprocess

        del base
        command = ["systemctl", "show", "-p", "ActiveState", "--value", *units]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        values = answer.stdout.split()
        return dict(zip(units, values, strict=True)) if len(values) == len(units) else {}
