"""What brings a host to its baseline, as shell text for both engines; the plan says which of it is due."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from deploy.baseline.host_files import ManagedFile, directory_script, encoded, placing_script
from deploy.baseline.plan import ACCOUNT, DIRECTORIES, REACTIONS, RELEASE_PROGRAM, Plan


@dataclass(frozen=True)
class Step:
    """One thing to do as root: in a few words, as text of `sh`, and what that reads from standard input."""

    what: str
    script: str
    stdin: str = ""


def layout(plan: Plan, files: Iterable[ManagedFile]) -> list[Step]:
    """Directories, then files. Before packages: those start their service at once, which must find them."""
    made = [directory_script(directory) for directory in DIRECTORIES if directory.path in plan.directories]
    steps = [Step(f"directories {', '.join(plan.directories)}", " && ".join(made))] if made else []
    return steps + [
        Step(file.path, placing_script(file), encoded(file)) for file in files if file.path in plan.files
    ]


def account(plan: Plan) -> list[Step]:
    """The system user and group that the services run as."""
    if not plan.account:
        return []
    user, home, shell, group = ACCOUNT.split(":")
    where = shlex.join(["--home-dir", home, "--shell", shell, "--gid", group])
    correct = shlex.join(["--home", home, "--shell", shell, "--gid", group])
    script = (
        f"{{ getent group {group} >/dev/null || groupadd --system {group}; }} && "
        f"if getent passwd {user} >/dev/null; then usermod {correct} {user}; "
        f"else useradd --system --no-create-home {where} {user}; fi"
    )
    return [Step(f"user {user}", script)]


def notice(plan: Plan) -> list[Step]:
    """Enabled units, what follows its configuration, and the release tool's own units, last."""
    units = [Step(f"enable {unit}", f"systemctl enable --quiet {shlex.quote(unit)}") for unit in plan.enable]
    follow = [Step(word, REACTIONS[word]) for word in plan.reactions]
    own = (
        [Step("units of the release tool", f"{RELEASE_PROGRAM} install-units")] if plan.release_units else []
    )
    return units + follow + own
