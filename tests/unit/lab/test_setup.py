"""lab/setup and lab/setup-python, run for real with stand-ins for the programs that they call."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from lab.image import packages
from lab.state import PROJECT

SETUP = PROJECT / "lab/setup"
LISTED = packages((PROJECT / "lab/requirements.apt").read_text())


def program(directory: Path, name: str, body: str) -> None:
    file = directory / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


@pytest.fixture
def run(tmp_path: Path) -> "Run":
    return Run(tmp_path)


class Run:
    """Runs lab/setup on a machine where `installed` is installed and apt-get does what `apt` says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"

    def __call__(
        self, installed: list[str], user: int, apt: str = "true"
    ) -> subprocess.CompletedProcess[str]:
        cases = "|".join(installed) or "none"
        asked = 'for last in "$@"; do :; done'
        program(
            self.directory,
            "dpkg-query",
            f"{asked}\ncase $last in {cases}) printf installed;; *) exit 1;; esac",
        )
        program(self.directory, "id", f"echo {user}")
        program(self.directory, "apt-get", f'echo "$@" >>{self.calls}\n{apt}')
        path = f"{self.directory}:{os.environ['PATH']}"
        return subprocess.run(
            [str(SETUP)], env={"PATH": path}, capture_output=True, text=True, timeout=60, check=False
        )

    def apt_calls(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def test_nothing_missing_is_silent(run: Run) -> None:
    done = run(LISTED, user=1000)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run.apt_calls() == []


def test_without_root_it_prints_the_one_command_and_changes_nothing(run: Run) -> None:
    done = run([name for name in LISTED if name not in ("podman", "strace")], user=1000)

    assert done.returncode == 1
    assert "run: sudo apt-get install --no-install-recommends podman strace\n" in done.stderr
    assert run.apt_calls() == []


# As root the script may write the machine's policy-rc.d for a moment, so it must be one that has it already.
needs_policy = pytest.mark.skipif(
    not Path("/usr/sbin/policy-rc.d").exists(), reason="would touch this machine's /usr/sbin/policy-rc.d"
)


@needs_policy
def test_root_installs_exactly_what_is_missing_and_says_so(run: Run) -> None:
    done = run([name for name in LISTED if name != "crun"], user=0)

    assert (done.returncode, done.stdout) == (0, "setup: installing Debian packages: crun\n")
    (call,) = run.apt_calls()
    assert call.startswith("install --yes --no-install-recommends")
    assert call.endswith(" crun")


@needs_policy
def test_stale_package_lists_are_updated_once(run: Run) -> None:
    fails_first = f'[ "$(wc -l <{run.calls})" -gt 1 ]'

    done = run([name for name in LISTED if name != "crun"], user=0, apt=fails_first)

    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in run.apt_calls()] == ["install", "update", "install"]


@needs_policy
def test_failing_apt_is_shown_with_the_remedy(run: Run) -> None:
    done = run([], user=0, apt="echo 'E: no space left on device' >&2; exit 100")

    assert done.returncode == 1
    assert "E: no space left on device" in done.stderr
    assert "repair apt, then run lab/setup again" in done.stderr


def set_up_python(directory: Path, uv: str, free_mb: int = 5000) -> subprocess.Popen[str]:
    """Begin lab/setup-python in a project of its own; `uv` is what uv does when asked to install."""
    (directory / "lab").mkdir()
    shutil.copy(PROJECT / "lab/setup-python", directory / "lab")
    (directory / ".tools/bin").mkdir(parents=True)
    program(directory / ".tools/bin", "uv", f'[ "$1" != --version ] || {{ echo "uv 1.2.3 ()"; exit; }}\n{uv}')
    program(directory, "df", f"printf 'Filesystem\\n/dev/x 9 9 {free_mb} 1%% /\\n'")
    return subprocess.Popen(
        [str(directory / "lab/setup-python"), "1.2.3"],
        env={"PATH": f"{directory}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background ignores it, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_python_packages_are_installed(tmp_path: Path) -> None:
    said, complaints = set_up_python(tmp_path, "true").communicate(timeout=30)
    assert (said, complaints) == ("setup: installing the locked Python packages into .venv/\n", "")


def test_the_remedy_fits_what_is_seen(tmp_path: Path) -> None:
    process = set_up_python(tmp_path, "echo 'dns error' >&2; exit 2")
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "dns error" in complaints
    assert "connection to the package index" in complaints


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    process = set_up_python(tmp_path, "exit 2", free_mb=12)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "only 12 MB are free" in complaints
    assert "index" not in complaints


def test_an_interrupted_set_up_says_so(tmp_path: Path) -> None:
    # As uv and pip do, it ends with a status of its own.
    process = set_up_python(
        tmp_path, f"trap 'exit 2' INT; touch {tmp_path}/there; while :; do sleep 0.1; done"
    )
    while not (tmp_path / "there").exists():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "interrupted" in complaints
    assert "could not" not in complaints


def test_uv_is_installed_by_the_hashes_of_uv_lock(tmp_path: Path) -> None:
    """A package index that hands out something else is noticed by pip."""
    (tmp_path / "lab").mkdir()
    shutil.copy(PROJECT / "lab/setup-python", tmp_path / "lab")
    shutil.copy(PROJECT / "uv.lock", tmp_path)
    pip = 'case $* in *--require-hashes*) cat "${@: -1}";; *) echo "no hashes";; esac; exit 1'
    write = f"printf '#!/bin/bash\\n%s\\n' '{pip}' >.tools/bin/python"
    program(tmp_path, "python3", f"mkdir -p .tools/bin; {write}; chmod +x .tools/bin/python")
    done = subprocess.run(
        ["bash", "lab/setup-python", "0.0.0"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    locked = (PROJECT / "uv.lock").read_text().split('[[package]]\nname = "uv"\n')[1].split("[[package]]")[0]
    wanted = re.findall(r"sha256:[0-9a-f]{64}", locked)
    assert len(wanted) > 5
    listed = next(line for line in done.stdout.splitlines() if line.startswith("uv==0.0.0 "))
    assert re.findall(r"--hash=(\S+)", listed) == wanted
