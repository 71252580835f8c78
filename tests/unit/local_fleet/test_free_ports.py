"""Two processes that look for free ports at the same numbers do not give the same ones."""

from __future__ import annotations

import subprocess
import sys

from mt5crs.local_fleet import rehearsal

OTHERS = """
import itertools, sys
from mt5crs.local_fleet import rehearsal
rehearsal._next_port = itertools.count(int(sys.argv[1]))
print(*rehearsal.free_ports(8))
"""


def test_what_one_process_has_given_another_passes_over() -> None:
    first = rehearsal.free_ports(1)[0] - rehearsal._PORTS.start
    mine = rehearsal.free_ports(8)
    asked = [sys.executable, "-c", OTHERS, str(first)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    theirs = [int(port) for port in done.stdout.split()]
    assert len(theirs) == 8
    assert not set(mine) & set(theirs)


def test_claims_are_given_up_in_time() -> None:
    for _ in range(rehearsal._CLAIMED_AT_ONCE + 10):
        rehearsal.free_ports(1)
    assert len(rehearsal._claims) == rehearsal._CLAIMED_AT_ONCE
