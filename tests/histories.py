"""Very many random histories of the trading state machines, in batches: `make states-long`.

Every run of the tests tries 1000 over the terminal model (700 of the gateway, 300 of a fleet), other ones
each time.

What is done is kept in `reports/histories.json` after each batch, so that the same command goes on where it
was stopped. Histories of other code count for nothing: a change of the machines or of what they try begins
anew. Each batch has a seed of its own; a red one says how to repeat it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "reports" / "histories.json"
MACHINES = {
    "gateway": "tests/unit/gateway/test_machine.py::TestMachine",
    "fleet": "tests/unit/test_fleet_machine.py::TestFleet",
    "phases": "tests/unit/gateway/test_phase_machine.py",
    "compare": "tests/unit/reconciler/test_compare.py",
}
MOST = {"phases": 1000}
"""Of a machine whose histories are long, no more, and a tenth of a batch at once."""
TRIED = (
    "src/mt5crs",
    "profiles",
    "tests/unit/gateway",
    "tests/unit/reconciler",
    "tests/unit/test_fleet_machine.py",
    "tests/unit/orders.py",
)


class RedError(Exception):
    """A history that should not have been possible; the text is what pytest said."""


class Done(msgspec.Struct):
    """Of one machine."""

    batches: int = 0
    histories: int = 0
    seconds: float = 0.0


class Progress(msgspec.Struct):
    """What is kept between two runs; `code` is the digest of what was tried."""

    code: str
    machines: dict[str, Done]

    def next(self, wanted: int, names: Iterable[str]) -> str | None:
        """Which of these machines is furthest behind; None when each has had `wanted` histories."""
        left = {
            name: done.histories / most
            for name in names
            if (done := self.machines[name]).histories < (most := min(wanted, MOST.get(name, wanted)))
        }
        return min(left, key=lambda name: left[name], default=None)

    def told(self, name: str, wanted: int) -> str:
        """A line about one machine: number, time, rate and how long the rest takes at it."""
        done, most = self.machines[name], min(wanted, MOST.get(name, wanted))
        rate = done.histories / done.seconds if done.seconds else 0.0
        rest = (
            f", {(most - done.histories) / rate / 3600:.1f} h to go" if rate and done.histories < most else ""
        )
        return f"{name}: {done.histories} of {most} histories in {done.seconds:.0f} s ({rate:.1f}/s){rest}"


def digest(paths: Iterable[str] = TRIED, root: Path = ROOT) -> str:
    """What the histories try, as one number."""
    whole = hashlib.sha256()
    for path in paths:
        place = root / path
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and "__pycache__" not in file.parts:
                whole.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return whole.hexdigest()


def load(file: Path, code: str) -> Progress:
    """What was done before, if it was on this code."""
    try:
        before = msgspec.json.decode(file.read_bytes(), type=Progress)
    except (FileNotFoundError, msgspec.DecodeError):
        before = None
    if before is not None and before.code == code and before.machines.keys() == MACHINES.keys():
        return before
    return Progress(code=code, machines={name: Done() for name in MACHINES})


def batch(name: str, seed: int, count: int) -> int:
    """Run a batch; returns how many histories it had. Raises RedError."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--timeout",
        "0",
        "-p",
        "no:cacheprovider",
        MACHINES[name],
    ]
    done = subprocess.run(
        [*command, f"--hypothesis-seed={seed}", "--hypothesis-show-statistics"],
        cwd=ROOT,
        env={**os.environ, "MT5CRS_MACHINE_RUNS": str(count)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        repeat = f"MT5CRS_MACHINE_RUNS={count} pytest {MACHINES[name]} --hypothesis-seed={seed} --timeout 0"
        raise RedError(f"{(done.stdout + done.stderr)[-6000:]}\n{name}: red; again with\n  {repeat}")
    return passing(done.stdout)


def passing(statistics: str) -> int:
    """How many histories Hypothesis says that it has tried and found good. RedError when it says nothing."""
    found = re.findall(r"(\d+) passing(?: examples)?,", statistics)
    if not found:
        raise RedError(f"Hypothesis does not say how many it has tried: {statistics[:500]}")
    return sum(map(int, found))


def main(
    arguments: Sequence[str] | None = None,
    *,
    run: Callable[[str, int, int], int] = batch,
    kept: Path = KEPT,
    code: str = "",
) -> int:
    """Go on until every machine has had its histories. 1 when one was red, 130 when interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.histories")
    parser.add_argument("machines", nargs="*", help=f"only these of {', '.join(MACHINES)}")
    parser.add_argument("--runs", type=int, default=100_000, help="histories of each machine")
    parser.add_argument("--batch", type=int, default=1000, help="histories between two notes of what is done")
    chosen = parser.parse_args(arguments)
    names = chosen.machines or list(MACHINES)
    if unknown := set(names) - MACHINES.keys():
        parser.error(f"there is no machine {', '.join(sorted(unknown))}: name some of {', '.join(MACHINES)}")
    progress = load(kept, code or digest())
    kept.parent.mkdir(exist_ok=True)
    try:
        while (name := progress.next(chosen.runs, names)) is not None:
            done = progress.machines[name]
            began = time.monotonic()
            size = chosen.batch // 10 if name in MOST else chosen.batch
            count = min(size, chosen.runs - done.histories)
            done.histories += run(name, done.batches, count)
            done.batches += 1
            done.seconds += time.monotonic() - began
            kept.write_bytes(msgspec.json.encode(progress))
            print(progress.told(name, chosen.runs), flush=True)
    except RedError as red:
        print(red)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on")
        return 130
    print("no violation;", "; ".join(progress.told(name, chosen.runs) for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
