"""Bundles by way of the Hub's store: what is planned, what is done with real tools and HTTPS, what is told.

A stand-in for ssh runs each command here; every host is a directory, and 127.0.0.1 the Hub's address.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import Fleet
from deploy.remote import release_store, ssh
from deploy.remote.release_store import Delivery, deliver
from deploy.reporting.report_page import page
from deploy.rollout.batches import Step
from deploy.rollout.distribution import Store, needs_of, store_of, told
from deploy.rollout.generation import Bundle, Desired, Todo
from deploy.rollout.plan import Plan, Work
from deploy.rollout.record import Rollout
from deploy.rollout.transfers import CONTROLLER, Transfer, summary

PROJECT = Path(__file__).resolve().parents[3]
SIZE = 3_000_000
HOSTS = ("hub-01", "inf-01", "inf-02")
HUB: dict[str, Any] = {
    "fleet_address": "127.0.0.1",
    "fleet_store_port": 8084,
    "fleet_store_host_mb_s": 20.0,
    "fleet_store_total_mb_s": 60.0,
}


def reached(host: str) -> dict[str, Any]:
    return {"inventory_hostname": host, "ansible_host": host, "ansible_become": False}


class Site:
    """Hosts in directories, and the ssh that reaches them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tool = directory / "mt5crs-release"
        self.bundle = Bundle(directory / "mt5crs-1-abc.tar", "a" * 64)
        self.bundle.path.write_bytes(os.urandom(SIZE))
        self.store = Store("hub-01", reached("hub-01"), "127.0.0.1", 0, 1000.0, 1000.0)
        self.happens()

    def happens(self, at: str = "") -> None:
        """Shell text that the stand-in for the tool runs first, with `$HOST` and what it was called with."""
        (self.directory / "ssh").write_text(
            "#!/bin/sh\n"
            'for word in "$@"; do host=$line line=$word; done\n'
            f"export HOST=$host TMPDIR={self.directory}\n"
            'exec sh -c "$line"\n'
        )
        self.tool.write_text(
            f"#!/bin/sh\n{at}\n"
            f"export PYTHONPATH={PROJECT / 'src'}\n"
            f'exec {sys.executable} -m mt5crs_release "$@" --root {self.directory}/$HOST\n'
        )
        for name in ("ssh", "mt5crs-release"):
            (self.directory / name).chmod(0o755)

    def deliver(self, *hosts: str) -> Delivery:
        chosen = hosts or HOSTS
        needs = dict.fromkeys(chosen, (self.bundle,))
        return deliver(self.store, {host: reached(host) for host in chosen}, needs)

    def has_it(self, host: str) -> bool:
        there = self.directory / host / "opt/mt5crs/bundles" / self.bundle.path.name
        return there.is_file() and there.read_bytes() == self.bundle.path.read_bytes()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(ssh, "require", lambda _name: str(tmp_path / "ssh"))
    monkeypatch.setattr(ssh, "TOOL", str(tmp_path / "mt5crs-release"))
    return Site(tmp_path)


def moved(done: Delivery) -> dict[str, int]:
    """Who got how many bytes over the line; the store of the Hub apart."""
    return {f"{one.host}{' store' if one.to_store else ''}": one.bytes for one in done.transfers}


def test_one_upload_and_every_host_fetches(site: Site) -> None:
    done = site.deliver()
    assert moved(done) == {"hub-01 store": SIZE, "hub-01": 0, "inf-01": SIZE, "inf-02": SIZE}
    assert all(site.has_it(host) for host in HOSTS)
    assert done.there == dict.fromkeys(HOSTS, (site.bundle.path.name,))
    assert (done.why, done.said) == ({}, [])
    assert (
        "3.0 MB uploaded once to hub-01; 3 hosts got it from there, 6.0 MB in" in summary(done.transfers)[0]
    )

    again = site.deliver("inf-03")
    assert moved(again) == {"hub-01 store": 0, "inf-03": SIZE}
    assert "hub-01 had all of it already; 1 host got it" in summary(again.transfers)[0]


def test_a_cut_upload_goes_on_in_the_same_run(site: Site) -> None:
    again = f'{sys.executable} -m mt5crs_release "$@" --root {site.directory}/$HOST'
    site.happens(
        f'if [ "$2" = put ] && mkdir {site.directory}/cut 2>/dev/null; then\n'
        f"  export PYTHONPATH={PROJECT / 'src'}\n"
        f"  head -c 1000000 | {again}; exit 1\nfi"
    )
    done = site.deliver()
    assert moved(done)["hub-01 store"] == SIZE
    assert all(site.has_it(host) for host in HOSTS)


def test_an_upload_goes_on_in_the_next_run(site: Site) -> None:
    digest = hashlib.sha256(site.bundle.path.read_bytes()).hexdigest()
    store = site.directory / "hub-01/opt/mt5crs/store"
    store.mkdir(parents=True)
    (store / f"{digest}.part").write_bytes(site.bundle.path.read_bytes()[:2_000_000])
    site.happens(f'[ "$2" != put ] || echo "$@" >>{site.directory}/puts')
    (stored, *_) = site.deliver().transfers
    (put,) = (site.directory / "puts").read_text().splitlines()
    assert put.endswith("--offset 2000000")
    assert (stored.bytes, stored.resumed_at) == (SIZE - 2_000_000, 2_000_000)


OLD = 'echo "usage: mt5crs-release: invalid choice" >&2; exit 2'


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (f'if [ "$1" = store ]; then {OLD}; fi', "its release tool is older than the release store"),
        ('if [ "$1" = store ]; then echo nonsense; exit 0; fi', "nonsense"),
        (
            'if [ "$2" = put ]; then cat >/dev/null; exit 1; fi',
            "it said nothing",
        ),
        ('if [ "$2" = serve ]; then exit 1; fi', "it gave no answer"),
        ("if [ \"$2\" = serve ]; then echo '[]'; sleep 30; fi", "it does not say where it is served"),
        (
            'if [ "$2" = serve ]; then echo \'{"error": {"message": "the disk is full"}}\'; exit 1; fi',
            "the disk is full",
        ),
    ],
)
def test_a_hub_that_cannot_is_told_once_and_everybody_gets_it_directly(
    site: Site, monkeypatch: pytest.MonkeyPatch, at: str, why: str
) -> None:
    monkeypatch.setattr(release_store, "_END_S", 0.1)
    site.happens(at)
    done = site.deliver()
    assert len(done.said) == 1
    assert done.said[0].startswith("bundles go directly to hosts: the release store of hub-01: ")
    assert why in done.said[0]
    assert done.there == {}
    assert set(done.why) == set(HOSTS)


def test_a_hub_that_is_not_reached_is_the_same(site: Site) -> None:
    (site.directory / "ssh").write_text("#!/bin/sh\necho 'ssh: connect: No route to host' >&2\nexit 255\n")
    done = site.deliver()
    assert "No route to host" in done.said[0]
    assert set(done.why) == set(HOSTS)


def test_a_port_that_is_taken_is_the_same(site: Site) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        site.store = replace(site.store, port=taken.getsockname()[1])
        done = site.deliver()
    assert f"port {site.store.port} of 127.0.0.1 cannot be listened on" in done.said[0]


def test_one_host_that_cannot_fetch_is_alone_with_it(site: Site) -> None:
    site.happens(f'if [ "$HOST $1" = "inf-02 fetch" ]; then {OLD}; fi')
    done = site.deliver()
    assert set(done.there) == {"hub-01", "inf-01"}
    assert set(done.why) == {"inf-02"}
    assert len(done.said) == 1
    assert done.said[0].startswith("inf-02: its bundles go there directly: its release tool is older")


def test_a_store_that_dies_in_the_middle_leaves_the_rest_to_direct_uploads(site: Site) -> None:
    """It serves the first host, and is gone before the second asks."""
    server = f"$(cat {site.directory}/pid)"
    site.happens(
        'if [ "$HOST $1" = "inf-02 fetch" ]; then\n'
        f"  kill {server}; while kill -0 {server} 2>/dev/null; do sleep 0.02; done\nfi\n"
        f'if [ "$2" = serve ]; then echo $$ >{site.directory}/pid; fi'
    )
    assert site.deliver("inf-01").why == {}
    done = site.deliver("inf-02")
    assert "does not answer" in done.why["inf-02"]
    assert done.there == {}


def test_what_a_host_claims_is_counted_as_a_number_or_not_at_all(site: Site) -> None:
    claim = {"files": [{"name": site.bundle.path.name, "bytes": "many", "resumed_at": -1}, 7, {"name": "x"}]}
    site.happens(f"if [ \"$1\" = fetch ]; then cat >/dev/null; echo '{json.dumps(claim)}'; exit 0; fi")
    assert moved(site.deliver("inf-01")) == {"hub-01 store": SIZE, "inf-01": 0}


def test_without_a_store_it_is_said_why(site: Site) -> None:
    needs = {"inf-01": (site.bundle,)}
    done = deliver("the fleet has no Hub", {"inf-01": reached("inf-01")}, needs)
    assert done.said == ["bundles go directly to each host: the fleet has no Hub"]
    assert done.why == {"inf-01": "the fleet has no Hub"}
    assert deliver("the fleet has no Hub", {}, {}).said == []


# --- what is planned and told


def test_which_store_there_is() -> None:
    hosts = {"hub-01": {**reached("hub-01"), **HUB}, "inf-01": reached("inf-01")}
    found = store_of(hosts, {"hub": ("hub-01",)})
    assert isinstance(found, Store)
    assert (found.name, found.address, found.port) == ("hub-01", "127.0.0.1", 8084)
    assert found.connection == reached("hub-01")
    assert store_of(hosts, {}) == "the fleet has no Hub"
    off = {"hub-01": {**hosts["hub-01"], "fleet_store_port": 0}}
    assert store_of(off, {"hub": ("hub-01",)}) == "fleet_store_port is 0"


def test_more_hosts_have_more_time() -> None:
    store = Store("hub-01", {}, "", 0, host_mb_s=20, total_mb_s=60)
    assert store.pace(1, 200_000_000).within_s == 60 + 3 * 10
    assert store.pace(12, 200_000_000).within_s == 60 + 3 * 40
    assert store.pace(40, 200_000_000).within_s == 60 + 3 * 200 / (60 / 16)
    assert store.pace(12, 1).least_bytes_s == 500_000


def plan(bundle: Bundle, *hosts: str) -> Plan:
    want = Desired("gateway", "{}", bundle, "d", 180)
    work = {(host, name): Work(want, Todo((bundle,), stage=True)) for host in hosts for name in ("a", "b")}
    return Plan("lab", "rolling", (Step("x", "inf", hosts),), {}, {}, {}, work)


def test_the_plan_says_where_bundles_come_from(site: Site) -> None:
    hosts = {"hub-01": HUB, "inf-01": {}, "gtw-w": {}}
    groups = {"hub": ("hub-01",), "windows": ("gtw-w",)}
    made = plan(site.bundle, "hub-01", "inf-01", "gtw-w")
    fleet = Fleet(Path("inventory/lab.yml"), "lab", hosts, groups)
    what = f"  bundle {site.bundle.path.name} (3.0 MB)"
    by_the_hub, windows = told(made, fleet)
    assert by_the_hub.startswith(f"{what} once to hub-01, from there to hub-01, inf-01 (20 MB/s each, 60 in")
    assert windows == f"{what} directly to gtw-w: Windows"
    assert needs_of(made, fleet) == {"hub-01": (site.bundle,), "inf-01": (site.bundle,)}
    without = Fleet(Path("inventory/lab.yml"), "lab", hosts, {"windows": ("gtw-w",)})
    assert told(made, without)[0] == f"{what} directly to hub-01, inf-01: the fleet has no Hub"
    assert told(plan(site.bundle), fleet) == []


def test_direct_uploads_are_told_by_reason() -> None:
    direct = [
        Transfer("inf-01", "a.tar", CONTROLLER, 5_000_000, 1.0, why="the Hub is\x1b[31m down"),
        Transfer("inf-02", "a.tar", CONTROLLER, 5_000_000, 1.0, why="the Hub is\x1b[31m down"),
        Transfer("gtw-w", "a.tar", CONTROLLER, 5_000_000, 1.0),
    ]
    assert summary(direct) == [
        r"bundles: 10.0 MB directly to inf-01, inf-02: the Hub is\x1b[31m down",
        "bundles: 5.0 MB directly to gtw-w",
    ]
    assert summary([]) == []


def test_record_and_page_say_what_came_from_where() -> None:
    rollout = Rollout("pyinfra", "lab")
    rollout.brought(
        [
            Transfer("hub-01", "a.tar", CONTROLLER, 3_000_000, 0.2, resumed_at=5, to_store=True),
            Transfer("inf-01", "a.tar", "hub-01", 4_000_000, 0.1),
            Transfer("inf-02", "a.tar", CONTROLLER, 4_000_000, 0.1, why="<b>slow</b>"),
        ]
    )
    record = rollout.record()
    assert [(one["host"], one["source"], one["bytes"]) for one in record["transfers"]] == [
        ("hub-01", CONTROLLER, 3_000_000),
        ("inf-01", "hub-01", 4_000_000),
        ("inf-02", CONTROLLER, 4_000_000),
    ]
    assert [(span["host"], span["step"]) for span in record["spans"]] == [("inf-01", "upload")]
    shown = page(json.loads(json.dumps(record)))
    assert "hub-01 (release store)" in shown
    assert "3.0 MB (went on)" in shown
    assert "&lt;b&gt;slow" in shown
    del record["transfers"]  # kept by an older release
    assert "Bundles" not in page(record)
