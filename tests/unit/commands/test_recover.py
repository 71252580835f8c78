"""After a crash: what was given up is started again, in order; what is left is named, unknown is no none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.commands import hosts, named_fleet, recover
from deploy.commands.recover import found_of
from deploy.coordination import alone as coordination
from deploy.coordination.fleet_lock import LockError
from deploy.fleet.inventory import Fleet
from deploy.remote import ssh
from mt5crs.protocol import requests
from tests.unit.gateway.running import MAGIC, Running, running
from tests.unit.operate.operated import Operated, away, operated
from tests.unit.stand_in import Hub, closed, hub_that_answers

pytestmark = pytest.mark.timeout(60)
GATEWAY, RECONCILER, STRATEGY = (f"mt5crs-{name}.service" for name in ("gateway", "reconciler", "strategy"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("recover")) as started:
        yield started


def service(unit: str, state: str, generation: str = "confirmed") -> dict[str, Any]:
    return {"state": generation, "units": {unit: state}}


class Hosts:
    """Units by host; `systemctl start` makes one active unless it is in `broken`."""

    def __init__(self) -> None:
        self.units = {
            "gtw-01": {"gateway": "failed"},
            "inf-01": {"strategy": "failed", "reconciler": "failed"},
        }
        self.broken: set[str] = set()
        self.journal = ""
        self.silent: dict[str, str] = {}
        self.calls: list[tuple[str, ...]] = []
        self.ask = ssh.run

    def statuses(self, of: Fleet) -> dict[str, dict[str, Any] | str]:
        return {host: self.silent.get(host) or self.status(host) for host in of.hosts}

    def status(self, host: str) -> dict[str, Any]:
        units = self.units.get(host, {}).items()
        return {"services": {name: service(f"mt5crs-{name}.service", state) for name, state in units}}

    def run(self, variables: dict[str, Any], words: Sequence[str], **more: Any) -> ssh.Reply:
        if words[0] == "journalctl":
            return ssh.Reply(0, self.journal, "")
        if "name" not in variables:  # the Hub, about its lock
            return self.ask(variables, words, **more)
        host, verb, name = variables["name"], words[1], words[2].split("-")[1].split(".")[0]
        self.calls.append((host, verb, name))
        if verb == "start" and name in self.broken:
            return ssh.Reply(1, "", "Job for it failed")
        if verb == "start":
            self.units[host][name] = "active"
        return ssh.Reply(0, "", "")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setattr(hosts, "statuses", made.statuses)
    monkeypatch.setattr(ssh, "run", made.run)
    return made


@pytest.fixture
def ops(gateway: Running, there: Hosts, monkeypatch: pytest.MonkeyPatch) -> Operated:
    made = operated(gateway, monkeypatch)
    monkeypatch.setattr(recover, "fleet_of", lambda _: made.fleet)
    monkeypatch.setattr(recover, "of_fleet", named_fleet.of_fleet)  # the impatient one
    for host, of in made.fleet.hosts.items():
        of["name"] = host  # type: ignore[index]
    return made


def recovered(ops: Operated, *more: str) -> Any:
    return ops.run("recover", "--reason", "power was out", *more)


def test_what_was_given_up_is_started_the_gateway_first(ops: Operated, there: Hosts) -> None:
    done = recovered(ops)
    assert done.exit_code == 0, done.output
    assert f"this starts again gtw-01: {GATEWAY}; inf-01: {RECONCILER}, {STRATEGY}" in done.output
    started = [(host, name) for host, verb, name in there.calls if verb == "start"]
    assert started == [("gtw-01", "gateway"), ("inf-01", "reconciler"), ("inf-01", "strategy")]
    assert f"inf-01: {STRATEGY} started" in done.output
    assert done.output.endswith("and the fate of every order is known\n")
    assert [act["what"] for act in ops.recorded] == ["services.recovered"]
    there.calls.clear()
    again = recovered(ops)
    assert (again.exit_code, there.calls, len(ops.recorded)) == (0, [], 1)
    assert "nothing was given up by systemd" in again.output


def test_what_fails_again_is_named_and_keeps_no_other(ops: Operated, there: Hosts) -> None:
    there.broken.add("reconciler")
    done = recovered(ops, "--json")
    assert done.exit_code == 1, done.output
    told = json.loads(done.stdout)
    assert told["started"]["inf-01"] == {
        RECONCILER: f"does not start: Job for it failed; `journalctl -u {RECONCILER} -n 50` there",
        STRATEGY: "started",
    }
    assert [why for why in told["left"] if RECONCILER in why] == [
        f"inf-01: {RECONCILER} {told['started']['inf-01'][RECONCILER]}"
    ], "once"


def test_why_a_service_does_not_start_is_its_own_last_word(ops: Operated, there: Hosts) -> None:
    """systemd says no more than that the job failed; a reconciler that refuses names the way out."""
    there.broken.add("reconciler")
    there.units["inf-01"]["strategy"] = "inactive"
    halted = {
        "level": "CRITICAL",
        "event": "SystemHaltException",
        "reason": "no deal explains it: `mt5crs accept`",
    }
    there.journal = "\n".join(
        [json.dumps(halted), json.dumps({"level": "INFO", "reason": "x"}), "Failed to start"]
    )
    done = recovered(ops)
    assert done.exit_code == 1, done.output
    assert f"left: inf-01: {RECONCILER} does not start: no deal explains it: `mt5crs accept`" in done.output
    assert f"left: inf-01: {STRATEGY} is inactive: it starts with its reconciler" in done.output
    assert done.output.count(RECONCILER) == 2, done.output


def test_a_host_or_gateway_that_does_not_answer_is_named_and_keeps_no_other(
    ops: Operated, there: Hosts
) -> None:
    there.silent["inf-01"] = "connection refused"
    ops.fleet = away(ops.fleet)
    done = recovered(ops)
    assert done.exit_code == 1, done.output
    assert "left: inf-01 cannot be asked: connection refused" in done.output
    assert "left: gtw-01: its gateway does not answer" in done.output
    assert ("gtw-01", "start", "gateway") in there.calls
    assert "every service runs" not in done.output


def test_orders_of_unknown_fate_and_halts_are_left_to_a_person(ops: Operated, there: Hosts) -> None:
    trader = ops.trader()
    ops.gateway.fault({"kind": "lose_request"})
    trader.order(client_order_id="lost")
    ops.halt("drill")
    done = recovered(ops)
    assert done.exit_code == 1, done.output
    assert f"`mt5crs … resolve lost --magic {MAGIC} --reason …`" in done.output
    assert f"gtw-01: {MAGIC} is halted by ops: drill; `mt5crs … start --magic {MAGIC}`" in done.output
    ops.tell(requests.OrderResolve, client_order_id="lost", reason="not in the terminal")


def test_what_failed_on_windows_is_left_to_a_person(ops: Operated, there: Hosts) -> None:
    of = ops.fleet
    ops.fleet = Fleet(of.inventory, of.environment, of.hosts, {**of.groups, "windows": ("gtw-01",)})
    done = recovered(ops)
    assert done.exit_code == 1, done.output
    assert f"left: gtw-01: {GATEWAY} failed: start it there" in done.output
    assert [call for call in there.calls if call[0] == "gtw-01"] == []


# ---- nobody deploys meanwhile ----


@pytest.fixture
def hub(ops: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same fleet with a Hub, which keeps its lock."""
    of = ops.fleet
    hub_host = {"hub-01": {"ansible_host": "10.9.9.1"}}
    ops.fleet = Fleet(of.inventory, of.environment, hub_host | of.hosts, {**of.groups, "hub": ("hub-01",)})
    answers = hub_that_answers(tmp_path, monkeypatch)
    answers(0, {"changed": True})
    return answers


def test_while_somebody_deploys_nothing_is_started(ops: Operated, there: Hosts, hub: Hub) -> None:
    hub(2, {"error": {"message": "another deployment holds the fleet's lock: anna", "remedy": "wait"}})
    refused = recovered(ops)
    assert refused.exit_code == 1, refused.output
    assert "anna. Nothing was changed; wait" in refused.output
    assert (there.calls, ops.recorded) == ([], [])
    done = recovered(ops, "--lock=none")
    assert done.exit_code == 0, done.output
    assert ("gtw-01", "start", "gateway") in there.calls


def test_it_holds_the_lock_until_all_is_started(ops: Operated, there: Hosts, hub: Hub) -> None:
    held: list[bool] = []
    systemctl = there.calls

    class Calls(list[tuple[str, ...]]):
        def append(self, call: tuple[str, ...]) -> None:
            asked = hub(0, {"changed": True})
            held.append(any(" open " in one for one in asked) and not any(" close " in one for one in asked))
            systemctl.append(call)

    there.calls = Calls()
    done = recovered(ops)
    assert done.exit_code == 0, done.output
    assert set(held) == {True}
    record = closed(hub(0, {}))
    assert (record["action"], record["outcome"]) == ("recover", "changed")


def test_what_the_one_before_has_started_is_not_started_again(
    ops: Operated, there: Hosts, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def statuses(of: Fleet) -> dict[str, dict[str, Any] | str]:
        nonlocal asked
        asked += 1
        if asked == 2:  # it has the lock now
            there.units = {host: dict.fromkeys(units, "active") for host, units in there.units.items()}
        return there.statuses(of)

    monkeypatch.setattr(hosts, "statuses", statuses)
    done = recovered(ops)
    assert done.exit_code == 0, done.output
    assert "nothing is given up by systemd any more" in done.output
    assert (there.calls, ops.recorded, closed(hub(0, {}))["outcome"]) == ([], [], "unchanged")


def test_when_the_lock_is_lost_it_stops_and_tells_what_was_done(
    ops: Operated, there: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ["", "the fleet's lock is lost: anna took it"]

    @contextmanager
    def alone(*_: Any, **__: Any) -> Iterator[coordination.Held]:
        def require() -> None:
            if why := left.pop(0):
                raise LockError(why)

        yield coordination.Held("id", require)

    monkeypatch.setattr(coordination, "alone", alone)
    done = recovered(ops)
    assert done.exit_code == 1, done.output
    assert "anna took it" in done.output
    assert [call for call in there.calls if call[1] == "start"] == [("gtw-01", "start", "gateway")]
    (act,) = ops.recorded
    assert act["hosts"] == {"gtw-01": {GATEWAY: "started"}}


def test_a_hub_that_is_down_is_told_with_the_way_without_it(
    ops: Operated, there: Hosts, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "bin/ssh").write_text("#!/bin/sh\nexit 255\n")
    refused = recovered(ops)
    assert refused.exit_code == 1, refused.output
    assert "the Hub, which keeps the fleet's lock, does not answer" in refused.output
    assert "nobody else deploys: --lock=none goes without" in refused.output
    assert there.calls == []


@pytest.mark.parametrize(
    ("state", "generation", "given_up", "left"),
    [
        ("active", "confirmed", [], ""),
        ("failed", "confirmed", [GATEWAY], ""),
        ("failed", "provisional", [], "waits for the end of a deployment"),
        ("failed", "activating", [], "waits for the end of a deployment"),
        ("failed", "reverting", [], "waits for the end of a deployment"),
        ("inactive", "confirmed", [], "is inactive; systemd has not given it up"),
        ("activating", "confirmed", [], "is activating; "),
    ],
)
def test_only_what_systemd_has_given_up_is_started(
    state: str, generation: str, given_up: list[str], left: str
) -> None:
    found = found_of({"services": {"gateway": service(GATEWAY, state, generation)}})
    assert found.given_up == given_up
    assert left in " ".join(found.left.values())
    assert bool(found.left) is bool(left)
