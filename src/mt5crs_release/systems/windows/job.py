"""Ties a service's program to its launcher: whatever ends the launcher ends the program, too.

A job object kills its processes when its last handle is closed; Windows closes the launcher's handle when the
launcher ends, also when it is ended in the Task Manager. Children of the program leave the job silently: a
terminal that the gateway has started is not killed with it. (``Scripts\\python.exe`` of a virtual environment
is a small program that ties the real interpreter to itself in the same way.)

The program is created suspended and resumed once it is in the job, so it never runs without being tied.
Sources: Microsoft's documentation of ``CreateJobObjectW``, ``JOBOBJECT_BASIC_LIMIT_INFORMATION`` and
``AssignProcessToJobObject``; ``NtResumeProcess`` resumes a process whose thread handle Python does not keep.
Imported on Windows only.
"""

from __future__ import annotations

import subprocess
import sys

CREATE_SUSPENDED = 0x4
KILL_ON_JOB_CLOSE = 0x2000
SILENT_BREAKAWAY_OK = 0x1000
EXTENDED_LIMIT_INFORMATION = 9

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("process_time", wintypes.LARGE_INTEGER),
            ("job_time", wintypes.LARGE_INTEGER),
            ("flags", wintypes.DWORD),
            ("minimum_working_set", ctypes.c_size_t),
            ("maximum_working_set", ctypes.c_size_t),
            ("active_processes", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority", wintypes.DWORD),
            ("scheduling", wintypes.DWORD),
        )

    class _IoCounters(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("ro", "wo", "oo", "rb", "wb", "ob"))

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("basic", _BasicLimits),
            ("io", _IoCounters),
            ("process_memory", ctypes.c_size_t),
            ("job_memory", ctypes.c_size_t),
            ("peak_process_memory", ctypes.c_size_t),
            ("peak_job_memory", ctypes.c_size_t),
        )

    _jobs: list[int] = []
    """The handle is never closed by us: that it is open is what keeps the programs alive."""

    def _job() -> int:
        if not _jobs:
            kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
            kernel32.CreateJobObjectW.restype = wintypes.HANDLE
            kernel32.CreateJobObjectW.argtypes = (wintypes.LPVOID, wintypes.LPCWSTR)
            kernel32.SetInformationJobObject.argtypes = (
                wintypes.HANDLE,
                ctypes.c_int,
                wintypes.LPVOID,
                wintypes.DWORD,
            )
            handle = kernel32.CreateJobObjectW(None, None)
            limits = _ExtendedLimits()
            limits.basic.flags = KILL_ON_JOB_CLOSE | SILENT_BREAKAWAY_OK
            size = ctypes.sizeof(limits)
            if not handle or not kernel32.SetInformationJobObject(
                handle, EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), size
            ):
                raise ctypes.WinError(ctypes.get_last_error())
            _jobs.append(handle)
        return _jobs[0]

    def tie(child: subprocess.Popen[bytes]) -> None:
        """Make ``child``, created suspended, end when this process does, and let it run.

        :raises OSError: Windows refused; the child is still suspended
        """
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
        process = wintypes.HANDLE(int(child._handle))  # type: ignore[attr-defined]
        if not kernel32.AssignProcessToJobObject(wintypes.HANDLE(_job()), process):
            raise ctypes.WinError(ctypes.get_last_error())
        if ctypes.WinDLL("ntdll").NtResumeProcess(process) != 0:
            raise OSError("the program of the service could not be resumed")
