"""All figures in one table: `python -m tests.bench [--quick]`."""

import argparse

from . import bench_client, bench_gateway
from .figures import Table


def main() -> None:
    """Measure, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and messages")
    quick = parser.parse_args().quick
    table = Table()
    bench_gateway.run(table, samples=300 if quick else 1000, messages=50_000 if quick else 1_000_000)
    bench_client.run(table, quick=quick)
    print("\n" + table.text())


if __name__ == "__main__":
    main()
