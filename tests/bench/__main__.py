"""All figures in one table: `python -m tests.bench [--quick]`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mt5crs.review import bench as review

from . import bench_client, bench_gateway, bench_strategy
from .figures import Table

PROJECT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Measure, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and messages")
    parser.add_argument("--json", type=Path, help="write them to this file, too")
    options = parser.parse_args()
    quick = options.quick
    table = Table()
    bench_gateway.run(table, samples=300 if quick else 1000, messages=50_000 if quick else 1_000_000)
    bench_client.run(table, quick=quick)
    bench_strategy.run(table, quick=quick)
    found = review.scenarios(0.5) + review.faults() + review.replay(PROJECT, 10 if quick else 50)
    for figure in found + review.verdict_s(PROJECT, 500):
        table.add(
            figure.name, figure.value, figure.unit, figure.at_most, figure.note, at_least=figure.at_least
        )
    print("\n" + table.text())
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(figure) for figure in table.figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
