"""The unit that looks after unconfirmed generations at boot; ``install-units`` puts it on a host."""

from __future__ import annotations

from typing import Any

from mt5crs_release import store
from mt5crs_release.paths import Host
from mt5crs_release.systemd import Systemd
from mt5crs_release.watchdog import own_command

BOOT_UNIT = "mt5crs-release-recover.service"


def unit_text(command: list[str]) -> str:
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
    """Install and enable the boot unit; nothing changes when it is there already.

    :raises FailedError: systemd refused
    """
    path = host.units / BOOT_UNIT
    wanted = unit_text(own_command(host)).encode()
    same = path.is_file() and not path.is_symlink() and path.read_bytes() == wanted
    if same and not systemd.not_enabled([BOOT_UNIT]):
        return {"changed": False, "units": []}
    if not dry_run:
        store.ensure_directory(host.units)
        if not same:
            store.replace_file(path, wanted, 0o644)
            systemd.reload()
        systemd.enable([BOOT_UNIT])
    return {"changed": True, "units": [BOOT_UNIT]}
