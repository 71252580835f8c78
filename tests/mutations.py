"""Deliberate faults in the trading core: does the named test go red for each? `make mutations`.

Every mutation is made in a temporary copy of `src`, which the tests then import instead of the real one. The
tests must first be green on an unchanged copy. As a pytest plugin this module makes Hypothesis stop at the
first failure and draw the same histories every time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "safety.md"
TIMEOUT_S = 900.0
RUNS = "1000"
"""Histories until a fault must have shown; every run tries fewer, and others each time."""
FLEET = "tests/unit/test_fleet_machine.py"
EXECUTION = "tests/unit/strategy/test_execution.py -k which_refusals"
COMPARE = "tests/unit/reconciler/test_compare.py"
PARTS = "tests/unit/gateway/test_partly_loaded.py"
CLOCK = "tests/unit/gateway/test_summer_time.py"
MODES = "tests/unit/gateway/test_modes.py"
PHASES = "tests/unit/gateway/test_phase_machine.py"
PROFILE = "mutations"

settings.register_profile(
    PROFILE,
    phases=(Phase.explicit, Phase.generate),
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
)

Verdict = Literal["red", "GREEN", "STALE", "BROKEN"]


@dataclass(frozen=True)
class Mutation:
    """One fault: in `file` (below `src/mt5crs`) the only `old` becomes `new`, and `test` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str = FLEET

    def misfit(self) -> str | None:
        """Why it cannot be made or is not documented, or None."""
        found = (ROOT / "src" / "mt5crs" / self.file).read_text().count(self.old)
        if found != 1:
            return f"its old text is {found} times in src/mt5crs/{self.file}: adapt it in tests/mutations.py"
        if f"| {self.name} |" not in DOCUMENT.read_text():
            return f"it is missing in {DOCUMENT.relative_to(ROOT)}: add a line"
        return None


MUTATIONS = (
    Mutation(
        "strategy believes in its lease for ever",
        "strategy/lease.py",
        "return epoch if epoch and self._clock() < until else None",
        "return epoch or None",
    ),
    Mutation(
        "strategy's lease has no margin",
        "strategy/lease.py",
        "began + lease.ttl_ms / 1000 - self._margin_s",
        "began + lease.ttl_ms / 1000",
    ),
    Mutation(
        "fresh epoch left out",
        "strategy/lease.py",
        "                if fresh_epoch:\n",
        "                if False:\n",
    ),
    Mutation(
        "unknown orders taken for never sent",
        "strategy/execution.py",
        'raise OrderUnknownError(f"no answer about',
        'raise OrderNotSentError(f"no answer about',
    ),
    Mutation(
        "busy taken for never sent",
        "strategy/execution.py",
        'in ("BUSY", "NOT_READY", "BROKER"',
        'in ("NOT_READY", "BROKER"',
        EXECUTION,
    ),
    Mutation(
        "position limit not checked",
        "gateway/risk.py",
        "    _check_exposure(terms, limits, facts)\n",
        "",
    ),
    Mutation(
        "what the books do not show yet is forgotten",
        "gateway/pending.py",
        "        self._effects[effect.magic, effect.id] = effect\n",
        "        return\n",
    ),
    Mutation(
        "what was open before a restart is forgotten",
        "gateway/last_seen.py",
        "if not (self._positions or self._orders):",
        "if True:",
        PARTS,
    ),
    Mutation(
        "what is not explained is not looked for further back",
        "reconciler/compare.py",
        "_known_from(local) if local.unexplained else ",
        "",
        COMPARE,
    ),
    Mutation(
        "deals of the hour that comes twice are not asked for",
        "gateway/ledger.py",
        "return now_msc < self._now - _SET_BACK_MS",
        "return False",
        CLOCK,
    ),
    Mutation(
        "what a symbol does not take is sent",
        "gateway/order_checks.py",
        "        check_taken(terms, spec, tick)\n",
        "",
        MODES,
    ),
    Mutation(
        "working orders do not count for the position limit",
        "gateway/risk.py",
        "    for order in orders:\n        side = buys if order",
        "    for order in ():\n        side = buys if order",
    ),
    Mutation(
        "recorded answers forgotten: a repeated id is sent again",
        "gateway/order_manager.py",
        "        if known is not None:\n            return self._repeat(request, known)\n",
        "        if known is not None:\n"
        "            self._journal._db.execute('DELETE FROM submissions WHERE client_order_id = ?',\n"
        "                                      (request.client_order_id,))\n",
    ),
    Mutation(
        "unresolved order does not block",
        "gateway/order_manager.py",
        "        self._blocking.require_settled(request)\n",
        "",
    ),
    Mutation(
        "halt ignored",
        "gateway/control.py",
        '            if halt is not None:\n                raise Refusal(\n                    "HALTED"',
        '            if False:\n                raise Refusal(\n                    "HALTED"',
    ),
    Mutation(
        "stale epoch accepted",
        "gateway/control.py",
        "        if held is None or held.epoch != epoch:\n",
        "        if held is None:\n",
    ),
    Mutation(
        "run-out lease accepted",
        "gateway/control.py",
        "        if self._monotonic() >= held.expires:\n",
        "        if False:\n",
    ),
    Mutation(
        "lease forgotten by a restart of the gateway",
        "gateway/control.py",
        "expires=0.0 if released else now + ttl_ms / 1000,\n            )\n",
        "expires=0.0,\n            )\n",
    ),
    Mutation(
        "external position adopted",
        "reconciler/model.py",
        "positions=tuple(_displayable(p) for p in snapshot.positions if p.magic == magic)",
        "positions=tuple(snapshot.positions)",
    ),
    Mutation(
        "missed deals not fetched",
        "reconciler/compare.py",
        "return max(0, _known_from(local) if local.unexplained else local.through_msc - OVERLAP_MSC)",
        "return local.through_msc + OVERLAP_MSC",
    ),
    Mutation(
        "deals applied twice",
        "reconciler/compare.py",
        "        if deal.ticket not in seen and",
        "        if",
    ),
    Mutation(
        "dry run of a phase sent",
        "gateway/phase_rules.py",
        "dry_run=limits.dry_run or profile.dry_run",
        "dry_run=limits.dry_run",
        PHASES,
    ),
    Mutation(
        "record of a phase counts for ever",
        "gateway/phases.py",
        "self._store.now_msc() < record.expires_msc",
        "True",
        PHASES,
    ),
    Mutation(
        "older record of a phase accepted",
        "gateway/phase_acceptance.py",
        "record.serial > serial,",
        "True,",
        PHASES,
    ),
    Mutation(
        "position limit of a phase not checked",
        "gateway/phase_rules.py",
        "limits.position_limit * unit",
        "1e9 * unit",
        PHASES,
    ),
)


@contextmanager
def mutated(mutation: Mutation | None) -> Iterator[Path]:
    """A temporary copy of `src` with the fault in it; None: without one."""
    with tempfile.TemporaryDirectory(prefix="mt5crs-mutation-") as directory:
        copy = Path(directory) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        if mutation is not None:
            path = copy / "mt5crs" / mutation.file
            path.write_text(path.read_text().replace(mutation.old, mutation.new))
        yield copy


def run(test: str, source: Path) -> tuple[Verdict, str]:
    """Run a test against a copy of `src`. The verdict, and what pytest said."""
    environment = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("MT5CRS_MACHINE_RUNS", RUNS)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "tests.mutations"]
    command += ["--hypothesis-profile", PROFILE, *test.split()]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "BROKEN", f"no end after {TIMEOUT_S:g} s"
    verdicts: dict[int, Verdict] = {0: "GREEN", 1: "red"}
    return verdicts.get(done.returncode, "BROKEN"), done.stdout + done.stderr


def reason(output: str) -> str:
    """The line of pytest's output that says what failed."""
    lines = [line.removeprefix("E").strip() for line in output.splitlines() if line.startswith("E ")]
    return next((line.lstrip("| ") for line in lines if "Error" in line), lines[0] if lines else "")


def judge(mutation: Mutation) -> tuple[Verdict, str]:
    """Whether the mutation's test goes red, and why."""
    misfit = mutation.misfit()
    if misfit is not None:
        return "STALE", misfit
    with mutated(mutation) as source:
        verdict, output = run(mutation.test, source)
    return verdict, {"red": reason(output), "GREEN": "it survives"}.get(verdict, output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table. 1 when a mutation survives or no longer fits, or a test is red without one."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.mutations")
    parser.add_argument("words", nargs="*", help="only the mutations whose name contains one of these")
    words = parser.parse_args(arguments).words
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    bad = 0
    width = max((len(m.name) for m in chosen), default=0)
    for test in dict.fromkeys(m.test for m in chosen):
        began = time.monotonic()
        with mutated(None) as source:
            verdict, output = run(test, source)
        bad += verdict != "GREEN"
        print(f"{'(no mutation)':{width}}  {test}  {verdict}  {time.monotonic() - began:.0f} s", flush=True)
        if verdict != "GREEN":
            print(output)
    for mutation in chosen:
        began = time.monotonic()
        verdict, why = judge(mutation)
        bad += verdict != "red"
        took = f"{time.monotonic() - began:.0f} s"
        print(f"{mutation.name:{width}}  {mutation.test}  {verdict}  {took}  {why}", flush=True)
    print(f"{len(chosen)} mutations, {bad} problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
