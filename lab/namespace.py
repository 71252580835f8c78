"""On machines with cgroup v1, alone or beside v2, the lab lives in a mount namespace with pure cgroup v2.

crun and systemd in the hosts need a pure cgroup v2 tree. Where the machine does not have one, a keeper
process holds a private mount namespace with one for as long as any lab exists, and podman runs inside of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError
from lab.machine import program

RUN = Path("/run/mt5crs-lab")
KEEPER_FILE = RUN / "keeper.json"
START_TIMEOUT_S = 10.0
_ENTER_PRIVATE_CGROUP = (
    "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && echo ready && "
    "exec sleep infinity >/dev/null 2>&1"
)
_STAY = "echo ready && exec sleep infinity >/dev/null 2>&1"


def has_pure_cgroup2(mountinfo: str) -> bool:
    """Tell from the text of `/proc/self/mountinfo` whether `/sys/fs/cgroup` is one cgroup v2 tree."""
    kind = None
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        if separator and left.split()[4] == "/sys/fs/cgroup":
            kind = right.split()[0]  # the last mount on a path is the visible one
    return kind == "cgroup2"


def needs_keeper() -> bool:
    """Tell whether podman must run in a private namespace on this machine."""
    return not has_pure_cgroup2(Path("/proc/self/mountinfo").read_text())


@contextmanager
def machine_lock() -> Iterator[None]:
    """Serialise what concerns all labs of this machine: the keeper and the choice of networks."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    with (RUN / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def start_time(pid: int) -> int | None:
    """Return when process `pid` started, in clock ticks after boot; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the name is in parentheses and may hold anything; starttime is field 22, state is field 3.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def enter_argv(pid: int) -> list[str]:
    """Arguments that run the command behind them where process `pid` is: as root of that host."""
    kinds = ("mount", "uts", "ipc", "net", "pid", "cgroup")
    return [program("nsenter"), f"--target={pid}", *(f"--{kind}" for kind in kinds), "--"]


def running_keeper() -> int | None:
    """Return the keeper's process id, or None. A recycled process id is not mistaken for it."""
    try:
        record = json.loads(KEEPER_FILE.read_text())
        pid, started = int(record["pid"]), int(record["start_time"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return pid if start_time(pid) == started else None


def _orphaned_namespace() -> int | None:
    """Find a container monitor that still lives in the namespace of a keeper that was killed."""
    own = Path("/proc/self/ns/mnt").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "comm").read_text().strip() != "conmon":
                continue
            if b"mt5crs-" in (entry / "cmdline").read_bytes() and (entry / "ns/mnt").readlink() != own:
                return int(entry.name)
        except OSError:
            continue
    return None


def ensure_keeper() -> int:
    """Return the keeper's process id, starting one if needed. Call it under `machine_lock`."""
    if (pid := running_keeper()) is not None:
        return pid
    if (member := _orphaned_namespace()) is not None:
        argv = [program("nsenter"), f"--mount=/proc/{member}/ns/mnt", "--", "/bin/sh", "-c", _STAY]
    else:
        # What this machine mounts later is seen in there too, where its mounts are shared; nothing goes back.
        argv = [program("unshare"), "--mount", "--propagation", "slave", "--"]
        argv += ["/bin/sh", "-c", _ENTER_PRIVATE_CGROUP]
    keeper = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )
    assert keeper.stdout is not None  # noqa: S101 - a pipe, see above
    assert keeper.stderr is not None  # noqa: S101
    readable, _, _ = select.select([keeper.stdout], [], [], START_TIMEOUT_S)
    if not readable or keeper.stdout.readline() != b"ready\n":
        keeper.kill()
        reason = keeper.stderr.read().decode(errors="replace").strip() or "no answer"
        raise LabError(
            f"this machine has no pure cgroup v2 and a private one could not be mounted ({reason}): "
            "boot the machine with systemd.unified_cgroup_hierarchy=1, or give this container CAP_SYS_ADMIN"
        )
    keeper.stdout.close()
    keeper.stderr.close()
    temporary = KEEPER_FILE.with_suffix(".new")
    temporary.write_text(json.dumps({"pid": keeper.pid, "start_time": start_time(keeper.pid)}))
    temporary.replace(KEEPER_FILE)
    return keeper.pid


def sees(directory: Path) -> bool:
    """Tell whether podman finds `directory` where it runs: not what was mounted after the namespace."""
    pid = running_keeper() if needs_keeper() else None
    if pid is None:
        return True
    try:
        return Path(f"/proc/{pid}/root{directory.resolve()}").samefile(directory)
    except OSError:
        return False


def stop_keeper() -> None:
    """End the keeper, and with its last process the namespace. Call it under `machine_lock`."""
    if (pid := running_keeper()) is not None:
        os.kill(pid, signal.SIGKILL)
    KEEPER_FILE.unlink(missing_ok=True)
