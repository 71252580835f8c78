"""What a client that asks every 5 ms sees of a switch: `make bench-switch`.

In turns, for gateway and reconciler of a lab of its own: a switch to another generation, `systemctl restart`
as the units are, and `systemctl restart` with nothing held. The gateway is asked from another host (PING and
SYNC_ALL in turns), the reconciler on its own (state.sock).
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

from lab.handle import Lab
from tests.bench.fresh_fleet import deployed, timed
from tests.lab.asking import Asker

_LAB, _HOSTS = "bench-switch", 4
_GROUPS = {"gateway": "gtw", "reconciler": "inf"}
_TOOL = "/usr/local/sbin/mt5crs-release"
_ROUNDS = 5
_STAMPS = ("ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
_PLAIN = """\
[Service]
UnsetEnvironment=HOLD_SOCKETS_FOR
FileDescriptorStoreMax=0
RuntimeDirectoryPreserve=no
"""
_SWITCH, _RESTART, _WITHOUT = "switch of generations", "systemctl restart", "restart, nothing held"
_HEADS = ("asked", "lost", "longest answer", "without answer", "gap by systemd")


def main() -> int:
    """Measure and print; exit status 1 when a request was lost although sockets are held."""
    with deployed(_LAB, _HOSTS) as (fleet, _):
        # A second generation of each, to switch to and back from.
        fleet.override(gateway_quote_life_s=901.0, reconciler_recheck_interval_s=12.5)
        timed(lambda: fleet.pyinfra("--data", "strategy=all_at_once"))
        print(f"{_ROUNDS} rounds; milliseconds as median (worst); load {os.getloadavg()[0]:.1f}")
        print(f"{'':12}{'':24}" + "".join(f"{head:>18}" for head in _HEADS), flush=True)
        lost = sum(
            _measure(fleet.lab, service, _first(fleet.lab, group)) for service, group in _GROUPS.items()
        )
    return int(lost > 0)


def _measure(lab: Lab, service: str, host: str) -> int:
    """Print the rows of one service; how many requests were lost with sockets held."""
    ways = _ways(lab, host, service)
    seen: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(_ROUNDS):
        for way, act in ways.items():
            with _as_wanted(lab, host, service, way), Asker(lab, _first(lab, "inf"), service) as asker:
                gap = act()
            seen[way].append({**asker.result, "gap_ms": gap * 1000})
    for way, results in seen.items():
        counts = [sum(each["asked"] for each in results), sum(len(each["lost"]) for each in results)]
        times = [_figure(results, name) for name in ("longest_ms", "away_ms", "gap_ms")]
        print(f"{service:12}{way:24}" + "".join(f"{column:>18}" for column in [*counts, *times]))
    plain = _median(seen[_WITHOUT], "away_ms")
    ratios = ", ".join(
        f"{way} {_median(results, 'away_ms') / plain:.2f}" for way, results in seen.items() if way != _WITHOUT
    )
    print(f"{'':12}without answer, against a restart with nothing held: {ratios}")
    return sum(len(each["lost"]) for way, results in seen.items() if way != _WITHOUT for each in results)


def _median(results: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(each[name] for each in results))


def _figure(results: list[dict[str, Any]], name: str) -> str:
    return f"{_median(results, name):.0f} ({max(each[name] for each in results):.0f})"


@contextlib.contextmanager
def _as_wanted(lab: Lab, host: str, service: str, way: str) -> Iterator[None]:
    """The unit as it ships, or for `_WITHOUT` one whose sockets nobody keeps."""
    if way != _WITHOUT:
        yield
        return
    unit = f"mt5crs-{service}.service"
    drop_in = f"/run/systemd/system/{unit}.d/bench.conf"
    write = f"mkdir -p $(dirname {drop_in}); cat > {drop_in}; systemctl daemon-reload"
    lab.exec(host, ["sh", "-c", write], input_text=_PLAIN)
    try:
        yield
    finally:
        undo = f"rm -r $(dirname {drop_in}); systemctl daemon-reload; systemctl restart {unit}"
        lab.exec(host, ["sh", "-c", undo], timeout_s=60)


def _ways(lab: Lab, host: str, service: str) -> dict[str, Callable[[], float]]:
    """What is done while the client asks; each returns the gap in seconds as systemd tells it."""
    unit = f"mt5crs-{service}.service"

    def switch() -> float:
        known = json.loads(lab.exec(host, [_TOOL, "list", service, "--json"]).stdout)["generations"]
        other = [each["generation"] for each in known if each["state"] == "confirmed" and not each["current"]]
        command = [_TOOL, "rollback", service, "--to", other[-1], "--json"]
        answer = json.loads(lab.exec(host, command, timeout_s=90).stdout)
        return float(answer["cutover"][unit]["gap_s"])

    def restart() -> float:
        lab.exec(host, ["systemctl", "restart", unit], timeout_s=60)
        show = lab.exec(host, ["systemctl", "show", unit, *(f"-p{name}" for name in _STAMPS)]).stdout
        stamps = dict(line.split("=", 1) for line in show.split())
        return (int(stamps[_STAMPS[1]]) - int(stamps[_STAMPS[0]])) / 1e6

    return {_SWITCH: switch, _RESTART: restart, _WITHOUT: restart}


def _first(lab: Lab, group: str) -> str:
    return next(host.name for host in lab.plan.hosts if host.name.startswith(group))


if __name__ == "__main__":
    sys.exit(main())
