"""The loop of a strategy's author: what docs/strategy.md says to type, and what goes wrong on the way."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mt5crs.develop import simulation
from mt5crs.develop.project import ProjectError, make
from mt5crs.develop.strategy import strategy

ROOT = Path(__file__).resolve().parents[3]
BEGIN = "from mt5crs.strategy.api import Strategy\n"
CLASS = BEGIN + "class Mine(Strategy):\n    def on_timer(self, trading):\n        "


def page() -> list[list[str]]:
    """The commands of the page's section on the first strategy, in order."""
    text = (ROOT / "docs/strategy.md").read_text(encoding="utf-8")
    section = text.partition("## From an empty folder")[2].partition("\n## ")[0]
    return [shlex.split(line, comments=True) for line in re.findall(r"^\$ (.*)$", section, re.M)]


def test_the_page_s_commands_lead_from_an_empty_folder_to_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    monkeypatch.setenv("MT5CRS_SIGNING_KEY", str(key))
    monkeypatch.chdir(tmp_path)
    programs = {name: str(Path(sys.executable).with_name(name)) for name in ("mt5crs", "pytest")}
    typed = [words for words in page() if words[0] in programs]
    assert [words[:3] for words in typed if words[0] == "mt5crs"] == [
        ["mt5crs", "strategy", verb] for verb in ("new", "check", "run", "pack")
    ]
    for words in typed:
        command = [programs[words[0]], *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        if "run" in words:
            first = re.search(r"first trade after ([\d.]+) s", done.stderr)
            assert first, done.stderr
            assert float(first[1]) < 30  # 10 s on a machine of one's own; this one is shared
            assert "closed" in done.stdout
    (packed,) = (tmp_path / "dist/strategies").glob("strategy-breakout-*.tar")
    assert packed.stat().st_size > 1000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make("mine", tmp_path)
    return tmp_path


def invoke(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(strategy, [words[0], "mine", "--in", str(directory), *words[1:]])


@pytest.mark.parametrize(
    ("code", "name", "says"),
    [
        ("import not_there\n", "import", "No module named 'not_there'"),
        (BEGIN + "class Other(Strategy): ...\n", "import", "cannot be loaded"),
        (CLASS + "1 / 0\n", "on_timer", "ZeroDivisionError: division by zero (__init__.py:4)"),
        (CLASS + "open('/tmp/x', 'w')\n", "forbidden calls", "writes /tmp/x (__init__.py:4)"),
        (
            CLASS + "import socket; socket.socket().connect(('127.0.0.1', 9))\n",
            "forbidden calls",
            "opens a connection (__init__.py:4)",
        ),
        (CLASS + "import os; os.fork()\n", "forbidden calls", "forks (__init__.py:4)"),
        (
            CLASS + "import subprocess; subprocess.run(['true'])\n",
            "forbidden calls",
            "starts a program (__init__.py:4)",
        ),
        (
            CLASS + "try:\n            open('x', 'a')\n        except OSError:\n            pass\n",
            "forbidden calls",
            "writes x (__init__.py:5)",
        ),
        (CLASS + "import time; time.sleep(0.2)\n", "time of on_timer", "longer than the 0.1 s"),
        (CLASS + "import os; os._exit(3)\n", "on_timer", "ended without a word"),
    ],
)
def test_what_does_not_belong_in_a_strategy_is_found_and_named(
    project: Path, code: str, name: str, says: str
) -> None:
    (project / "mine/src/mine/__init__.py").write_text(code)
    done = invoke(project, "check", "--calls", "2", "--interval", "0.1", "--json")
    assert done.exit_code == 1, done.output
    findings = {finding["name"]: finding for finding in json.loads(done.output)["findings"]}
    assert findings[name]["verdict"] == "FAIL"
    assert says in findings[name]["detail"]


def test_a_constructor_that_hangs_is_ended_and_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt5crs.develop.strategy._CONSTRUCTOR_S", 1.0)
    code = "class Mine(Strategy):\n    def __init__(self, options):\n        time.sleep(99)\n"
    text = f"import time\n{BEGIN}{code}"
    (project / "mine/src/mine/__init__.py").write_text(text)
    done = invoke(project, "check", "--json")
    assert done.exit_code == 1
    last = json.loads(done.output)["findings"][-1]
    assert last["name"] in ("import", "constructor")  # a slow machine has not come further in that time
    assert "hangs" in last["detail"]


def test_a_bad_option_is_named(project: Path) -> None:
    done = invoke(project, "check", "--options", '{"holds": 1}', "--json")
    assert done.exit_code == 1
    assert (
        "there is no option holds; did you mean hold_s?" in json.loads(done.output)["findings"][-1]["detail"]
    )
    assert "expected a JSON object" in invoke(project, "check", "--options", "7").output


def test_data_files_are_there_as_on_a_host(project: Path) -> None:
    (project / "m.json").write_text("{}")
    (project / "mine.yml").write_text("source: mine\ndata: {m.json: m.json}\n")
    text = (
        BEGIN
        + "class Mine(Strategy):\n    def on_start(self, trading): self.data_file('m.json').read_text()\n"
    )
    (project / "mine/src/mine/__init__.py").write_text(text)
    done = invoke(project, "check", "--calls", "1")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("name", ["My", "a b", "../x", "ä"])
def test_a_project_of_an_odd_name_is_not_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match="is no name of a strategy"):
        make(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(project: Path) -> None:
    with pytest.raises(ProjectError, match="exists already"):
        make("mine", project)


def test_recorded_quotes_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "quotes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("time_msc", "bid", "ask"), (1000, 1.1, 1.2), (3000, 1.3, 1.4)])
    assert simulation.recorded(path) == [(0.0, 1.1, 1.2), (2.0, 1.3, 1.4)]
    path.write_text("time_msc,bid,ask\n2,1,1\n1,1,1\n")
    with pytest.raises(ProjectError, match="sort it by time_msc"):
        simulation.recorded(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ProjectError, match="CSV with the columns time_msc, bid, ask"):
        simulation.recorded(path)


def test_the_plot_has_the_highest_and_the_lowest_value() -> None:
    lines = list(simulation.plot([10_000.0, 10_001.0, 9_999.0, 10_002.5]))
    assert lines[0].startswith("    10002.50 ")
    assert lines[-1].startswith("     9999.00 ")
    assert list(simulation.plot([1.0])) == []
