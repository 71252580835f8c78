"""Filter that says which directories of a Windows host others may use, so that only those are touched.

    loop: "{{ _baseline_windows_directories | windows_rights_wanting(told, account_sid) }}"

Each module costs a second or more on Windows, and one directory takes six of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mt5crs_release.systems.windows.rights import ADMINISTRATORS_SID, SYSTEM_SID, holds_alone

FULL = 0x1F01FF
MASKS = {"FullControl": FULL, "Modify": 0x1301BF, "ReadAndExecute": 0x1200A9}
"""FileSystemRights of .NET, with the Synchronize that Windows adds to each entry that allows something."""


def windows_rights_wanting(
    directories: Sequence[Mapping[str, str]], told: Sequence[str], account: str
) -> list[Mapping[str, str]]:
    """The directories whose owner or rights differ from what is wanted, or are not known; all when in doubt.

    :param directories: `path`, and `rights` of the account
    :param told: the SDDL of each in the same order, as `(Get-Acl …).Sddl` prints them; that of a directory
        which is not there is missing
    :param account: SID of the account; empty: not known
    """
    if not account or len(told) != len(directories):
        return list(directories)
    owners = {SYSTEM_SID: FULL, ADMINISTRATORS_SID: FULL}
    return [
        directory
        for directory, sddl in zip(directories, told, strict=True)
        if not holds_alone(sddl, ADMINISTRATORS_SID, {**owners, account: MASKS[directory["rights"]]})
    ]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name → function."""
        return {"windows_rights_wanting": windows_rights_wanting}
