"""A directory that the release tool takes for a host, and what tests need to know of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.release_host import forked

_HERE = Path(__file__).resolve().parent
_SOURCES = _HERE.parent.parent / "src"
PYTHON = os.environ.get("MT5CRS_RELEASE_PYTHON") or str(Path(sys.executable).resolve())
"""The interpreter that runs the tool; hosts have 3.10 to 3.13."""
UNIT = "mt5crs-gateway.service"
STANDBY_UNIT = "mt5crs-gateway-standby.service"
SHADOW_UNIT = "mt5crs-gateway-shadow.service"

CHECK = """\
#!/bin/sh
# Healthy exactly when systemd runs the generation that `current` points to.
read -r state restarts text < "$FAKE_SYSTEMD/active/mt5crs-gateway.service" || exit 75
case $text in
*"#unhealthy"*) echo "ledger does not match"; exit 1 ;;
*"#broken"*) echo "Traceback"; exit 3 ;;
*"#starting"*) exit 75 ;;
esac
read -r wanted < "$1/units/mt5crs-gateway.service" || [ -n "$wanted" ] || exit 3
[ "$text" = "$wanted" ] || { echo "other generation runs"; exit 1; }
echo fine
"""

CHECK_LIVE = CHECK.replace(
    "echo fine",
    'cmp -s "$FAKE_SYSTEMD/live" "$1/live.env" || { echo "the former settings"; exit 1; }\necho fine',
)
"""The same, and it has read the live settings of that generation."""


COMPARE = """\
#!/bin/sh
# Compares what runs with what stands by: both must be there; the standby's text says how it ends.
read -r state restarts running < "$FAKE_SYSTEMD/active/mt5crs-gateway.service" || exit 75
read -r state restarts text < "$FAKE_SYSTEMD/active/mt5crs-gateway-standby.service" || exit 75
[ "$state" = active ] || exit 75
echo "compared with: $running" >> "$FAKE_SYSTEMD/comparisons"
case $text in
*"#differs"*)
    echo '{"digest_running": "aa", "digest_standby": "bb", "reason": "states differ",' \
        '"differences": ["position 7 is held by the running one only"]}'
    exit 1 ;;
*"#inconclusive"*) echo '{"reason": "the running one says unknown"}'; exit 75 ;;
*"#broken"*) echo "Traceback"; exit 3 ;;
*"#slow"*) exec sleep 30 ;;
*"#dies"*) echo "failed 0 $text" > "$FAKE_SYSTEMD/active/mt5crs-gateway-standby.service" ;;
esac
echo '{"digest_running": "aa", "digest_standby": "aa", "reason": "equal at event 5"}'
"""


def beside(remark: str = "") -> dict[str, Any]:
    """Return how a generation stands by; ``remark`` (such as #differs) decides how the comparison ends."""
    return {
        "units": {STANDBY_UNIT: f"standby {remark}".strip()},
        "start": [STANDBY_UNIT],
        "start_timeout_s": 5,
        "check": ["/usr/bin/env", "FAKE_SYSTEMD=@SYSTEMD@", "sh", "{standby}/compare"],
        "check_timeout_s": 2,
    }


FOLLOW = """\
#!/bin/sh
# Ends as the shadow's text says; otherwise waits for a word. $1: what it was given, $2: record, $3: word.
read -r state restarts text < "$FAKE_SYSTEMD/active/mt5crs-gateway-shadow.service" || exit 75
echo "$1 $state" >> "$FAKE_SYSTEMD/shadowed"
echo '{"state": "running"}' > "$2"
case $text in
*"#agrees"*) echo '{"reason": "9 of 9 decisions agree", "decisions": 9, "agreement": 1.0}'; exit 0 ;;
*"#disagrees"*) echo '{"reason": "5 of 9 decisions agree", "decisions": 9, "agreement": 0.55}'; exit 1 ;;
*"#nothing"*) echo '{"reason": "no decisions in the window", "decisions": 0, "agreement": null}'; exit 75 ;;
*"#limit"*) echo '{"reason": "the new version was stopped: callback"}'; exit 2 ;;
*"#dies"*) echo "failed 0 $text" > "$FAKE_SYSTEMD/active/mt5crs-gateway-shadow.service"; exec sleep 20 ;;
esac
asked_by=$PPID
while [ ! -e "$3" ]; do
    kill -0 "$asked_by" 2>/dev/null || exit 75
    sleep 0.05
done
case $(cat "$3") in
*promote*) echo '{"reason": "promoted by ann", "decisions": 3, "agreement": 0.5}'; exit 0 ;;
*) echo '{"reason": "dropped by ann", "decisions": 3, "agreement": 0.5}'; exit 75 ;;
esac
"""


def in_the_shadow(remark: str = "") -> dict[str, Any]:
    """Return how a generation runs in the shadow; ``remark`` (such as #agrees) decides how that ends."""
    terms = "{window_s} {agreement_percent} {least_decisions} {promotion}"
    return {
        "units": {SHADOW_UNIT: f"shadow {remark}".strip()},
        "start": [SHADOW_UNIT],
        "start_timeout_s": 5,
        "check": [
            *("/usr/bin/env", "FAKE_SYSTEMD=@SYSTEMD@", "sh", "{standby}/follow"),
            *(terms, "{record}", "{word}"),
        ],
        "check_timeout_s": 2,
    }


def specification(text: str = "one", **changes: Any) -> dict[str, Any]:
    """Return a valid specification whose unit and ``.env`` carry ``text``."""
    return {
        "format": 1,
        "service": "gateway",
        "code": False,
        "files": {
            ".env": {"mode": "0600", "owner": "root", "group": "root", "content": f"SECRET=canary-{text}\n"},
            "data/clients.json": {"mode": "0644", "owner": "root", "group": "root", "content": "{}"},
            "check": {"mode": "0755", "owner": "root", "group": "root", "content": CHECK},
            "compare": {"mode": "0755", "owner": "root", "group": "root", "content": COMPARE},
            "follow": {"mode": "0755", "owner": "root", "group": "root", "content": FOLLOW},
        },
        "units": {UNIT: text},
        "start": [UNIT],
        "health": {
            "command": ["/usr/bin/env", "FAKE_SYSTEMD=@SYSTEMD@", "sh", "{current}/check", "{current}"],
            "timeout_s": 5,
            "min_healthy_s": 0.01,
            # What a slow machine needs to be seen healthy, and healthy twice. What never is, is waited for.
            "healthy_deadline_s": 0.5 if "#" in text else 10.0,
            "progress_deadline_s": 1.0 if "#starting" in text else 5.0 if "#" in text else 15.0,
            "max_restarts": 0,
        },
        "state_format": 1,
        **changes,
    }


def with_live(made: dict[str, Any], level: str) -> dict[str, Any]:
    """Have a specification bring live settings with ``level`` in them (#deaf: the unit reads none again)."""
    content = f"LEVEL={level}\n"
    made["files"]["live.env"] = {"mode": "0644", "owner": "root", "group": "root", "content": content}
    made["files"]["check"]["content"] = CHECK_LIVE
    return {**made, "live": {"live.env": [UNIT]}}


def knowing(made: dict[str, Any], key: str) -> dict[str, Any]:
    """Have a specification's service know its gateway by a key."""
    made["files"][".env"]["content"] += f"GATEWAY_PUBLIC_KEY='{key}'\n"
    return made


class FakeHost:
    """A root directory with the stand-in for systemd; ``run`` runs the real tool against it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.systemd = root / "systemd"
        self.base = root / "opt/mt5crs"
        self.service = self.base / "gateway"
        self.programs = root / "bin"

    @classmethod
    def create(cls, root: Path) -> FakeHost:
        """Make an empty host below ``root``."""
        host = cls(root)
        for directory in ("active", "loaded", "enabled", "timers", "runs", "seen"):
            (host.systemd / directory).mkdir(parents=True)
        (root / "etc/systemd/system").mkdir(parents=True)
        (root / "etc/mt5crs").mkdir()
        host.programs.mkdir()
        for name in ("systemctl", "systemd-run", "journalctl"):
            shutil.copy2(_HERE / "systemctl", host.programs / name)
        return host

    def moved(self, before: Path, now: Path) -> FakeHost:
        """Have the absolute paths in it, a copy of what was below ``before``, lead below ``now``."""
        units = self.root / "etc/systemd/system"
        for link in [path for path in units.rglob("*") if path.is_symlink()]:
            target = str(link.readlink()).replace(str(before), str(now))
            link.unlink()
            link.symlink_to(target)
        for manifest in self.root.glob("opt/mt5crs/*/generations/*/manifest.json"):
            manifest.write_text(manifest.read_text().replace(str(before), str(now)))
        return self

    def copied(self, root: Path) -> FakeHost:
        """Make a copy of it as it is, at ``root``, which is not there yet."""
        subprocess.run(["cp", "-a", self.root, root], check=True, timeout=30)
        return FakeHost(root).moved(self.root, root)

    def environment(self) -> dict[str, str]:
        """Return the environment in which the tool talks to the stand-in."""
        return {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "FAKE_SYSTEMD": str(self.systemd),
            "FAKE_ROOT": str(self.root),
            "PYTHONPATH": str(_SOURCES),
            "HOME": str(self.root),
        }

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of the tool."""
        return [PYTHON, "-S", "-m", "mt5crs_release", *arguments, "--root", str(self.root), "--json"]

    def text(self, spec: dict[str, Any]) -> str:
        """Return ``spec`` as the tool gets it on standard input."""
        return json.dumps(spec).replace("@SYSTEMD@", str(self.systemd))

    def seen_before(self, unit: str = UNIT) -> str | None:
        """Return the generation that ``before`` named when ``unit`` last looked; ``None``: none."""
        named = (self.systemd / "seen" / unit).read_text().strip().rpartition("/")[2]
        return None if named == "none" else named

    def run(
        self, *arguments: str, spec: dict[str, Any] | None = None, prefix: Sequence[str] = ()
    ) -> tuple[int, dict[str, Any]]:
        """Run the tool; return its exit status and its JSON (empty when it printed none).

        With ``prefix`` it is a program that the prefix starts; without, a fork of one that imported it.
        """
        text = self.text(spec) if spec is not None else ""
        if prefix:
            done = subprocess.run(
                [*prefix, *self.command(*arguments)],
                input=text,
                capture_output=True,
                text=True,
                env=self.environment(),
                timeout=60,
                check=False,
            )
            status, output, error = done.returncode, done.stdout, done.stderr
        else:
            words = [*arguments, "--root", str(self.root), "--json"]
            status, output, error = forked.run(PYTHON, str(_SOURCES), words, self.environment(), text, 60)
        self.last_output = output + error
        return status, json.loads(output) if output.strip() else {}

    def deploy(self, text: str, **changes: Any) -> str:
        """Stage, activate and confirm a generation; return its name."""
        status, staged = self.run("stage", "gateway", spec=specification(text, **changes))
        assert status == 0, self.last_output
        status, _ = self.run("activate", "gateway", "--confirm-timeout", "0")
        assert status == 0, self.last_output
        return str(staged["generation"])

    def running(self, unit: str = UNIT) -> str | None:
        """Return the unit text that ``unit`` was started with, ``None`` when it is not active."""
        path = self.systemd / "active" / unit
        if not path.exists():
            return None
        state, _, rest = path.read_text().partition(" ")
        return rest.partition(" ")[2].strip() if state == "active" else None

    def pointer(self) -> str | None:
        """Return what ``current`` points to."""
        link = self.service / "current"
        return link.readlink().name if link.is_symlink() else None

    def state(self) -> dict[str, Any]:
        """Return the state file."""
        document: dict[str, Any] = json.loads((self.service / "state.json").read_text())
        return document

    def timers(self) -> list[str]:
        """Return the names of transient timers that run."""
        return sorted(path.name for path in (self.systemd / "timers").iterdir())
