"""The directory `.lab/<name>/`: where everything a lab knows is kept, and the lock on it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.plan import DEFAULT_NAME, Plan, check_name, plan_from_json

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class LabDirectory:
    """Paths of one lab."""

    name: str
    project: Path = PROJECT

    @property
    def root(self) -> Path:
        """`.lab/<name>`."""
        return self.project / ".lab" / self.name

    @property
    def plan_file(self) -> Path:
        """Which hosts the lab has; it exists from the first `up` to `down`."""
        return self.root / "lab.json"

    @property
    def key_file(self) -> Path:
        """Private key that logs in as `ops`."""
        return self.root / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Public host keys of this lab's hosts, by address and by name."""
        return self.root / "known_hosts"

    def seed(self, host: str) -> Path:
        """Directory that the host sees read-only as `/etc/lab-seed`: its host key and who may log in."""
        return self.root / "seed" / host

    @property
    def inventory(self) -> Path:
        """The inventory for Ansible: a committed one for the default lab, a written one for others."""
        return (
            self.root / "inventory.yml"
            if self.name != DEFAULT_NAME
            else self.project / "inventory" / "lab.yml"
        )

    def load(self) -> Plan | None:
        """Return the recorded plan, or None if there is no such lab. LabError if the record is damaged."""
        try:
            return plan_from_json(self.plan_file.read_text())
        except FileNotFoundError:
            return None

    def require(self) -> Plan:
        """Return the recorded plan. LabError if there is no such lab."""
        plan = self.load()
        if plan is None:
            raise LabError(
                f"there is no lab {self.name!r} here: boot it with "
                f"`.venv/bin/python -m lab up --name {self.name}`"
            )
        return plan

    def save(self, plan: Plan) -> None:
        """Record `plan`, in one step, so that a killed `up` leaves the old record or the new one."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.plan_file.with_suffix(".new")
        temporary.write_text(plan.to_json())
        temporary.replace(self.plan_file)

    def remove(self) -> None:
        """Delete the directory with everything in it."""
        shutil.rmtree(self.root, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lab against a second `up` or `down`. LabError if somebody else holds it."""
        directory = self.project / ".lab"
        directory.mkdir(mode=0o700, exist_ok=True)
        with (directory / f"{self.name}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(
                    f"another `up` or `down` is at work on lab {self.name}: wait for it, then try again"
                ) from None
            yield


def open_lab(name: str) -> LabDirectory:
    """Return the directory of lab `name`. LabError if that is no possible name."""
    return LabDirectory(check_name(name))
