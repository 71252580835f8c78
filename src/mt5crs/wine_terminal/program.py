"""Display, Wine's server and terminal of one gateway: started in this order, watched, ended together."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from mt5crs.broker import process
from mt5crs.broker.windows_programs import Program, on_this_host, programs
from mt5crs.broker.wine import Wine
from mt5crs.probes.health import HealthCheckBrokenError, ask_health
from mt5crs.protocol.addresses import reached_from_here
from mt5crs.service import exits, notify
from mt5crs.service.logs import Log
from mt5crs.wine_terminal import readiness
from mt5crs.wine_terminal.display import KEY, RUNTIME, answers, number_of, write_key
from mt5crs.wine_terminal.watch import Seen, Watch

XVFB = "/usr/bin/Xvfb"
SCREEN = "1280x1024x24"
_LOOK_S = 2.0
_DISPLAY_S = 20.0
_PREFIX_S = 240.0
_COMMAND_S = 20.0
_END_S = 10.0
_PAUSE_S = 0.05


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to run. path: of the terminal, as Windows names it; empty: none, only its display.

    health: address and port of the gateway's /health; unanswered_s: as :class:`Watch` has it.
    """

    wine: Wine
    path: str
    portable: bool
    health: tuple[str, int]
    unanswered_s: float
    runtime: Path
    xvfb: str = XVFB


class CannotRunError(Exception):
    """Why nothing can be started, with the remedy."""


class Terminal:
    """Starts and watches. `stop` may be called by a signal handler."""

    def __init__(self, wanted: Wanted, log: Log) -> None:
        self._wanted = wanted
        self._log = log
        self._stop = threading.Event()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watch = Watch(wanted.unanswered_s)
        self._said = ""
        self._held_open: int | None = None
        self._key = wanted.runtime / KEY
        wine = wanted.wine
        self._environ = {
            **wine.environment(process.environment(())),
            "XAUTHORITY": str(self._key),
            "XDG_CACHE_HOME": str(wanted.runtime),
        }
        self._file = on_this_host(wanted.path, Path(wine.prefix)) if wanted.path else None

    def stop(self) -> None:
        """Make `run` end everything and return."""
        self._stop.set()

    def run(self) -> int:
        """Run until `stop`, or until display or server have ended; return the exit status."""
        held: int | None = None
        try:
            self._show()
            self._serve()
            notify.ready("display and Wine's server run")
            self._make_prefix()
            held = readiness.hold(Path(self._wanted.wine.prefix))
            while not self._stop.is_set():
                if dead := self._dead():
                    self._log.error("ended", what=dead, remedy="started again with the unit")
                    return exits.FAILED
                self._look()
                self._stop.wait(_LOOK_S)
        except CannotRunError as error:
            self._log.critical("cannot_run", reason=str(error))
            notify.status(str(error))
            return exits.FAILED
        finally:
            notify.stopping("ending the terminal")
            self._end_all()
            if held is not None:
                os.close(held)
        return exits.OK

    def _show(self) -> None:
        display = self._wanted.wine.display
        if answers(display):
            raise CannotRunError(
                f"display {display} has a server already: end that one, or set another gateway_wine_display"
            )
        write_key(self._key, display)
        self._start(
            "display",
            [
                *(self._wanted.xvfb, f":{number_of(display)}", "-screen", "0", SCREEN),
                *("-nolisten", "tcp", "-auth", str(self._key)),
            ],
        )
        self._await(lambda: bool(answers(display)), "display", _DISPLAY_S)

    def _serve(self) -> None:
        program = Path(self._wanted.wine.program)
        beside = [program.with_name(name) for name in ("wineserver64", "wineserver")]
        server = next((each for each in beside if each.is_file()), None)
        if server is None:
            raise CannotRunError(f"there is no wineserver beside {program}: install the package wine64")
        Path(self._wanted.wine.prefix).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._start("wineserver", [str(server), "--foreground", "--persistent"])

    def _make_prefix(self) -> None:
        """Make or update the prefix, and leave a program in it: without any, Windows' services end."""
        self._run_wine(["wineboot.exe", "--init"], _PREFIX_S)
        reading, writing = os.pipe()
        self._start("session", [self._wanted.wine.program, "cmd.exe"], stdin=os.fdopen(reading, "rb"))
        self._held_open = writing

    def _look(self) -> None:
        if self._file is None:
            return
        ours = [each for each in programs() if each.prefix == self._wanted.wine.prefix]
        terminals = [each for each in ours if self._is_terminal(each)]
        seen = Seen(
            there=self._file.is_file(),
            running=bool(terminals),
            updating=any(each.is_update() for each in ours),
            gateway=self._told() if terminals else "",
        )
        verdict = self._watch.decide(seen, time.monotonic())
        if verdict.act == "start":
            self._log.info("starting", path=self._wanted.path, reason=verdict.reason)
            self._start_terminal()
        elif verdict.act == "end":
            self._log.warning("ending", reason=verdict.reason, processes=[each.pid for each in terminals])
            self._kill_terminals()
        self._tell(verdict.reason)

    def _is_terminal(self, program: Program) -> bool:
        return (
            self._file is not None and not program.is_update() and program.named() == self._file.name.lower()
        )

    def _told(self) -> str:
        """The terminal's state as the gateway has it; empty: it does not tell."""
        address, port = self._wanted.health
        try:
            _, content = ask_health(reached_from_here(address), port)
        except (OSError, HealthCheckBrokenError):
            return ""
        return str(content.get("terminal", ""))

    def _start_terminal(self) -> None:
        # One that the package has started in the gateway's unit reaches no trade server, and ours ends.
        self._kill_terminals()
        path = self._wanted.path.replace("/", "\\")
        self._start(
            "terminal", [self._wanted.wine.program, path, *(["/portable"] if self._wanted.portable else [])]
        )

    def _kill_terminals(self) -> None:
        name = self._file.name if self._file else ""
        self._run_wine(["taskkill.exe", "/f", "/im", name], _COMMAND_S, must=False)

    def _tell(self, said: str) -> None:
        if said != self._said:
            self._said = said
            notify.status(said)

    def _start(self, name: str, argv: Sequence[str], stdin: BinaryIO | None = None) -> None:
        try:
            self._children[name] = subprocess.Popen(
                list(argv),
                env=self._environ,
                stdin=stdin or subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=self._file.parent if name == "terminal" and self._file else None,
            )
        except OSError as error:
            raise CannotRunError(
                f"{argv[0]} cannot be started ({error.strerror}): install its package (wine64, xvfb)"
            ) from None
        finally:
            if stdin is not None:
                stdin.close()

    def _run_wine(self, words: Sequence[str], timeout_s: float, *, must: bool = True) -> None:
        child = subprocess.Popen(
            [self._wanted.wine.program, *words],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + timeout_s
        while child.poll() is None and time.monotonic() < deadline and not (must and self._stop.is_set()):
            time.sleep(_PAUSE_S)
        if child.poll() is None:
            child.kill()
            child.wait()
            if must and not self._stop.is_set():
                raise CannotRunError(
                    f"{words[0]} took over {timeout_s:.0f} s: if the prefix {self._wanted.wine.prefix} is "
                    "damaged, move it away; it is made anew, and the terminal must be installed again"
                )

    def _await(self, there: Callable[[], bool], name: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not there():
            if self._children[name].poll() is not None or time.monotonic() >= deadline:
                raise CannotRunError(f"the {name} did not start: see `journalctl -u mt5crs-terminal`")
            if self._stop.wait(_PAUSE_S):
                return

    def _dead(self) -> str:
        """Which of what everything else needs has ended; empty: none."""
        needed = ("display", "wineserver", "session")
        return next((name for name in needed if self._children[name].poll() is not None), "")

    def _end_all(self) -> None:
        """Let the terminal save what it has (it is told that the session ends), then end the rest."""
        server = self._children.get("wineserver")
        if server is not None and server.poll() is None:  # without it, another one would be started
            self._run_wine(["wineboot.exe", "--end-session"], _END_S, must=False)
        for child in reversed(list(self._children.values())):
            child.terminate()
        deadline = time.monotonic() + _END_S
        for child in reversed(list(self._children.values())):
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()


def _wanted(words: Sequence[str] | None) -> Wanted:
    parser = argparse.ArgumentParser(prog="mt5crs.wine_terminal", description=__doc__)
    parser.add_argument("--wine", required=True, help="Wine's loader")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--display", required=True, help="such as :1")
    parser.add_argument("--path", default="", help="the terminal, as Windows names it")
    parser.add_argument("--portable", action="store_true")
    parser.add_argument("--health-address", required=True)
    parser.add_argument("--health-port", required=True, type=int)
    parser.add_argument(
        "--unanswered", required=True, type=float, help="seconds until one is ended; 0: never"
    )
    given = parser.parse_args(words)
    return Wanted(
        wine=Wine(program=given.wine, python="", prefix=given.prefix, display=given.display),
        path=given.path,
        portable=given.portable,
        health=(given.health_address, given.health_port),
        unanswered_s=given.unanswered,
        runtime=Path(os.environ.get("RUNTIME_DIRECTORY") or RUNTIME),
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; the exit status is the unit's."""
    terminal = Terminal(_wanted(words), Log("terminal"))
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: terminal.stop())
    return terminal.run()
