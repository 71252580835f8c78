"""Programs that the kit starts on this machine: where they are, and which package brings one that is missing.

Nothing is started by a bare name. What the set-up installed is found although PATH does not list it, and what
is missing is one sentence that names package and command.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

DEBIAN_PACKAGES = {
    "crun": "crun",
    "git": "git",
    "ip": "iproute2",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "podman": "podman",
    "promtool": "prometheus",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "strace": "strace",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
}
"""Program → Debian package; lab/requirements.apt lists the same packages."""

LOCKED = ("ansible-playbook", "pyinfra", "uv")
"""Programs of the virtual environment, as uv.lock names them; what is not Debian's is one of these."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MissingProgramError(RuntimeError):
    """A program is not on this machine; the text names what brings it and the command."""


def find(name: str) -> str | None:
    """Return the absolute path of a program, or None.

    Looked for beside this interpreter, then in PATH, then in the system's directories: the sbin ones are not
    in an ordinary user's PATH.
    """
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", ""), SYSTEM_PATH]))


def require(name: str) -> str:
    """Return the absolute path of a program. MissingProgramError if it is not there."""
    path = find(name)
    if path is None:
        raise MissingProgramError(f"{name} is missing: {remedy([name])}")
    return path


def remedy(names: list[str]) -> str:
    """Say what installs these programs."""
    locked = [name for name in names if name not in DEBIAN_PACKAGES]
    packages = sorted({DEBIAN_PACKAGES[name] for name in names if name in DEBIAN_PACKAGES})
    said = [f"`make setup` puts {' and '.join(locked)} into {Path(sys.prefix)}"] if locked else []
    if packages:
        said.append(
            f"install it with `apt-get install {' '.join(packages)}` as root (Debian and Ubuntu; elsewhere "
            "the package may have another name)"
        )
    return "; ".join(said)
