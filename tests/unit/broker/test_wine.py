"""The terminal process under Wine, as far as it can be told without one. With it: `make windows-contract`."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import msgspec
import pytest

from mt5crs.broker import terminal, wine
from mt5crs.broker.interface import BrokerError, TooLateError, TradeRequest
from mt5crs.broker.process import Process
from mt5crs.broker.wine import Wine, version_problem, windows_path
from mt5crs.gateway.service import open_broker
from mt5crs.service.elapsed import elapsed_s
from mt5crs.settings.gateway import GatewaySettings
from mt5crs.wine_terminal import readiness
from tests.unit.broker.forked import Forked, forked_broker

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Wine runs on Linux")


def stand_in(directory: Path, said: str = "wine-10.0 (Debian 10.0~repack-6)") -> Wine:
    """A Wine that says its version, and runs this Python in place of the one for Windows."""
    program, python = directory / "wine64", directory / "python.exe"
    program.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && {{ echo '{said}'; exit; }}
shift
exec '{sys.executable}' "$@"
"""
    )
    program.chmod(0o755)
    python.touch()
    return Wine(program=str(program), python=str(python), prefix=str(directory / "prefix"))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("wine-10.0 (Debian 10.0~repack-6)", ""),
        ("wine-10.20\n", ""),
        ("wine-8.0 (Debian 8.0~repack-4)", r"wine-8\.0 cannot be used, terminals refuse .*install Wine 10"),
        ("wine-11.0", r"wine-11\.0 cannot be used, .*debugger"),
        ("wine-9.22 (Staging)", "refuse"),
        ("Python 3.12.1", "no Wine"),
        ("", "no Wine"),
    ],
)
def test_which_wine_a_terminal_accepts(said: str, problem: str) -> None:
    found = version_problem(said)
    assert re.search(problem, found) if problem else found == ""


def test_what_is_not_there_is_said_with_its_remedy(tmp_path: Path) -> None:
    whole = stand_in(tmp_path)
    assert whole.problem() == ""
    lacking = msgspec.structs.replace(whole, program=str(tmp_path / "none"))
    assert "package wine64" in lacking.problem()
    assert "no Python for Windows" in msgspec.structs.replace(whole, python="/nowhere/python.exe").problem()
    assert "refuse" in stand_in(tmp_path, "wine-8.0").problem()


def test_paths_as_a_windows_program_names_them() -> None:
    assert windows_path("/var/lib/mt5crs/gateway") == r"Z:\var\lib\mt5crs\gateway"
    assert windows_path("/a b/ä/") == r"Z:\a b\ä"


def test_the_environment_has_nothing_of_the_linux_python(tmp_path: Path) -> None:
    given = {"PATH": "/usr/bin", "PYTHONPATH": "/opt/x", "PYTHONUNBUFFERED": "1"}
    made = stand_in(tmp_path).environment(given)
    assert made["WINEPREFIX"] == str(tmp_path / "prefix")
    assert [name for name in made if name.startswith("PYTHON")] == ["PYTHONDONTWRITEBYTECODE"]
    assert "DISPLAY" not in made
    shown = msgspec.structs.replace(stand_in(tmp_path), display=":7")
    assert shown.environment({"DISPLAY": ":0"})["DISPLAY"] == ":7"


def test_it_runs_this_releases_own_code_behind_what_the_windows_python_has(tmp_path: Path) -> None:
    """And ends with the process that started it, though a Windows program cannot ask for that."""
    argv = stand_in(tmp_path).command("mt5crs.broker.terminal", 4711)
    assert argv[-2] == windows_path(str(Path(wine.__file__).parents[2]))
    assert argv[-1] == "4711"
    code = argv[argv.index("-c") + 1]
    (tmp_path / "own.py").write_text("import sys; print(__name__, sys.argv[1:], sys.path[-1])")
    run = [sys.executable, "-c", code.replace("mt5crs.broker.terminal", "own"), str(tmp_path), "4711"]
    assert said_by(run) == f"__main__ ['4711'] {tmp_path}"
    signal = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    tied = argv[: argv.index(str(tmp_path / "wine64"))]
    assert tied[-1] == "4711"
    assert said_by([*tied[:-1], str(os.getpid()), sys.executable, "-c", signal]) == "9"
    assert said_by([*tied, sys.executable, "-c", signal]) == ""  # its gateway has ended meanwhile


def said_by(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_gateway_without_wine_says_so_and_starts_no_process(tmp_path: Path) -> None:
    settings = GatewaySettings(
        bind="127.0.0.1",
        secret_key="0" * 64,
        state_dir=str(tmp_path),
        platform="wine",
        wine_program=str(tmp_path / "wine64"),
    )
    broker, _, _ = open_broker(settings, lambda *_: None)
    try:
        with pytest.raises(BrokerError, match=r"cannot be started: there is no Wine at .*wine64"):
            broker.start()
    finally:
        broker.close()


def test_a_prefix_is_used_only_while_the_unit_of_the_terminal_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Wine's server would be the gateway's, and each restart of the gateway would end the terminal."""
    monkeypatch.chdir(tmp_path)  # a Windows path is a relative one to the Python that stands in
    wine = stand_in(tmp_path)
    settings = GatewaySettings(
        bind="127.0.0.1",
        secret_key="0" * 64,
        state_dir=str(tmp_path),
        platform="wine",
        wine_program=wine.program,
        wine_python=wine.python,
        wine_display=":1",
    )
    broker, _, _ = open_broker(settings, lambda *_: None)
    try:
        with pytest.raises(BrokerError, match="the unit mt5crs-terminal"):
            broker.start()
        (tmp_path / "wine").mkdir()
        for _ in range(2):
            held = readiness.hold(tmp_path / "wine")
            with contextlib.suppress(BrokerError):  # whether it has seen that the former one ended
                broker.start()
            broker.start()
            child = cast("Process", broker._child)
            assert child.ended(0) == ""
            os.close(held)
            assert child.ended(5) != "", "it would end in the middle of an order, for want of Wine's server"
    finally:
        broker.close()


def test_an_orders_time_is_told_by_the_clock_of_the_other_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under Wine it counts from another moment: an order would be late for ever, or never."""
    order = TradeRequest(action="DEAL", magic=7, comment="x", filling="IOC", symbol="EURUSD", volume=0.1)
    monkeypatch.setattr(terminal, "elapsed_s", lambda: elapsed_s() - 1e6)  # in the process that is forked
    broker = forked_broker(tmp_path, other_clock=True)
    try:
        broker.start()
        with pytest.raises(TooLateError, match="not known"):
            broker.send(msgspec.structs.replace(order, until_s=elapsed_s() + 5))
        broker.books()
        assert broker.send(msgspec.structs.replace(order, until_s=elapsed_s() + 5)) is not None
        with pytest.raises(TooLateError, match=r"0\.2 s after"):
            broker.send(msgspec.structs.replace(order, until_s=elapsed_s() - 0.2))
        assert len(broker.books().positions) == 1
        assert broker.send(order) is not None  # one without a bound
        cast("Forked", broker._child).kill()
        with pytest.raises(BrokerError):
            broker.books()
        broker.start()
        with pytest.raises(TooLateError, match="not known"):  # another process, another clock
            broker.send(msgspec.structs.replace(order, until_s=elapsed_s() + 5))
    finally:
        broker.close()
