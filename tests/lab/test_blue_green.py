"""Blue/green on real hosts while the strategy trades: compared, then switched, and nothing is doubled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from deploy.fleet.inventory import resolve
from deploy.rollout.generation import desired
from lab.handle import wait_until
from tests.lab.engines import Fleet, Ran
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

HOST, GATEWAY = "inf-01", "gtw-01"
TOOL = "/usr/local/sbin/mt5crs-release"
READ = """
import json, sqlite3, sys
path, query, *values = sys.argv[1:]
books = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
print(json.dumps(books.execute(query, values).fetchall()))
"""
BOOKS = "/var/lib/mt5crs/gateway/sim/broker.db"
GATEWAY_JOURNAL = "/var/lib/mt5crs/gateway/journal.db"


class Node:
    """One Inf on the machine: what it is to run, the release tool there, and what it trades."""

    def __init__(self, fleet: Fleet, host: str = HOST) -> None:
        self.fleet = fleet
        self.lab = fleet.lab
        self.settings: Mapping[str, Any] = resolve(fleet.inventory, {}).hosts[host]
        self.magic = int(self.settings["strategy_magic_number"])
        there, name = self.deals(), {comment: name for name, comment, _ in self.sent()}
        known = self.journal()
        self.forgotten = {comment for comment in there if name.get(comment) not in known}
        """Deals of before that a gateway or a strategy has lost with its disk, in a test before."""
        self.earlier = set(name.values())
        executed = {name.get(comment) for comment in there}
        self.given_up = {one for one, state in known.items() if state == "done"} - executed
        """Orders of before whose deal nobody knows: the gateway's journal was restored, in a test before."""

    def tool(self, *arguments: str, text: str | None = None, host: str = HOST) -> tuple[int, dict[str, Any]]:
        command = [TOOL, *arguments, "--json"]
        done = self.lab.exec(host, command, input_text=text, timeout_s=150, check=False)
        assert done.stdout.strip(), done.stderr
        return done.returncode, json.loads(done.stdout)

    def stage(self, service: str, **changes: Any) -> None:
        """Stage the service with changed settings."""
        want = desired(service, {**self.settings, **changes})
        assert want.bundle is not None
        status, staged = self.tool(
            "stage", service, "--content", want.bundle.content, text=want.specification
        )
        assert status == 0, staged

    def blue_green(self, service: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Stage the service with changed settings, and activate it after a standby phase."""
        self.stage(service, **changes)
        return self.tool("activate", service, "--standby", "--confirm-timeout", "0")

    def service(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.tool("status", name)[1]["services"][name]
        return entry

    def read(self, host: str, path: str, query: str, *values: object) -> list[list[Any]]:
        """Rows of a SQLite file on a host that is in use there."""
        command = ["/usr/bin/python3", "-c", READ, path, query, *map(str, values)]
        rows: list[list[Any]] = json.loads(self.lab.exec(host, command).stdout)
        return rows

    def deals(self) -> list[str]:
        """Comment of every deal of this host's magic number at the broker."""
        query = (
            "SELECT json_extract(data, '$.comment') FROM deals WHERE json_extract(data, '$.magic') = ? + 0"
        )
        return [row[0] for row in self.read(GATEWAY, BOOKS, query, self.magic)]

    def sent(self) -> list[list[Any]]:
        """Client order id, comment and epoch of everything that was sent to the broker, oldest first."""
        query = (
            "SELECT client_order_id, comment_id, epoch FROM submissions "
            "WHERE magic = ? + 0 AND state != 'refused' ORDER BY sent_msc"
        )
        return self.read(GATEWAY, GATEWAY_JOURNAL, query, self.magic)

    def journal(self) -> dict[str, str]:
        """The strategy's own record: client order id to state."""
        path = f"/var/lib/mt5crs/strategy{self.settings['fleet_suffix']}/intents.db"
        return dict(self.read(HOST, path, "SELECT client_order_id, state FROM intent"))

    def epoch(self) -> int:
        """Epoch of the order sent last."""
        return int(self.sent()[-1][2])

    def wait_for_trades(self, more: int = 2) -> None:
        began = len(self.deals())
        wait_until(lambda: len(self.deals()) >= began + more, 30, "trades")

    def assert_nothing_doubled(self) -> None:
        """Every order of the journal was executed once at most; every deal is one of the journal's orders."""
        wait_until(lambda: "intent" not in self.journal().values(), 15, "no order under way")
        journal, deals, sent = self.journal(), self.deals(), self.sent()
        client_order_id = {comment: name for name, comment, _ in sent}
        executed = Counter(
            client_order_id.get(comment, comment) for comment in deals if comment not in self.forgotten
        )
        assert executed
        assert max(executed.values()) == 1, executed.most_common(3)
        known = {**journal, **self.journal()}  # one sent after the first reading is in the second
        unknown = [name for name in executed if name not in known]
        assert not unknown, f"deals that the strategy knows nothing of: {unknown}"
        done = {name for name, state in journal.items() if state == "done"}
        lost = done - executed.keys() - self.given_up
        assert not lost, f"done in the journal, no deal at the broker: {lost}"
        epochs = [epoch for name, _, epoch in sent if name not in self.earlier]
        assert epochs == sorted(epochs), "an order under an older epoch came after one under a newer"

    def assert_nothing_is_left(self) -> None:
        script = (
            "systemctl list-units --all --plain --no-legend '*-standby.service';"
            "ls -d /opt/mt5crs/*/standby /run/systemd/system/*-standby.* /run/mt5crs-*-standby 2>/dev/null;"
            "pgrep -fa '^/opt/mt5crs/[a-z]*/standby/';"
            "systemctl list-timers --all --no-legend 'mt5crs-release-watch-*'; true"
        )
        assert self.lab.exec(HOST, ["sh", "-c", script]).stdout.strip() == ""


@pytest.fixture
def node(fleet: Fleet) -> Node:
    made = Node(fleet)
    made.wait_for_trades()
    return made


def blue_green_by(fleet: Fleet, engine: str) -> Ran:
    if engine == "pyinfra":
        return fleet.pyinfra("--data", "strategy=blue_green")
    return fleet.playbook("site.yml", "-e", "fleet_strategy=blue_green")


@pytest.mark.parametrize(
    "engine", ["pyinfra", pytest.param("ansible", marks=pytest.mark.slow(reason=OTHER_ENGINE))]
)
def test_new_generations_take_over_under_a_higher_epoch_and_back(node: Node, engine: str) -> None:
    services = ("reconciler", "strategy")
    before, epoch = {name: node.service(name)["current"] for name in services}, node.epoch()
    node.fleet.override(reconciler_recheck_interval_s=12.5, strategy_order_timeout_s=5.5)
    ran = blue_green_by(node.fleet, engine)
    assert ran.status == 0, ran.output[-3000:]
    compared = {
        (span["host"], span["service"]): span["standby"]
        for span in ran.record["spans"]
        if span["step"] == "activate"
    }
    assert set(compared) == {(host, name) for host in node.fleet.hosts("strategy") for name in services}
    for standby in compared.values():
        assert standby["equal"] is True, standby
        assert standby["digest_running"] == standby["digest_standby"] != ""
    assert node.fleet.running()
    node.assert_nothing_is_left()
    node.wait_for_trades()
    after = node.epoch()
    assert after > epoch
    node.assert_nothing_doubled()

    for name in services:
        for host in node.fleet.hosts(name):
            status, answer = node.tool("rollback", name, host=host)
            assert status == 0, answer
        assert node.service(name)["current"] == before[name]
        node.wait_for_trades()
        epoch, after = after, node.epoch()
        assert after > epoch
    node.assert_nothing_doubled()


LOSSY = """
import sys, msgspec
from mt5crs.protocol.digest import state_digest
from mt5crs.reconciler import __main__, service
honest = service.Reconciler._view
def lossy(self, state, reason):
    view = honest(self, state, reason)
    kept = (view.positions or ())[1:]
    return msgspec.structs.replace(view, positions=kept, digest=state_digest(kept, view.orders, view.magic))
service.Reconciler._view = lossy
sys.exit(__main__.main())
"""


def test_a_release_that_loses_a_position_is_turned_away(node: Node) -> None:
    want = desired("reconciler", node.settings)
    assert want.bundle is not None
    specification = json.loads(want.specification)
    lossy = {"mode": "0644", "owner": "root", "group": "root", "content": LOSSY}
    specification["files"]["lossy.py"] = lossy
    units = specification["standby"]["units"]
    for name, text in units.items():
        units[name] = text.replace("-m mt5crs.reconciler\n", "/opt/mt5crs/reconciler/standby/lossy.py\n")
        assert units[name] != text
    before, pids = node.service("reconciler"), node.fleet.pids()
    arguments = ("--content", want.bundle.content)
    status, staged = node.tool("stage", "reconciler", *arguments, text=json.dumps(specification))
    assert status == 0, staged
    status, answer = node.tool("activate", "reconciler", "--standby")
    assert status == 1, answer
    assert answer["standby"]["equal"] is False
    assert "is held by the running one only" in answer["error"]["message"]
    assert node.service("reconciler")["current"] == before["current"]
    assert node.fleet.pids() == pids, "a service was restarted"
    node.assert_nothing_is_left()
    node.wait_for_trades()
    node.assert_nothing_doubled()


WRONG = {
    "reconciler": ({"reconciler_expected_account_login": 5000009}, "5000009"),
    "strategy": (
        {"strategy_magic_number": 777},
        "magic number: the running one has 202401, the standby one 777",
    ),
}


@pytest.mark.parametrize("service", sorted(WRONG))
def test_candidate_of_another_book_is_turned_away_and_the_old_trades_on(node: Node, service: str) -> None:
    changes, said = WRONG[service]
    before, pids, epoch = node.service(service), node.fleet.pids(), node.epoch()
    status, answer = node.blue_green(service, **changes)
    assert status == 1, answer
    words = answer["error"]["message"] + "\n".join(answer["journal"])
    assert said in words, answer
    assert answer["standby"]["equal"] is not True
    assert node.service(service)["current"] == before["current"]
    assert node.fleet.pids() == pids, "a service was restarted"
    node.assert_nothing_is_left()
    node.wait_for_trades()
    assert node.epoch() == epoch
    node.assert_nothing_doubled()
