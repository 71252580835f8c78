"""`gateway_platform: wine`: the gateway is a Linux program, its terminal process a Windows one."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab.state import PROJECT
from lab.wine import PYTHON, Windows
from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, HaltState, OrderResult, Pong
from mt5crs.wine_terminal import readiness
from tests.unit.broker.test_terminal_process import gone
from tests.unit.gateway.running import Caller, Running, eventually
from tests.unit.gateway.test_terminal_process import children, lost

PASSES_S = 30
"""Wine, Python and the broker, on a busy machine."""


def wine_of(windows: Windows, directory: Path) -> Path:
    """A program that stands for a host's own Wine: it enters the root, and keeps this release's paths."""
    scratch, script = directory / "scratch", directory / "wine64"
    scratch.mkdir()
    places = {PROJECT / "src": str(PROJECT / "src")}
    inside = replace(windows, shared=places, written={directory: str(directory)})
    entered = shlex.join(inside.argv(scratch))
    script.write_text(
        f'#!/bin/sh\nset -eu\n[ "$1" = --version ] && exec {entered} --version\n'
        f"shift\nexec {entered} '/{PYTHON}/python.exe' \"$@\"\n"
    )
    script.chmod(0o755)
    return script


@contextmanager
def beside_wine(windows: Windows, directory: Path, **environment: str) -> Iterator[Running]:
    (directory / "state/wine").mkdir(parents=True)
    gateway = Running(
        directory,
        GATEWAY_PLATFORM="wine",
        WINE_PROGRAM=str(wine_of(windows, directory)),
        WINE_PYTHON=str(windows.root / PYTHON / "python.exe"),
        TERMINAL_TIMEOUT_S="5",
        **environment,
    )
    gateway._started = lambda: bool(gateway.health())  # type: ignore[method-assign]  # it may stay "starting"
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.close()


def healthy(gateway: Running) -> None:
    assert eventually(lambda: gateway.health().get("healthy"), PASSES_S), gateway.log()[-2000:]


def traded(caller: Caller) -> None:
    reply = caller.order(valid_ms=5000)
    assert isinstance(reply, OrderResult), reply
    assert reply.outcome == "FILLED", reply


def test_a_gateway_on_linux_trades_through_wine_and_survives_kill_9_of_either(
    windows: Windows, tmp_path: Path
) -> None:
    with beside_wine(windows, tmp_path) as gateway:
        healthy(gateway)
        caller = gateway.client("strategy")
        caller.lease()
        traded(caller)
        assert "python.exe" in Path(f"/proc/{children(gateway)[0]}/cmdline").read_text()
        (child,) = children(gateway)
        os.kill(child, signal.SIGKILL)
        eventually(lambda: lost(gateway, "ended") == 1, PASSES_S)
        healthy(gateway)
        traded(caller)
        (child,) = children(gateway)
        assert gateway.process is not None
        gateway.process.kill()
        eventually(lambda: gone(child))
        gateway.restart()
        healthy(gateway)
        caller = gateway.client("strategy")
        caller.lease()
        traded(caller)
        snapshot = caller.sync()
        assert not isinstance(snapshot, Error)
        assert len({position.identifier for position in snapshot.positions}) == 3


@pytest.mark.slow(reason="in every run a call that holds the interpreter's lock hangs in the same place")
def test_while_the_real_package_hangs_in_initialize_the_gateway_answers(
    windows: Windows, tmp_path: Path
) -> None:
    """It is pointed at a program that is no terminal: the call outlives its time-out, holding the lock."""
    no_terminal = rf"Z:\{PYTHON}\python.exe".replace("/", "\\")
    with beside_wine(
        windows, tmp_path,
        GATEWAY_BACKEND="mt5", MT5_PATH=no_terminal, MT5_LOGIN="5000001", MT5_PASSWORD="pw",
        MT5_SERVER="Broker-Demo", MT5_TIMEOUT_S="1", WINE_DISPLAY=":1",
    ) as gateway:  # fmt: skip
        readiness.hold(tmp_path / "state/wine")  # in place of the unit that has a terminal and its display
        watcher, ops = gateway.client("watcher"), gateway.client("ops")
        (first,) = eventually(lambda: children(gateway))
        assert isinstance(ops.ask(requests.Ping), Pong)
        pings, halts, began = [], [], time.monotonic()
        while not lost(gateway, "deadline"):
            assert time.monotonic() - began < 90, gateway.health()
            pings.append(took_ms(lambda: isinstance(watcher.ask(requests.Ping), Pong)))
            if len(pings) % 20 == 0:
                halts.append(took_ms(lambda: isinstance(halted(ops), HaltState)))
            time.sleep(0.01)
        pings.sort()
        middle, most = pings[len(pings) // 2], pings[len(pings) * 99 // 100]
        print(f"hung for {time.monotonic() - began:.0f} s; {len(pings)} PINGs: P50 {middle:.1f} ms,")
        print(f"P99 {most:.1f} ms, worst {pings[-1]:.0f} ms; {len(halts)} HALTs, worst {max(halts):.1f} ms")
        assert middle < 50
        assert max(halts) < 1000
        eventually(lambda: [child for child in children(gateway) if child != first], PASSES_S)


def halted(ops: Caller) -> object:
    return ops.ask(requests.Halt, scope="FLEET", reason="it hangs")


def took_ms(call: Callable[[], bool]) -> float:
    began = time.perf_counter()
    assert call()
    return (time.perf_counter() - began) * 1e3
