"""How long deployments take: pyinfra, Ansible and Ansible with Mitogen in turns on the same lab hosts.

Run: `make bench-deploy`, or `python -m tests.bench.bench_deploy --hosts 4,16,40 --rounds 5`. Boots labs of
its own and removes them. Times are wall-clock seconds of the whole command, so starting Python counts; the
three take turns in each round, and what is compared are medians of the same run. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.fresh_fleet import deployed, timed
from tests.lab.engines import Fleet, Ran

LAB = "bench-deploy"
CHANGE = {
    "reconciler_recheck_interval_s": 12.5,
    "strategy_order_timeout_s": 5.5,
    "gateway_quote_life_s": 901.0,
    "monitoring_alert_gateway_silence_s": 11,
}
"""A new generation of every trading service and of the Hub's monitoring, with the code that is there."""
IDLE = {"strategy_tick_interval_s": 3600}
"""For larger fleets: strategies that trade on dozens of hosts leave two cores no time for deployments."""
HOSTS_OF_A_FLEET = 4
ROLLBACK_BOUND_S = 10.0
FASTER_THAN_ANSIBLE, FASTER_THAN_MITOGEN = 5.0, 2.0


def mitogen_environment() -> dict[str, str]:
    """What makes `ansible-playbook` use Mitogen. RuntimeError when it is not installed."""
    found = importlib.util.find_spec("ansible_mitogen")
    if found is None or found.origin is None:
        raise RuntimeError("Mitogen is not installed; run this through `make bench-deploy`")
    strategies = Path(found.origin).parent / "plugins" / "strategy"
    return {"ANSIBLE_STRATEGY_PLUGINS": str(strategies), "ANSIBLE_STRATEGY": "mitogen_linear"}


def engines(fleet: Fleet) -> dict[str, Callable[[], Ran]]:
    """The three ways to deploy the same fleet."""
    mitogen = mitogen_environment()
    return {
        "pyinfra": fleet.pyinfra,
        "Ansible": lambda: fleet.playbook("site.yml"),
        "Ansible with Mitogen": lambda: fleet.playbook("site.yml", **mitogen),
    }


def in_turns(of: Mapping[str, Callable[[], Ran]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round, so that a busy minute of the machine hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in of}
    for _ in range(rounds):
        for name, run in of.items():
            seconds[name].append(timed(run).seconds)
    return seconds


def nothing_to_do(fleet: Fleet, hosts: int, rounds: int, *, alone: bool) -> None:
    """Print how long each engine (alone: only pyinfra) needs to find that nothing is to be done."""
    seconds = in_turns({"pyinfra": fleet.pyinfra} if alone else engines(fleet), rounds)
    own = statistics.median(seconds["pyinfra"])
    for name, values in seconds.items():
        ratio = statistics.median(values) / own
        print(
            f"{hosts:>3} hosts  nothing to do  {name:<21} median {statistics.median(values):7.2f} s  "
            f"min {min(values):7.2f}  max {max(values):7.2f}  {ratio:6.2f} x pyinfra",
            flush=True,
        )
    if hosts == HOSTS_OF_A_FLEET and not alone:
        for name, bound in (("Ansible", FASTER_THAN_ANSIBLE), ("Ansible with Mitogen", FASTER_THAN_MITOGEN)):
            ratio = statistics.median(seconds[name]) / own
            print(
                f"           {name}: {ratio:.2f} times pyinfra's, wanted {bound:.0f}: "
                f"{_judged(ratio >= bound)}"
            )


def changed_release(fleet: Fleet, strategy: str) -> None:
    """Print how long a new generation takes from staged to confirmed on every host, and where it goes."""
    fleet.override(**CHANGE)
    run = timed(lambda: fleet.pyinfra("--data", f"strategy={strategy}"))
    record = run.ran.record
    waited = sum(
        float(phase["seconds"]) for phase in record["phases"] if phase["name"].startswith("Activate")
    )
    print(f"  4 hosts  new generations, {strategy}: {run.seconds:.1f} s by the clock on the wall,", end=" ")
    print(f"{record['seconds']:.1f} s by its own, of which activating and watching health {waited:.1f} s")
    for phase in record["phases"]:
        if phase["seconds"] >= 0.05:
            print(f"           {phase['name']:<34} {phase['hosts']:>2} hosts {phase['seconds']:7.2f} s")


def rolled_back(fleet: Fleet) -> None:
    """Print how long the whole fleet takes to be back and healthy."""
    run = timed(lambda: fleet.pyinfra("--data", "part=fleet", file="rollback.py"))
    own = float(run.ran.record["seconds"])
    print(
        f"  4 hosts  rollback of the fleet: {run.seconds:.1f} s by the clock on the wall, "
        f"{own:.1f} s by its own, wanted {ROLLBACK_BOUND_S:.0f}: {_judged(run.seconds <= ROLLBACK_BOUND_S)}",
        flush=True,
    )
    back = [span for span in run.ran.record["spans"] if span["step"] == "roll back"]
    for span in back:
        health = (span.get("health") or {}).get("seconds", 0.0)
        print(
            f"           {span['host']:<8} {span['service']:<11} from {span['began']:6.2f} s, host busy for "
            f"{span['seconds']:6.2f} s, of which watching its health {health:5.2f} s"
        )
    if not fleet.running():
        raise RuntimeError("the fleet is not healthy after its rollback")


def _judged(good: bool) -> str:
    return "reached" if good else "MISSED"


def main() -> None:
    """Measure each size of fleet; the changed release and the rollback on four hosts."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--hosts", default="4,16", help="sizes of the fleets, comma-separated")
    arguments.add_argument(
        "--rounds", type=int, default=5, help="rounds for four hosts; larger fleets get three"
    )
    arguments.add_argument(
        "--alone", action="store_true", help="pyinfra only, without what it is compared with"
    )
    chosen = arguments.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.2f} at the beginning", flush=True)
    for hosts in (int(size) for size in chosen.hosts.split(",")):
        idle = {} if hosts == HOSTS_OF_A_FLEET else IDLE
        with deployed(LAB, hosts, settings=idle) as (fleet, seconds):
            print(f"{hosts:>3} hosts  from nothing, pyinfra, ten at a time: {seconds:.1f} s", flush=True)
            rounds = chosen.rounds if hosts == HOSTS_OF_A_FLEET else min(3, chosen.rounds)
            nothing_to_do(fleet, hosts, rounds, alone=chosen.alone)
            if hosts == HOSTS_OF_A_FLEET:
                changed_release(fleet, "all_at_once")
                rolled_back(fleet)
                changed_release(fleet, "rolling")
                fleet.override()


if __name__ == "__main__":
    main()
