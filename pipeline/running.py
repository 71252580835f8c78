"""Runs a stage: its commands one after the other, what they print kept beside the record."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deploy.controller.programs import find, require
from pipeline import built, page, record
from pipeline.errors import PipelineError
from pipeline.order import changed, earlier, flaw, outcome_of, refusal, unchecked
from pipeline.record import DIRECTORY, Outcome, Record, Step
from pipeline.source import Source, source_of
from pipeline.stages import FREE_MB, NEEDS, UNCHECKED, Options, Planned, planned

_NOT_PASSED_ON = ("PYTEST_ADDOPTS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "COVERAGE_FILE")
"""Variables that would change what a step looks at, without the record saying so."""
_PACKAGES = ("ansible-core", "bandit", "coverage", "mypy", "pyinfra", "pytest", "ruff", "uv", "zizmor")
_PROGRAMS = ("git", "make", "mmdebstrap", "podman")


class StoppedError(Exception):
    """Somebody asked to stop while `step` ran; it was asked to stop too, and has ended."""

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self.step = step


def run(root: Path, stage: str, options: Options) -> Record:
    """Run one stage and keep its record, whatever comes of it.

    PipelineError: it was refused, or cannot be run here. MissingProgramError, SigningError, OSError,
    StoppedError.
    """
    with _alone(root):
        source = source_of(root)
        before = {name: record.read(name, root) for name in earlier(stage)}
        records = {name: found[0] if found else None for name, found in before.items()}
        why = refusal(stage, records, source) or _not_as_built(root, records)
        if why is not None:
            raise PipelineError(why)
        for program in NEEDS[stage]:
            require(program)
        _room(root, stage)
        record.forget(stage, root)
        began, since = datetime.now(timezone.utc), time.monotonic()
        past = [each for each in records.values() if each is not None]
        steps, figures = _steps(root, stage, planned(stage, options), past)
        if source_of(root) != source:
            raise PipelineError(
                f"the commit changed while {stage} ran, so its record would be about neither: "
                f"run `make pipeline-{stage}` again"
            )
        made = built.digests(root) if stage == "build" and outcome_of(steps) != "failed" else {}
        done = Record(
            stage=stage,
            commit=source.commit,
            tree=source.tree,
            began=began.isoformat(timespec="seconds").replace("+00:00", "Z"),
            seconds=round(time.monotonic() - since, 1),
            outcome=outcome_of(steps),
            steps=steps,
            tools=tools(),
            made=made,
            figures=figures,
            before={name: found[1] for name, found in before.items() if found},
        )
        record.write(done, root)
        page.keep(root, source)
        return done


def standing(root: Path, stage: str) -> Record | None:
    """The record of a stage if it stands for what is checked out, so that it need not be run again."""
    source: Source = source_of(root)
    try:
        found = record.read(stage, root)
    except PipelineError:
        return None
    if found is None or flaw(stage, found[0], source) is not None:
        return None
    return None if _not_as_built(root, {stage: found[0]}) else found[0]


def tools() -> dict[str, str]:
    """Versions of what the steps use; a program that is not there is said to be missing."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    for program in _PROGRAMS:
        path = find(program)
        told = ""
        if path is not None:
            answer = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=30, check=False
            )
            told = (answer.stdout or answer.stderr).partition("\n")[0].strip()
        found[program] = told or "missing"
    return found


def _steps(
    root: Path, stage: str, plan: Sequence[Planned], past: Sequence[Record]
) -> tuple[list[Step], dict[str, Any]]:
    logs = root / DIRECTORY / stage
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    steps: list[Step] = []
    figures: dict[str, Any] = {}
    for number, each in enumerate(plan, 1):
        if each.production and (why := unchecked(past)) is not None:
            steps.append(_refused(each, why))
            print(f"=== {stage}: {each.name}: refused: {why}", flush=True)
            break
        kept = root / DIRECTORY / each.figures if each.figures else None
        if kept is not None:
            kept.unlink(missing_ok=True)
        step = _step(root, stage, each.name, each.command, logs / f"{number}.log")
        steps.append(step)
        if kept is not None and kept.is_file():
            figures[each.figures.removesuffix(".json")] = json.loads(kept.read_bytes())
        if step.outcome == "failed":
            if each.undo:
                back = f"{each.name}: taken back"
                steps.append(_step(root, stage, back, each.undo, logs / f"{number}-undo.log"))
            break
    return steps, figures


def _refused(each: Planned, why: str) -> Step:
    return Step(
        name=each.name, command=list(each.command), outcome="failed", status=0, seconds=0, log="", detail=why
    )


def _step(root: Path, stage: str, name: str, command: Sequence[str], log: Path) -> Step:
    print(f"=== {stage}: {name}", flush=True)
    began = time.monotonic()
    status, last = _told(root, name, command, log)
    outcome: Outcome = "passed" if status == 0 else "not checked" if status == UNCHECKED else "failed"
    seconds = round(time.monotonic() - began, 1)
    print(f"=== {stage}: {name}: {outcome} in {seconds:.0f} s", flush=True)
    return Step(
        name=name,
        command=[Path(word).name if word == sys.executable else word for word in command],
        outcome=outcome,
        status=status,
        seconds=seconds,
        log=f"{log.parent.name}/{log.name}",
        detail="" if outcome == "passed" else last,
    )


def _told(root: Path, name: str, command: Sequence[str], log: Path) -> tuple[int, str]:
    """Run a command; what it prints is shown and kept. Return its status and its last line with words.

    Asked to stop, it is asked too, and waited for: a deployment puts back what it has begun.
    """
    program = _program(command[0])
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    last = ""
    with log.open("w", encoding="utf-8") as kept, _Stopping() as stopping:
        child = subprocess.Popen(
            [program, *command[1:]],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        stopping.hand_on_to(child.pid)
        try:
            for line in child.stdout or ():
                kept.write(line)
                sys.stdout.write(line)
                sys.stdout.flush()
                last = line.strip() or last
        except BaseException:
            os.killpg(child.pid, signal.SIGINT)
            child.communicate()
            raise
        status = child.wait()
    if stopping.asked:
        raise StoppedError(name)
    return status, last


class _Stopping:
    """Hands Ctrl-C and SIGTERM on to a step, as Ctrl-C; without an exception, which could lose the step."""

    def __init__(self) -> None:
        self.asked = False
        self._group: int | None = None

    def __enter__(self) -> _Stopping:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hand_on_to(self, group: int) -> None:
        """From now on to this group of processes; at once, if somebody has asked already."""
        self._group = group
        if self.asked:
            self._ask()

    def _ask(self, *_: object) -> None:
        self.asked = True
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(self._group, signal.SIGINT)


def _program(name: str) -> str:
    if name.startswith("/"):
        return name
    path = find(name)
    if path is None:
        raise PipelineError(f"{name} is missing: install it with `apt-get install {name}` as root")
    return path


def _not_as_built(root: Path, records: Mapping[str, Record | None]) -> str | None:
    made = records.get("build")
    if made is None:
        return None
    there = {name: root / name for name in made.made if (root / name).is_file()}
    return changed(made, {name: built.digest_of(path) for name, path in there.items()})


def _room(root: Path, stage: str) -> None:
    free_mb = shutil.disk_usage(root).free // 1_000_000
    if free_mb < FREE_MB[stage]:
        raise PipelineError(
            f"{stage} needs {FREE_MB[stage]} MB and only {free_mb} MB are free below {root}: make room"
        )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One stage at a time in a clone: two would write each other's results."""
    directory = root / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise PipelineError(
                f"another pipeline runs in {root} (process {lock.read().strip() or 'unknown'}): wait for it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
