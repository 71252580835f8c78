"""How many defects, put in on purpose, gate 1 of the review finds, by class: `make review-recall`.

The defects are those of the rules' own tests, some that a linter or type checker is for, and the faults of
the trading core that `make mutations` breaks tests with. Each is one commit of a copy of this repository.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mt5crs.review import local_gate
from mt5crs.review.tree import changed, run, tree_of
from tests.mutations import MUTATIONS, ROOT
from tests.unit.review.seeded import SEEDS

MODULE = "src/mt5crs/strategy/seeded.py"
WORKFLOW = ".github/workflows/seeded.yml"
STEPS = "name: x\non: push\npermissions: {}\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n"
HEAD = '"""Seeded."""\n\nfrom __future__ import annotations\n\n'


class Defect(NamedTuple):
    """A defect of a class: the file as it is then, and as it is without."""

    kind: str
    path: str
    bad: str
    good: str


PROGRAMS = (
    Defect("a name that is not there", MODULE, f"{HEAD}x = nowhere\n", f"{HEAD}x = 1\n"),
    Defect("a wrong type", MODULE, f"{HEAD}x: int = 'a'\n", f"{HEAD}x: int = 1\n"),
    Defect("a wrong type", MODULE, f"{HEAD}x = len(1)\n", f"{HEAD}x = len('a')\n"),
    Defect("None not looked at", MODULE, f"{HEAD}import re\n\nx = re.match('a', 'b')[0]\n", f"{HEAD}x = 1\n"),
    Defect("an attribute that is not there", MODULE, f"{HEAD}x = 'a'.nothing\n", f"{HEAD}x = 'a'.upper()\n"),
    Defect("dangerous call", MODULE, f"{HEAD}import pickle\n\nx = pickle.loads(b'')\n", f"{HEAD}x = 1\n"),
    Defect("dangerous call", MODULE, f"{HEAD}import os\n\nos.system('a ' + 'b')\n", f"{HEAD}x = 1\n"),
    Defect("dangerous call", MODULE, f"{HEAD}import hashlib\n\nx = hashlib.md5(b'a')\n", f"{HEAD}x = 1\n"),
    Defect(
        "flaw of a workflow",
        WORKFLOW,
        STEPS + "      - run: echo ${{ github.event.issue.title }}\n",
        STEPS + "      - run: echo a\n",
    ),
    Defect(
        "flaw of a workflow",
        WORKFLOW,
        STEPS.replace("on: push", "on: pull_request_target") + "      - run: echo a\n",
        STEPS + "      - run: echo a\n",
    ),
)


def defects() -> Iterator[Defect]:
    """All of them."""
    for seed in SEEDS:
        yield Defect(f"rule {seed.rule}", seed.path, seed.bad, seed.good)
    yield from PROGRAMS
    for mutation in MUTATIONS:
        path = f"src/mt5crs/{mutation.file}"
        good = (ROOT / path).read_text()
        yield Defect("fault of the trading core", path, good.replace(mutation.old, mutation.new), good)


def main() -> int:
    """Print found and false alarms by class."""
    found: dict[str, list[bool]] = {}
    alarms: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="mt5crs-recall-") as scratch:
        copy, cache = Path(scratch) / "copy", Path(scratch) / "cache"
        run(["git", "clone", "--quiet", "--shared", str(ROOT), str(copy)], {"PATH": "/usr/bin:/bin"})
        for defect in defects():
            bad, good = (_rules(copy, cache, defect.path, text) for text in (defect.bad, defect.good))
            rule = defect.kind.removeprefix("rule ")
            hit = rule in bad - good if rule != defect.kind else bool(bad - good)
            found.setdefault(defect.kind, []).append(hit)
            alarms[defect.kind] = alarms.get(defect.kind, 0) + (rule in good)
            print(
                f"{defect.kind:36} {'found' if hit else 'MISSED':7} {', '.join(sorted(bad - good))[:60]}",
                flush=True,
            )
    print(f"\n{'class':36} {'defects':>7} {'found':>6} {'recall':>7}  false alarms on what looks alike")
    for kind, hits in found.items():
        print(f"{kind:36} {len(hits):7} {sum(hits):6} {100 * sum(hits) / len(hits):6.0f}%  {alarms[kind]}")
    return 0


def _rules(copy: Path, cache: Path, path: str, text: str) -> set[str]:
    """What gate 1 finds in the change to this text, by rule."""
    target = copy / path
    before = target.read_text() if target.exists() else None
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    try:
        tree = tree_of(copy)
        judged = local_gate.judge(tree, changed(tree, tree_of(copy, "HEAD")), cache)
    finally:
        if before is None:
            target.unlink()
        else:
            target.write_text(before)
    # A program that could not read the file fails the review too.
    return {finding.rule for finding in judged.findings} | ({"not whole"} if judged.missing else set())


if __name__ == "__main__":
    sys.exit(main())
