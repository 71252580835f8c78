"""What an operator does when something is wrong, through the real commands and a real gateway."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mt5crs.client.errors import RefusedError
from mt5crs.local_fleet.phoenix import declare_cut_off
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.operate.env_modes import env_files_of_host, readable_by_others
from mt5crs.protocol import replies, requests
from tests.unit.checks.test_commands import env_file, run
from tests.unit.gateway.running import Caller


class Trader:
    """The strategy's client on the rehearsal fleet, with its lease."""

    def __init__(self, fleet: Fleet) -> None:
        self._client = fleet.client("strategy")
        self._caller = Caller.__new__(Caller)
        lease = self._client.call(
            requests.LeaseAcquire, replies.Lease, magic=MAGIC, instance="run", ttl_ms=60_000
        )
        self._caller.epoch = lease.epoch

    def order(self, **changes: object) -> replies.OrderResult:
        """ORDER_SEND; raises RefusedError."""
        return self._client.call(
            requests.OrderSend, replies.OrderResult, magic=MAGIC, **self._caller.terms(**changes)
        )

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def trader(fleet: Fleet) -> Iterator[Trader]:
    fleet.settings["gateway"]["SIM_FAULTS"] = "true"
    fleet.start_ready("gateway")
    made = Trader(fleet)
    yield made
    made.close()


def ops(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with the operator's key."""
    fleet.settings["reconciler"] = {"CLIENT_NAME": "ops", "CLIENT_SECRET_KEY": fleet.secrets["ops"]}
    return run(*arguments, "--env-file", env_file(fleet, "reconciler"))


def test_resolve_is_refused_while_the_books_show_it_and_frees_the_magic_otherwise(
    fleet: Fleet, trader: Trader
) -> None:
    fleet.broker(do="faults", faults={"send": [{"kind": "lose_request"}]})
    assert trader.order(client_order_id="lost").outcome == "UNRESOLVED"
    unknown = ops(fleet, "resolve", "never-sent", "--magic", str(MAGIC), "--reason", "a slip of the pen")
    assert unknown.returncode == 1
    assert "UNKNOWN_ORDER" in unknown.stdout + unknown.stderr
    with pytest.raises(Exception, match="UNRESOLVED"):
        trader.order()
    done = ops(
        fleet, "resolve", "lost", "--magic", str(MAGIC), "--reason", "not in the terminal's history", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["outcome"], answer["evidence"]) == ("REJECTED", "operator")
    assert "not in the terminal's history" in answer["message"]
    assert trader.order().outcome == "FILLED"
    executed = trader.order(client_order_id="there")
    assert executed.outcome == "FILLED"
    told = ops(fleet, "resolve", "there", "--magic", str(MAGIC), "--reason", "I think not", "--json")
    assert json.loads(told.stdout)["outcome"] == "FILLED"  # what is known is not overruled


def test_phoenix_declares_what_was_cut_off_on_its_way_and_only_that(fleet: Fleet, trader: Trader) -> None:
    assert trader.order().outcome == "FILLED"
    assert declare_cut_off(fleet) == 0
    fleet.broker(do="faults", faults={"send": [{"kind": "lose_request"}]})
    assert trader.order().outcome == "UNRESOLVED"
    assert declare_cut_off(fleet) == 1
    assert trader.order().outcome == "FILLED"


def test_orders_tells_those_whose_fate_is_not_known_by_the_id_that_resolve_wants(
    fleet: Fleet, trader: Trader
) -> None:
    quiet = ops(fleet, "orders")
    assert (quiet.returncode, quiet.stdout.splitlines()) == (
        0,
        ["no working order", "no order whose fate is not known"],
    )
    fleet.broker(do="faults", faults={"send": [{"kind": "lose_request"}]})
    assert trader.order(client_order_id="lost").outcome == "UNRESOLVED"
    told = ops(fleet, "orders")
    assert told.returncode == 1, told.stderr
    assert "lost" in told.stdout.partition("FATE NOT KNOWN")[2]
    assert json.loads(ops(fleet, "orders", "--json").stdout)["unresolved"] == {str(MAGIC): ["lost"]}


def test_flatten_needs_a_halt_and_then_closes_everything(fleet: Fleet, trader: Trader) -> None:
    fleet.broker(do="price", symbol="EURUSD", bid=1.1, ask=1.1001)
    trader.order()
    trader.order(symbol="XAUUSD", side="SELL", volume=0.2, filling="FOK")
    trader.order(type="LIMIT", price=1.0, filling="RETURN")
    refused = ops(fleet, "flatten", "--magic", str(MAGIC))
    assert refused.returncode == 1
    assert "not halted" in refused.stdout
    assert ops(fleet, "halt", "--magic", str(MAGIC), "--reason", "flatten it").returncode == 0
    shown = ops(fleet, "flatten", "--magic", str(MAGIC), "--dry-run", "--json")
    assert [step["what"] for step in json.loads(shown.stdout)] == ["order", "position", "position"]
    with fleet.client() as client:
        assert len(client.snapshot(MAGIC, history_since_msc=None).positions) == 2
        done = ops(fleet, "flatten", "--magic", str(MAGIC), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert [step["result"] for step in json.loads(done.stdout)] == ["CANCELED", "FILLED", "FILLED"]
        after = client.snapshot(MAGIC, history_since_msc=None)
    assert (after.positions, after.orders) == ([], [])
    with pytest.raises(Exception, match="HALTED"):
        trader.order()
    assert "nothing is open" in ops(fleet, "flatten", "--magic", str(MAGIC)).stdout


def test_a_halt_tells_which_env_files_others_can_read(fleet: Fleet, trader: Trader) -> None:
    assert "only their owners" in ops(fleet, "halt", "--reason", "news").stdout
    assert ops(fleet, "resume", "--reason", "over").returncode == 0
    path = Path(env_file(fleet, "reconciler"))
    path.chmod(0o640)
    told = run("halt", "--reason", "news", "--env-file", str(path))
    assert told.returncode == 1
    assert f"{path} has mode 0640" in told.stderr
    with pytest.raises(RefusedError, match="HALTED"):
        trader.order()


def test_every_service_of_the_host_is_looked_at(tmp_path: Path) -> None:
    for service in ("reconciler", "strategy"):
        (tmp_path / service / "current").mkdir(parents=True)
        (tmp_path / service / "current/.env").touch(mode=0o600)
    known = tmp_path / "reconciler/current/.env"
    other = tmp_path / "strategy/current/.env"
    assert env_files_of_host(known) == [known, other]
    other.chmod(0o644)
    assert [path for path in env_files_of_host(known) if readable_by_others(path)] == [other]


def test_a_halt_that_is_refused_says_nothing_of_keys(fleet: Fleet, trader: Trader) -> None:
    refused = run("halt", "--reason", "news", "--env-file", env_file(fleet, "reconciler"))
    assert refused.returncode == 1
    assert "this needs one of ['administer']" in refused.stderr
    assert "only their owners" not in refused.stdout


def test_what_a_client_wrote_steers_no_terminal(fleet: Fleet, trader: Trader) -> None:
    """A trader may halt its own magic number, with any text as the reason; the operator reads it."""
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b1A\r\u202egood"
    fleet.client("strategy").call(
        requests.Halt, replies.HaltState, magic=MAGIC, scope="MAGIC", reason=hostile
    )
    with pytest.raises(RefusedError) as refused:
        trader.order()
    assert hostile in str(refused.value)  # what refuses an order says why, in those words
    shown = ops(fleet, "status")
    assert shown.returncode == 0, shown.stderr
    # click itself leaves out what it takes for colours when nobody looks
    assert r"\x1b]0;owned\x07" in shown.stdout
    assert r"\x9b1A\r\u202egood" in shown.stdout
    for text in (shown.stdout, shown.stderr):
        assert text.replace("\n", "").replace("\t", "").isprintable()
