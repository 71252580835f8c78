"""systemd notification (sd_notify(3)): readiness, status, watchdog. Silent when not run by systemd."""

from __future__ import annotations

import array
import os
import socket


def _send(message: str, descriptor: int | None = None) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            if descriptor is None:
                sock.sendto(message.encode(), address)
            else:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
                sock.sendmsg([message.encode()], [rights], 0, address)
        except OSError:
            return False
    return True


def ready(status: str = "") -> bool:
    """Tell systemd that the service is ready; True when there is a systemd to tell."""
    return _send("READY=1" + (f"\nSTATUS={status}" if status else ""))


def status(text: str) -> bool:
    """Set the one-line status that `systemctl status` shows."""
    return _send(f"STATUS={text}")


def stopping(text: str = "") -> bool:
    """Tell systemd that the service is on its way out."""
    return _send("STOPPING=1" + (f"\nSTATUS={text}" if text else ""))


def store(descriptor: int, name: str) -> bool:
    """Leave a copy of a file descriptor to systemd, which passes it to the service's next process.

    The unit needs FileDescriptorStoreMax=.
    """
    # FDPOLL=0: systemd is not to judge by itself whether it is still good.
    return _send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptor)


def forget(name: str) -> bool:
    """Have systemd close its copies of the descriptors of that name."""
    return _send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def watchdog() -> bool:
    """Tell systemd that the service is alive. Call it only after a self-test has passed."""
    return _send("WATCHDOG=1")


def watchdog_interval_s() -> float | None:
    """Seconds between two pings (half of WatchdogSec), or None when the unit has no watchdog."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
