"""No further process may come of this one: a filter of system calls, for this process until its end.

systemd's filters cannot tell a thread from a process (both are `clone`, with other flags), so the filter is
made here. It allows exec, since that makes no second process: what a strategy's process becomes in the end is
started by it (`watch.py`), under the same filter and in the same sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FLAGS_AT = 0, 4, 16
_CLONE_THREAD = 0x00010000


class _Calls(NamedTuple):
    """The kernel's name of a machine, and its numbers of the calls that make processes."""

    machine: int
    clone: int
    clone3: int
    forks: tuple[int, ...]


_KNOWN = {
    "x86_64": _Calls(0xC000003E, 56, 435, (57, 58)),
    "aarch64": _Calls(0xC00000B7, 220, 435, ()),
}


def forbid() -> str | None:
    """Let this thread, and all that it starts, make threads alone. Returns why that cannot be had, or None.

    Call it before the process has other threads: they would go without.
    """
    calls = _KNOWN.get(platform.machine())
    if sys.platform != "linux" or calls is None:
        return f"no filter for {sys.platform} on {platform.machine()}"
    program = ctypes.create_string_buffer(_program(calls))
    # struct sock_fprog: how many instructions of eight bytes, and where they are
    described = ctypes.create_string_buffer(
        struct.pack("@HP", (len(program) - 1) // 8, ctypes.addressof(program))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described, 0, 0
    ):
        return f"the kernel takes no filter ({errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno())})"
    return None


def _program(calls: _Calls) -> bytes:
    """The filter in the kernel's classic BPF.

    clone3, whose flags it cannot see, is answered with ENOSYS: the C library then takes clone.
    """
    forks = len(calls.forks)
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 0, forks + 5, calls.machine),  # another one's calls are refused by the unit
        (_LOAD, 0, 0, _NUMBER_AT),
        (_EQUAL, forks + 5, 0, calls.clone3),
        *((_EQUAL, forks + 3 - index, 0, number) for index, number in enumerate(calls.forks)),
        (_EQUAL, 0, 2, calls.clone),
        (_LOAD, 0, 0, _FLAGS_AT),
        (_BITS, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
