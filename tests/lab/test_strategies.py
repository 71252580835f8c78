"""Roll-outs in steps: failing steps, alerts, a silent Prometheus, plans, the fleet going back."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lab import faults
from lab.handle import wait_until
from tests.lab import deployers
from tests.lab.engines import Fleet, Ran
from tests.lab.units_and_alerts import Unit
from tests.long_runs import OTHER_ENGINE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

Deploy = Callable[[Fleet], Ran]
# Good on the first Inf host, cannot even be loaded on the second.
BAD_ON_THE_LAST = "{{ 'nowhere:Nothing' if inventory_hostname == 'inf-02' else 'example' }}"
PROMETHEUS = "prometheus.service"


def canary_with_pyinfra(fleet: Fleet) -> Ran:
    return fleet.pyinfra("--data", "strategy=canary")


def canary_with_ansible(fleet: Fleet) -> Ran:
    return fleet.playbook("site.yml", "-e", "fleet_strategy=canary")


def with_ansible(fleet: Fleet) -> Ran:
    return fleet.playbook("site.yml")


@pytest.fixture
def unmoved(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, which must come out of the test on the generations that it went in with, running."""
    generations = fleet.generations()
    yield fleet
    assert fleet.generations() == generations
    assert fleet.running()


@pytest.mark.parametrize(
    "deploy",
    [canary_with_pyinfra, pytest.param(canary_with_ansible, marks=pytest.mark.slow(reason=OTHER_ENGINE))],
)
def test_a_canary_that_fails_late_puts_back_every_host(unmoved: Fleet, deploy: Deploy) -> None:
    unmoved.override(
        fleet_step_pause_s=1,
        gateway_quote_life_s=901.0,
        reconciler_recheck_interval_s=12.0,
        strategy_strategy=BAD_ON_THE_LAST,
    )
    ran = deploy(unmoved)
    record = ran.record
    assert ran.status != 0
    assert record["strategy"] == "canary"
    assert [step["hosts"] for step in record["steps"]] == [["gtw-01"], ["inf-01"], ["inf-02"]]
    assert {failure["host"] for failure in record["failures"]} == {"inf-02"}
    assert "nowhere" in ran.output
    assert {"gateway on gtw-01", "reconciler on inf-01", "reconciler on inf-02"} <= set(record["put_back"])


@pytest.mark.slow(reason="the time that is given again is tried in tests/unit/coordination/test_deadlines.py")
@pytest.mark.parametrize("deploy", [Fleet.pyinfra, with_ansible])
def test_a_step_may_take_longer_than_the_time_for_its_confirmation(fleet: Fleet, deploy: Deploy) -> None:
    timeout_s = 30
    fleet.override(
        fleet_confirm_timeout_s=timeout_s, gateway_quote_life_s=901.0, reconciler_recheck_interval_s=12.0
    )
    activation = "^[^ ]*python3 -IS [^ ]*mt5crs-release activate reconciler"
    held: list[bool] = []

    def hold_the_second_inf_host() -> None:
        def signal(name: str) -> bool:
            return (
                fleet.lab.exec("inf-02", ["pkill", f"-{name}", "-f", activation], check=False).returncode == 0
            )

        wait_until(lambda: signal("STOP"), 300, "the activation on inf-02")
        waits = fleet.status("gtw-01")["gateway"]
        until = waits["deadline_in_s"] + timeout_s
        stopped = time.monotonic()
        wait_until(
            lambda: (
                fleet.status("gtw-01")["gateway"]["state"] != "provisional"
                or time.monotonic() - stopped + fleet.status("gtw-01")["gateway"]["deadline_in_s"] > until
            ),
            120,
            "more time than the gateway was given at first",
        )
        held.append(signal("CONT"))

    holder = threading.Thread(target=hold_the_second_inf_host)
    holder.start()
    ran = deploy(fleet)
    holder.join()
    assert held == [True]
    assert ran.status == 0, ran.output[-3000:]
    assert fleet.running()


def test_an_alert_during_a_step_puts_back_what_the_step_brought(unmoved: Fleet) -> None:
    before = unmoved.generations()["gtw-01", "gateway"]
    unmoved.override(fleet_step_pause_s=120, gateway_quote_life_s=901.0)

    def kill_once_the_gateway_is_new() -> None:
        wait_until(lambda: unmoved.status("gtw-01")["gateway"]["current"] != before, 120, "the first step")
        unmoved.lab.exec("inf-02", ["systemctl", "kill", "-s", "KILL", "mt5crs-strategy.service"])

    culprit = threading.Thread(target=kill_once_the_gateway_is_new)
    culprit.start()
    ran = canary_with_pyinfra(unmoved)
    culprit.join()
    assert ran.status != 0
    assert "Mt5crsAbnormalExit (critical, inf-02)" in ran.output, ran.output[-3000:]
    assert ran.record["put_back"] == ["gateway on gtw-01"]
    strategy = Unit(unmoved.lab, "inf-02", "mt5crs-strategy.service")
    wait_until(lambda: strategy.state() == "active", 60, "the strategy that was killed")


@pytest.mark.parametrize(
    "deploy",
    [canary_with_pyinfra, pytest.param(canary_with_ansible, marks=pytest.mark.slow(reason=OTHER_ENGINE))],
)
def test_a_host_of_an_earlier_step_that_is_rebooted_ends_the_run(unmoved: Fleet, deploy: Deploy) -> None:
    unmoved.override(fleet_step_pause_s=120, gateway_quote_life_s=901.0)

    def reboot_once_the_gateway_waits() -> None:
        wait_until(lambda: waits(unmoved), 120, "the first step")
        faults.reboot(unmoved.lab, "gtw-01")

    culprit = threading.Thread(target=reboot_once_the_gateway_waits)
    culprit.start()
    ran = deploy(unmoved)
    culprit.join()
    assert ran.status != 0
    assert [failure["host"] for failure in ran.record["failures"]] == ["gtw-01"], ran.output[-3000:]
    assert "and went back to" in ran.output
    assert "the host was rebooted before it was confirmed" in ran.output


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("deploy.py", ("--data", "strategy=canary")),
        pytest.param(
            "site.yml", ("-e", "fleet_strategy=canary"), marks=pytest.mark.slow(reason=OTHER_ENGINE)
        ),
    ],
)
def test_an_interrupt_ends_a_pause(unmoved: Fleet, file: str, word: tuple[str, ...]) -> None:
    unmoved.override(fleet_step_pause_s=300, gateway_quote_life_s=901.0)
    running = deployers.begin(unmoved.inventory, file, *word)
    wait_until(lambda: waits(unmoved), 120, "the first step")
    time.sleep(5)  # it is in the pause by then
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 128 + signal.SIGINT


def waits(fleet: Fleet) -> bool:
    return bool(fleet.status("gtw-01")["gateway"]["state"] == "provisional")


@pytest.mark.slow(reason="how long one waits is tried in tests/unit/coordination/test_alerts.py")
def test_a_silent_prometheus_is_no_failure_unless_asked_for(fleet: Fleet) -> None:
    before = fleet.generations()["gtw-01", "gateway"]
    prometheus = Unit(fleet.lab, "hub-01", PROMETHEUS)
    prometheus.call("stop")
    wait_until(lambda: prometheus.state() == "inactive", 30, "Prometheus to stop")

    fleet.override(gateway_quote_life_s=901.0, fleet_alerts_unknown_s=2, fleet_alerts_unknown="fail")
    ran = fleet.pyinfra()
    assert ran.status != 0
    assert (
        "whether alerts fire is not known, also after 2 s of waiting: Prometheus does not answer"
        in ran.output
    )
    assert fleet.generations()["gtw-01", "gateway"] == before

    fleet.override(gateway_quote_life_s=901.0, fleet_alerts_unknown_s=2)
    ran = fleet.pyinfra()
    assert ran.status == 0, ran.output[-3000:]
    assert "alerts after step 1/2 gtw-01: Prometheus does not answer" in ran.output
    assert fleet.generations()["gtw-01", "gateway"] != before
    assert prometheus.state() == "active", "a deployment starts what is down"


def test_a_plan_is_applied_as_long_as_nothing_has_moved(fleet: Fleet) -> None:
    fleet.override(gateway_log_level="DEBUG")
    looked = fleet.pyinfra("--dry", yes=False)
    assert looked.status == 0, looked.output[-3000:]
    plan = re.findall(r"^next: .* --data plan=(\w+)$", looked.output, re.MULTILINE)[0]
    generations = fleet.generations()

    fleet.override(gateway_log_level="DEBUG", strategy_log_level="DEBUG")
    moved = fleet.pyinfra("--data", f"plan={plan}")
    assert moved.status != 0
    assert f"plan {plan} does not fit any more" in moved.output
    assert re.search(r"inf-01 strategy: wanted is \w+, planned was \w+", moved.output)
    assert "gtw-01 gateway" not in moved.output
    assert fleet.generations() == generations

    fleet.override(gateway_log_level="DEBUG")
    applied = fleet.pyinfra("--data", f"plan={plan}")
    assert applied.status == 0, applied.output[-3000:]
    assert applied.record["plan"] == plan
    again = fleet.pyinfra("--data", f"plan={plan}")
    assert again.status != 0
    assert (
        f"gtw-01 gateway: ran {generations['gtw-01', 'gateway']} confirmed when it was planned"
        in again.output
    )


@pytest.mark.slow(reason="both take the plan from one function; what each does is tried by itself")
def test_both_engines_make_the_same_plan(fleet: Fleet) -> None:
    fleet.override(gateway_quote_life_s=901.0, reconciler_recheck_interval_s=12.0)
    ours = fleet.pyinfra("--dry", yes=False)
    theirs = fleet.playbook("site.yml", "--check")
    assert (ours.status, theirs.status) == (0, 0)
    assert ours.record["plan"] == theirs.record["plan"]
    assert ours.record["steps"] == theirs.record["steps"]
    fleet.override(gateway_quote_life_s=901.0)
    refused = fleet.playbook("site.yml", "-e", f"plan={ours.record['plan']}")
    assert refused.status != 0
    assert "inf-02 reconciler: wanted is" in refused.output


def undo_with_pyinfra(fleet: Fleet) -> Ran:
    return fleet.pyinfra("--data", "part=fleet", file="rollback.py")


def undo_with_ansible(fleet: Fleet) -> Ran:
    return fleet.playbook("rollback.yml", "--tags", "fleet")


WRITE_STATE_FORMAT = """
import json, pathlib
path = pathlib.Path("/opt/mt5crs/reconciler/state.json")
state = json.loads(path.read_text())
state["generations"][state["current"]]["state_format"] = {format}
path.write_text(json.dumps(state))
"""


@pytest.mark.parametrize(
    ("refused_by", "undone_by"),
    [
        (undo_with_ansible, undo_with_pyinfra),
        pytest.param(undo_with_pyinfra, undo_with_ansible, marks=pytest.mark.slow(reason=OTHER_ENGINE)),
    ],
)
def test_the_fleet_goes_back_as_a_whole_or_not_at_all(
    fleet: Fleet, refused_by: Deploy, undone_by: Deploy
) -> None:
    before = fleet.generations()
    fleet.override(gateway_quote_life_s=901.0, reconciler_recheck_interval_s=12.0)
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]
    generations, pids = fleet.generations(), fleet.pids()

    # One reconciler has written its state in a newer format: nobody goes back.
    fleet.lab.exec("inf-02", ["python3", "-c", WRITE_STATE_FORMAT.replace("{format}", "2")])
    ran = refused_by(fleet)
    fleet.lab.exec("inf-02", ["python3", "-c", WRITE_STATE_FORMAT.replace("{format}", "1")])
    assert ran.status != 0
    assert "reconciler has written its state in format 2" in ran.output, ran.output[-3000:]
    assert "--accept-state-format 1" in ran.output
    assert (fleet.generations(), fleet.pids()) == (generations, pids)

    ran = undone_by(fleet)
    assert ran.status == 0, ran.output[-3000:]
    assert fleet.generations() == before
    assert fleet.running()
    changed = {(entry["host"], entry["service"]) for entry in ran.record["services"] if entry["changed"]}
    assert changed == {("gtw-01", "gateway"), ("inf-01", "reconciler"), ("inf-02", "reconciler")}
    assert fleet.pids()["gtw-01", "gateway"] != pids["gtw-01", "gateway"]


def test_a_strategy_that_does_not_exist_is_refused_with_a_list(unmoved: Fleet) -> None:
    ours = unmoved.pyinfra("--data", "strategy=canarry")
    theirs = unmoved.playbook("site.yml", "-e", "fleet_strategy=canarry")
    for ran in (ours, theirs):
        assert ran.status != 0
        assert "rolling, canary, blue_green, shadow, all_at_once" in ran.output
