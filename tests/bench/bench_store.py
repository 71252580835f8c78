"""Bytes and seconds until four hosts have a bundle: by way of the Hub's store, and from the controller.

Run: `python -m tests.bench.bench_store [--lab NAME] [--mb 200]`. Without `--lab` it boots and deploys one of
its own and removes it. The bundle is random bytes, removed from the hosts at the end. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.fleet.inventory import resolve
from deploy.remote import ssh
from deploy.remote.release_store import deliver
from deploy.remote.upload import script
from deploy.rollout.distribution import Store, digest_of, store_of
from deploy.rollout.generation import Bundle
from deploy.rollout.transfers import CONTROLLER, megabytes
from lab.handle import Lab
from tests.bench.fresh_fleet import deployed
from tests.lab.engines import Fleet

MB = 1000 * 1000
LAB = "bench-store"
UNBOUNDED = 10_000.0


def directly(hosts: Mapping[str, Mapping[str, Any]], bundle: Bundle) -> float:
    """Upload to every host at the same time, as the engines do; seconds."""
    size = bundle.path.stat().st_size

    def put(host: str) -> None:
        with bundle.path.open("rb") as content:
            command = ["sh", "-c", script(bundle.remote, size)]
            reply = ssh.run(hosts[host], command, stdin=content, timeout_s=600)
        if reply.status != 0:
            raise RuntimeError(f"{host}: {reply.why}")

    began = time.monotonic()
    with ThreadPoolExecutor(len(hosts)) as pool:
        list(pool.map(put, hosts))
    return time.monotonic() - began


def remove(fleet: Fleet, bundle: Bundle) -> None:
    """Take the bundle from hosts and store."""
    kept = f"/opt/mt5crs/store/{digest_of(bundle.path)}.tar"
    for host in fleet.lab.plan.hosts:
        fleet.lab.exec(host.name, ["rm", "-f", bundle.remote, kept])


def show(hosts: int, what: str, sent: int, came: int, seconds: float) -> None:
    """Print one line."""
    told = f"controller sent {megabytes(sent):>9}  Hub sent {megabytes(came):>9}  {seconds:6.1f} s"
    print(f"{hosts} hosts  {what:<44} {told}", flush=True)


def by_the_hub(store: Store, hosts: Mapping[str, Mapping[str, Any]], bundle: Bundle, what: str) -> None:
    """Print what it takes by way of the Hub. RuntimeError when a host did not get it there."""
    began = time.monotonic()
    done = deliver(store, hosts, dict.fromkeys(hosts, (bundle,)))
    seconds = time.monotonic() - began
    if done.why:
        raise RuntimeError(str(done.why))
    sent = sum(one.bytes for one in done.transfers if one.source == CONTROLLER)
    came = sum(one.bytes for one in done.transfers if one.source != CONTROLLER)
    show(len(hosts), what, sent, came, seconds)


def measure(fleet: Fleet, size: int) -> None:
    """Print all of it for one lab."""
    of = resolve(fleet.inventory)
    store = store_of(of.hosts, of.groups)
    if isinstance(store, str):
        raise RuntimeError(store)
    with tempfile.TemporaryDirectory() as directory:
        bundle = Bundle(Path(directory) / "bench-store-0.tar", "0" * 64)
        bundle.path.write_bytes(os.urandom(size))
        digest_of(bundle.path)
        try:
            seconds = directly(of.hosts, bundle)
            show(len(of.hosts), "directly", size * len(of.hosts), 0, seconds)
            remove(fleet, bundle)
            rates = f"{store.host_mb_s:g} MB/s each, {store.total_mb_s:g} in total"
            by_the_hub(store, of.hosts, bundle, f"by the Hub, {rates}")
            by_the_hub(store, of.hosts, bundle, "again, all of them have it")
            remove(fleet, bundle)
            free = replace(store, host_mb_s=UNBOUNDED, total_mb_s=UNBOUNDED)
            by_the_hub(free, of.hosts, bundle, "by the Hub, no bound")
        finally:
            remove(fleet, bundle)


def main() -> None:
    """Measure a running lab, or one of its own."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--lab", help="a lab that is deployed already")
    arguments.add_argument("--mb", type=int, default=200, help="size of the bundle (default 200)")
    chosen = arguments.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the beginning", flush=True)
    if chosen.lab:
        measure(Fleet(Lab.open(chosen.lab)), chosen.mb * MB)
        return
    with deployed(LAB, 4) as (fleet, _):
        measure(fleet, chosen.mb * MB)


if __name__ == "__main__":
    main()
