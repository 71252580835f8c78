"""The tool's own units, which ``install-units`` puts on a host.

One reverts what was not confirmed before a reboot, one looks hourly whether code is what was built.
"""

from __future__ import annotations

from typing import Any

from mt5crs_release.errors import FailedError
from mt5crs_release.lifecycle.watchdog import own_command
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import Host
from mt5crs_release.systems.linux.systemd import Systemd

BOOT_UNIT = "mt5crs-release-recover.service"
INTACT_UNIT = "mt5crs-release-intact.service"
INTACT_TIMER = "mt5crs-release-intact.timer"
_TIMER_STARTS_S = 30.0
_STARTED_AT_BOOT = (BOOT_UNIT, INTACT_TIMER)


def unit_texts(command: list[str]) -> dict[str, str]:
    """Return every unit by its name; ``command`` calls this tool."""
    return {
        BOOT_UNIT: _boot(command),
        INTACT_UNIT: _intact(command),
        # Not on the minute: hosts share disks.
        INTACT_TIMER: """\
[Unit]
Description=Look once an hour whether the code of MT5-CRS is what was built

[Timer]
OnCalendar=hourly
RandomizedDelaySec=10min

[Install]
WantedBy=timers.target
""",
    }


def _intact(command: list[str]) -> str:
    """Return the unit that compares; its failure is the alert Mt5crsCodeChanged."""
    return f"""\
[Unit]
Description=Compare code and configuration of MT5-CRS with what was built and staged

[Service]
Type=oneshot
ExecStart={" ".join(command)} intact
TimeoutStartSec=30min
# Reads everything and is in no hurry.
Nice=19
IOSchedulingClass=idle
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
PrivateNetwork=yes
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=strict
LimitCORE=0
MemoryMax=256M
TasksMax=16
"""


def _boot(command: list[str]) -> str:
    """Return the boot unit. It runs before every ordinary service: none starts from a doubtful generation."""
    return f"""\
[Unit]
Description=Revert MT5-CRS generations that were not confirmed before the reboot
DefaultDependencies=no
RequiresMountsFor=/opt/mt5crs /etc/systemd/system
After=sysinit.target local-fs.target
Before=basic.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={" ".join(command)} recover --boot
TimeoutStartSec=120
LimitCORE=0
MemoryMax=512M
TasksMax=128

[Install]
WantedBy=multi-user.target
"""


def install_units(host: Host, systemd: Systemd, *, dry_run: bool = False) -> dict[str, Any]:
    """Install and enable the tool's units; nothing changes when they are there already.

    :raises FailedError: systemd refused
    """
    wanted = {name: text.encode() for name, text in unit_texts(own_command(host)).items()}
    differing = [name for name in wanted if not _same(host, name, wanted[name])]
    idle = systemd.look([INTACT_TIMER])[INTACT_TIMER].active != "active"
    due = {*differing, *systemd.not_enabled(_STARTED_AT_BOOT), *([INTACT_TIMER] if idle else ())}
    if due and not dry_run:
        store.ensure_directory(host.units)
        for name in differing:
            store.replace_file(host.units / name, wanted[name], 0o644)
        if differing:
            systemd.reload()
        systemd.enable(_STARTED_AT_BOOT)
        if INTACT_TIMER in due:
            problem = systemd.restart(INTACT_TIMER, _TIMER_STARTS_S)
            if problem:
                raise FailedError(
                    f"{INTACT_TIMER} does not start: {problem}",
                    remedy=f"see `systemctl status {INTACT_TIMER}`",
                )
    return {"changed": bool(due), "units": sorted(due)}


def _same(host: Host, name: str, wanted: bytes) -> bool:
    path = host.units / name
    return path.is_file() and not path.is_symlink() and path.read_bytes() == wanted
