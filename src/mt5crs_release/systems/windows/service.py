"""The conversation of a Windows service with the Service Control Manager, through ctypes.

``StartServiceCtrlDispatcherW`` may be called by any program that the manager started, ``python.exe`` too, so
no further executable has to be trusted and shipped. Imported on Windows only.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _OWN_PROCESS = 0x10
    _START_PENDING, _STOP_PENDING, _RUNNING, _STOPPED = 2, 3, 4, 1
    _ACCEPT_STOP, _ACCEPT_SHUTDOWN = 0x1, 0x4
    _CONTROL_STOP, _CONTROL_INTERROGATE, _CONTROL_SHUTDOWN = 1, 4, 5
    _SERVICE_SPECIFIC_ERROR = 1066
    _NOT_IMPLEMENTED = 120

    class _Status(ctypes.Structure):
        _fields_ = tuple(
            (name, wintypes.DWORD)
            for name in ("type", "state", "accepted", "exit", "specific_exit", "checkpoint", "wait_hint")
        )

    _MAIN = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR))
    _HANDLER = ctypes.WINFUNCTYPE(
        wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID, wintypes.LPVOID
    )

    class _Entry(ctypes.Structure):
        _fields_ = (("name", wintypes.LPWSTR), ("main", _MAIN))

    def dispatch(name: str, body: Callable[[Callable[[], bool]], int]) -> int:
        """Run ``body`` as the service ``name``; return its exit status once the manager has been told.

        :raises OSError: this process was not started by the Service Control Manager
        """
        api = ctypes.WinDLL("advapi32", use_last_error=True)
        api.RegisterServiceCtrlHandlerExW.restype = wintypes.HANDLE
        api.RegisterServiceCtrlHandlerExW.argtypes = (wintypes.LPCWSTR, _HANDLER, wintypes.LPVOID)
        api.SetServiceStatus.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Status))
        # A service has no console, and Ctrl-Break reaches a child only through one that both share.
        ctypes.windll.kernel32.AllocConsole()
        stop = threading.Event()
        handle: list[int] = []
        outcome = [1]

        def tell(state: int, exit_status: int = 0) -> None:
            accepted = _ACCEPT_STOP | _ACCEPT_SHUTDOWN if state == _RUNNING else 0
            code = _SERVICE_SPECIFIC_ERROR if exit_status else 0
            hint = 30_000 if state in (_START_PENDING, _STOP_PENDING) else 0
            status = _Status(_OWN_PROCESS, state, accepted, code, exit_status, 0, hint)
            api.SetServiceStatus(handle[0], ctypes.byref(status))

        def control(code: int, _kind: int, _data: object, _context: object) -> int:
            if code in (_CONTROL_STOP, _CONTROL_SHUTDOWN):
                tell(_STOP_PENDING)
                stop.set()
                return 0
            return 0 if code == _CONTROL_INTERROGATE else _NOT_IMPLEMENTED

        handler = _HANDLER(control)

        def main(_count: int, _arguments: object) -> None:
            handle.append(api.RegisterServiceCtrlHandlerExW(name, handler, None))
            tell(_RUNNING)
            try:
                outcome[0] = body(stop.is_set)
            finally:
                tell(_STOPPED, outcome[0])

        table = (_Entry * 2)(_Entry(name, _MAIN(main)), _Entry(None, _MAIN()))
        if not api.StartServiceCtrlDispatcherW(table):
            raise ctypes.WinError(ctypes.get_last_error())
        return outcome[0]
