"""What an administrator had on a host before the first deployment is kept, and put back when we leave."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
THEIRS = "# the administrator's own\ntable inet mine { }\n"
PROGRAMS = {"nft": "exit 0", "sshd": "exit 0", "systemctl": "exit 1", "systemd-sysctl": "exit 0"}
"""What in_force.sh calls; nothing of this machine is touched."""


class Host:
    """Directories that in_force.sh takes for those of a host."""

    def __init__(self, root: Path) -> None:
        self.root, self.service = root, root / "opt/baseline"
        self.rules, self.sysctl = root / "etc/nftables.conf", root / "etc/60-mt5crs.conf"
        programs = root / "bin"
        for directory in (programs, root / "etc", root / "run", self.service):
            directory.mkdir(parents=True)
        for name, does in PROGRAMS.items():
            (programs / name).write_text(f"#!/bin/sh\n{does}\n")
            (programs / name).chmod(0o755)
        self.places = {
            "/etc/nftables.conf": self.rules,
            "/etc/ssh/sshd_config.d/10-mt5crs.conf": root / "etc/10-mt5crs.conf",
            "/etc/sysctl.d/60-mt5crs.conf": self.sysctl,
            "PATH=": f"PATH={programs}:",
            "/usr/lib/systemd/systemd-sysctl": programs / "systemd-sysctl",
            "/run/": f"{root}/run/",
        }

    def generation(self, name: str, rules: str) -> Path:
        """One whose files are put in force by `use`."""
        made = self.service / "generations" / name
        made.mkdir(parents=True)
        script = (PROJECT / "templates/baseline/in_force.sh").read_text()
        for place, here in self.places.items():
            assert place in script
            script = script.replace(place, str(here))
        (made / "in_force.sh").write_text(script)
        (made / "nftables.conf").write_text(rules)
        (made / "sshd.conf").write_text("X11Forwarding no\n")
        (made / "sysctl.conf").write_text("-net.x = 1\n")
        current = self.service / "current"
        current.unlink(missing_ok=True)
        current.symlink_to(made)
        return made

    def call(self, script: Path, verb: str) -> None:
        subprocess.run(["/bin/sh", str(script / "in_force.sh"), verb], check=True, timeout=30)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_an_administrators_firewall_is_kept_and_comes_back(host: Host) -> None:
    host.rules.write_text(THEIRS)
    host.call(host.generation("0001", "ours, first\n"), "use")
    host.call(host.generation("0002", "ours, second\n"), "use")
    found = host.service / "found"
    assert host.rules.read_text() == "ours, second\n"
    assert (found / "nftables.conf").read_text() == THEIRS
    assert found.stat().st_mode & 0o777 == 0o700
    host.call(found, "leave")  # a restart: a generation is still there
    assert host.rules.read_text() == "ours, second\n"
    (host.service / "current").unlink()
    shutil.rmtree(host.service / "generations")
    host.call(found, "leave")
    assert host.rules.read_text() == THEIRS
    assert not host.sysctl.exists()  # there was none before
    assert not found.exists()
