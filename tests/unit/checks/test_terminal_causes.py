"""Each known cause of a terminal that does not start is named, and nothing is fine that was not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from mt5crs.broker.windows_programs import Program
from mt5crs.checks import terminal as command
from mt5crs.checks.terminal_causes import Seen, findings, verdict_of

PREFIX = "/var/lib/mt5crs/gateway/wine"
OURS = Program(
    pid=7, user="mt5crs", words=(r"C:\Terminals\broker\terminal64.exe", "/portable"), prefix=PREFIX
)
WELL = Seen(
    state="connected",
    reason="",
    under_wine=True,
    wine_problem="",
    path=f"{PREFIX}/dosdevices/c:/Terminals/broker/terminal64.exe",
    path_there=True,
    user="mt5crs",
    prefix=PREFIX,
    display=":1",
    display_there=True,
    held=True,
    programs=(OURS,),
)
SAID = "the terminal did not start: initialize failed: IPC timeout (-10005)"


def seen(**changes: Any) -> Seen:
    return msgspec.structs.replace(WELL, **changes)


def changed(**changes: Any) -> Program:
    return msgspec.structs.replace(OURS, **changes)


def test_where_all_is_well_nothing_is_found() -> None:
    assert verdict_of(findings(WELL)) == "fine"
    assert verdict_of(findings(seen(under_wine=False, display="", display_there=None))) == "fine"


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"wine_problem": "wine-8.0 cannot be used: install Wine 10"}, "wine", "wine-8.0"),
        ({"path_there": False, "programs": ()}, "path", "there is no terminal at"),
        ({"display": "", "display_there": None, "programs": ()}, "display", "no display"),
        ({"display_there": False, "programs": ()}, "display", ":1 does not answer"),
        ({"held": False, "programs": ()}, "unit", "does not have the prefix"),
        ({"programs": (changed(user="alice"),)}, "user", "runs as alice (process 7)"),
        ({"programs": (changed(prefix="/home/mt5crs/.wine"),)}, "prefix", "/home/mt5crs/.wine"),
        (
            {"programs": (OURS, changed(pid=9, words=(r"C:\x\WebInstall\mt5setup.exe", "/auto")))},
            "update",
            "mt5setup.exe runs (process 9)",
        ),
        (
            {"programs": (changed(words=(r"C:\Users\m\AppData\LiveUpdate\terminal64.exe",)),)},
            "update",
            "being updated",
        ),
        ({"state": "login_failed"}, "login", "refuses the login"),
        ({"state": "other_account"}, "login", "another account"),
        ({}, "dialog", "most likely it shows a dialog"),
    ],
)
def test_each_cause_is_named_with_a_remedy(changes: dict[str, Any], name: str, words: str) -> None:
    found = findings(seen(**{"state": "starting", "reason": SAID, **changes}))
    causes = [each for each in found if each.verdict == "cause"]
    assert [each.name for each in causes] == [name]
    assert words in causes[0].detail
    assert causes[0].remedy
    assert verdict_of(found) == "cause"


@pytest.mark.parametrize(
    "changes",
    [
        {"path_there": None},
        {"display_there": None},
        {"programs": None},
        {"held": None},
        {"programs": (changed(prefix=""),)},
        {"state": "down"},
        {"state": "starting", "programs": ()},
    ],
)
def test_what_could_not_be_looked_at_is_not_fine(changes: dict[str, Any]) -> None:
    assert verdict_of(findings(seen(**changes))) == "unknown"


def test_a_terminal_of_somebody_else_beside_ours_is_no_cause() -> None:
    assert verdict_of(findings(seen(programs=(OURS, changed(pid=8, user="alice"))))) == "fine"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    file = tmp_path / ".env"
    file.write_text(
        f"""GATEWAY_BIND='127.0.0.1'
GATEWAY_SECRET_KEY='{"ab" * 32}'
GATEWAY_BACKEND='mt5'
STATE_DIR='{tmp_path}'
METRICS_PORT='1'
MT5_PATH='{tmp_path}/terminal64.exe'
MT5_LOGIN='5000001'
MT5_PASSWORD='letmein-please'
MT5_SERVER='Broker-Demo'
"""
    )
    return file


def test_the_command_names_the_cause_and_no_secret(env_file: Path) -> None:
    done = CliRunner().invoke(command.terminal, ["--env-file", str(env_file), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["verdict"], told["state"]) == (1, "cause", "down")
    (cause,) = [each for each in told["findings"] if each["verdict"] == "cause"]
    assert cause["name"] == "path"
    text = CliRunner().invoke(command.terminal, ["--env-file", str(env_file)]).output
    assert "CAUSE    path: there is no terminal at" in text
    assert "letmein" not in text + done.output


def test_a_picture_that_cannot_be_taken_is_said(env_file: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "display.png"
    done = CliRunner().invoke(command.terminal, ["--env-file", str(env_file), "--picture", str(wanted)])
    assert "no picture: it needs a display and the program `import`" in done.output
    assert not wanted.exists()


def test_the_simulated_broker_has_no_terminal_and_a_bad_file_is_said(env_file: Path, tmp_path: Path) -> None:
    env_file.write_text(env_file.read_text().replace("'mt5'", "'sim'"))
    done = CliRunner().invoke(command.terminal, ["--env-file", str(env_file)])
    assert (done.exit_code, "there is no terminal" in done.output) == (0, True)
    gone = subprocess.run(
        [sys.executable, "-m", "mt5crs", "terminal", "--env-file", str(tmp_path / "none")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (gone.returncode, gone.stderr.startswith("error: ")) == (78, True)
