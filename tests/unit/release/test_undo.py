"""`undo` takes back what a deployment brought to a host, all of it or nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.release_host.host import FakeHost, specification

FIRST, SECOND, THIRD = "d1", "d2", "d3"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost.create(tmp_path)


def spec(service: str, text: str, **changes: Any) -> dict[str, Any]:
    unit = f"{service}.service"
    made = specification(text, service=service, units={unit: text}, start=[unit], **changes)
    made["health"]["command"] = ["sh", "-c", "true"]
    return made


def deploy(host: FakeHost, deployment: str, **texts: str) -> None:
    for service, text in texts.items():
        changes = {"state_format": 2} if "format 2" in text else {}
        status, _ = host.run("stage", service, spec=spec(service, text, **changes))
        assert status == 0, host.last_output
        status, _ = host.run("activate", service, "--confirm-timeout", "0", "--deployment", deployment)
        assert status == 0, host.last_output


def running(host: FakeHost) -> dict[str, str | None]:
    services = host.run("status")[1]["services"]
    return {name: host.running(f"{name}.service") for name in services}


def states(host: FakeHost) -> dict[str, Any]:
    """What a change that came to nothing leaves as it was, by service."""
    found = {}
    for path in sorted(host.base.glob("*/state.json")):
        document = json.loads(path.read_text())
        generations = document["generations"].values()
        found[document["service"]] = {
            **{key: document[key] for key in ("current", "history", "transaction")},
            "generations": [(one["name"], one["state"], one["deployment"]) for one in generations],
        }
    return found


def test_only_what_the_deployment_brought_goes_back(host: FakeHost) -> None:
    deploy(host, FIRST, reconciler="one", strategy="one", monitoring="one")
    deploy(host, SECOND, monitoring="two")
    deploy(host, THIRD, reconciler="two", strategy="two")
    status, asked = host.run("undo", "--dry-run")
    assert (status, asked["changed"], asked["deployment"]) == (0, True, THIRD)
    assert set(asked["services"]) == {"reconciler", "strategy"}
    assert running(host) == {"reconciler": "two", "strategy": "two", "monitoring": "two"}

    status, undone = host.run("undo")
    assert (status, undone["changed"], undone["deployment"]) == (0, True, THIRD)
    assert [entry["state"] for entry in undone["services"].values()] == ["confirmed", "confirmed"]
    assert running(host) == {"reconciler": "one", "strategy": "one", "monitoring": "two"}

    # The next one is the deployment before; what only the first brought has no way back.
    status, undone = host.run("undo")
    assert (status, undone["deployment"], running(host)["monitoring"]) == (0, SECOND, "one")
    status, refused = host.run("undo")
    assert status == 2
    assert refused["error"]["message"].startswith(f"deployment {FIRST} cannot be undone on this host")
    assert refused["error"]["message"].count("no earlier confirmed generation") == 3


def test_a_deployment_that_no_longer_runs_changes_nothing(host: FakeHost) -> None:
    deploy(host, FIRST, gateway="one")
    deploy(host, SECOND, gateway="two")
    status, answer = host.run("undo", "--deployment", FIRST)
    assert (status, answer["changed"], answer["services"]) == (0, False, {})
    assert running(host) == {"gateway": "two"}


def test_one_service_that_cannot_go_back_keeps_all(host: FakeHost) -> None:
    deploy(host, FIRST, reconciler="one", strategy="one")
    deploy(host, SECOND, reconciler="two, format 2", strategy="two")
    status, refused = host.run("undo")
    assert status == 2
    assert "has written its state in format 2" in refused["error"]["message"]
    assert "--accept-state-format 1" in refused["error"]["remedy"]
    assert running(host) == {"reconciler": "two, format 2", "strategy": "two"}


def test_one_that_is_not_healthy_takes_all_back_to_what_ran(host: FakeHost, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for service in ("reconciler", "strategy"):
        made = spec(service, "one")
        if service == "strategy":
            made["health"] |= {"command": ["sh", "-c", f"test ! -e {gone}"], "healthy_deadline_s": 1.0}
        assert host.run("stage", service, spec=made)[0] == 0
        assert host.run("activate", service, "--confirm-timeout", "0", "--deployment", FIRST)[0] == 0
    deploy(host, SECOND, reconciler="two", strategy="two", monitoring="two")
    deploy(host, THIRD, reconciler="three", strategy="three")
    assert host.run("undo")[0] == 0
    gone.touch()
    status, failed = host.run("undo", "--deployment", SECOND)
    assert status == 2, "monitoring has nothing to go back to, so nobody goes"
    deploy(host, SECOND, monitoring="three")
    before = states(host)
    status, failed = host.run("undo", "--deployment", SECOND)
    assert status == 1
    assert "was not undone on this host: strategy 0001" in failed["error"]["message"]
    assert "all of it went back to what ran before" in failed["error"]["message"]
    assert set(failed["services"]) == {"reconciler", "strategy", "monitoring"}
    assert running(host) == {"reconciler": "two", "strategy": "two", "monitoring": "three"}
    assert states(host) == before
    gone.unlink()
    assert host.run("undo", "--deployment", SECOND)[0] == 0, "nothing was lost by the attempt"


def test_without_a_record_it_says_what_to_do(host: FakeHost) -> None:
    host.deploy("one")
    status, refused = host.run("undo")
    assert status == 2
    assert "mt5crs-release rollback SERVICE" in refused["error"]["remedy"]


def test_extend_moves_the_deadline_of_what_is_provisional(host: FakeHost) -> None:
    host.deploy("one")
    _, staged = host.run("stage", "gateway", spec=specification("two"))
    name = staged["generation"]
    host.run("activate", "gateway", "--confirm-timeout", "30")
    status, answer = host.run("extend", "gateway", "--generation", name, "--confirm-timeout", "600")
    assert (status, answer["state"], answer["changed"]) == (0, "provisional", True)
    assert host.run("status")[1]["services"]["gateway"]["deadline_in_s"] > 500
    status, refused = host.run("extend", "gateway", "--generation", "0009-0123456789ab")
    assert status == 2
    assert f"{name} is provisional, not 0009-0123456789ab" in refused["error"]["message"]
    assert host.run("extend", "gateway", "--confirm-timeout", "0")[0] == 2
    assert host.run("revert", "gateway")[0] == 0
    status, failed = host.run("extend", "gateway", "--generation", name)
    assert status == 1
    assert "is not running any more" in failed["error"]["message"]


# --- services that share a setting: none is healthy until all have gone back ---------------------------

SHARING = ("gateway", "reconciler", "strategy")
CHECK = """\
[ -e {lenient} ] && exit 0
for unit in {units}; do
    read -r state restarts text < {systemd}/active/$unit.service || exit 1
    [ "$state $text" = "active {text}" ] || {{ echo "$unit runs $text"; exit 1; }}
done
"""


def deploy_sharing(host: FakeHost, deployment: str, text: str, of: tuple[str, ...], *sees: FakeHost) -> None:
    """Deploy services that are healthy only beside the same release of all that is there on `sees`."""
    lenient = host.root / "lenient"
    lenient.touch()  # a roll-out checks less: its steps come one after the other
    scripts = [
        CHECK.format(lenient=lenient, units=" ".join(units), text=text, systemd=one.systemd)
        for one, units in ([(one, ("gateway",)) for one in sees] or [(host, of)])
    ]
    for service in of:
        made = spec(service, text)
        made["health"] |= {"command": ["sh", "-c", "\n".join(scripts)], "healthy_deadline_s": 1.0}
        assert host.run("stage", service, spec=made)[0] == 0, host.last_output
        status, _ = host.run("activate", service, "--confirm-timeout", "0", "--deployment", deployment)
        assert status == 0, host.last_output
    lenient.unlink()


@pytest.fixture(scope="module")
def made_shared(tmp_path_factory: pytest.TempPathFactory) -> FakeHost:
    host = FakeHost.create(tmp_path_factory.mktemp("shared") / "root")
    deploy_sharing(host, FIRST, "one", SHARING)
    deploy_sharing(host, SECOND, "two", SHARING)
    return host


@pytest.fixture
def shared(made_shared: FakeHost, tmp_path: Path) -> FakeHost:
    """A host whose second deployment changed what its three services share."""
    return made_shared.copied(tmp_path / "root")


OLD, NEW = dict.fromkeys(SHARING, "one"), dict.fromkeys(SHARING, "two")
HOLD = ("undo", "--deployment", SECOND, "--hold", "600")
JUDGE = ("undo", "--deployment", SECOND, "--judge")
BACK = ("undo", "--deployment", SECOND, "--back")


def held(host: FakeHost) -> dict[str, bool]:
    """Which services wait, and whether their health was judged."""
    found = {path.parent.name: json.loads(path.read_text()) for path in host.base.glob("*/state.json")}
    return {
        name: one["transaction"]["unjudged_since"] is None
        for name, one in found.items()
        if one["transaction"] is not None
    }


def watch(host: FakeHost) -> None:
    """As the timers do within a few seconds; in no order."""
    for _ in range(2):
        for service in reversed(SHARING):
            host.run("recover", service, "--watch")


def test_what_services_share_goes_back_in_one_undo(shared: FakeHost) -> None:
    status, undone = shared.run("undo")
    assert status == 0, shared.last_output
    assert running(shared) == OLD
    assert [entry["state"] for entry in undone["services"].values()] == ["confirmed"] * 3
    calls = (shared.systemd / "log").read_text().splitlines()
    restarts = [line.split()[-1] for line in calls if line.startswith("systemctl restart --no-block")]
    assert restarts == [f"{service}.service" for service in SHARING], "in the order of their dependence"
    moved = max(number for number, line in enumerate(calls) if "daemon-reload" in line)
    assert moved < calls.index("systemctl restart --no-block gateway.service"), "all pointers move first"
    for name, state in states(shared).items():
        assert state["history"] == [state["current"]] == [state["generations"][0][0]], name
    assert shared.timers() == []


def test_a_fleet_holds_judges_and_confirms(shared: FakeHost) -> None:
    status, answer = shared.run(*HOLD)
    assert status == 0, shared.last_output
    assert [entry["state"] for entry in answer["services"].values()] == ["provisional"] * 3
    assert held(shared) == dict.fromkeys(SHARING, False)
    assert shared.run(*HOLD)[0] == 0, "asked again after a lost connection"
    status, answer = shared.run(*JUDGE)
    assert status == 0, shared.last_output
    assert all(entry["health"]["outcome"] == "healthy" for entry in answer["services"].values())
    assert held(shared) == dict.fromkeys(SHARING, True)
    assert shared.run(*JUDGE)[0] == 0
    for service, entry in answer["services"].items():
        assert shared.run("confirm", service, "--generation", entry["generation"])[0] == 0
    assert running(shared) == OLD
    assert shared.timers() == []


@pytest.fixture(scope="module")
def made_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fleet")
    hosts = {name: FakeHost.create(directory / name) for name in ("gateway", "reconciler")}
    for deployment, text in ((FIRST, "one"), (SECOND, "two")):
        for service, host in hosts.items():
            deploy_sharing(host, deployment, text, (service,), hosts["gateway"])
    return directory


@pytest.fixture
def fleet(made_fleet: Path, tmp_path: Path) -> dict[str, FakeHost]:
    """Two hosts; the reconciler of one is healthy only beside the same release of the other's gateway."""
    shutil.copytree(made_fleet, tmp_path / "fleet", symlinks=True)
    names = ("gateway", "reconciler")
    return {name: FakeHost(tmp_path / "fleet" / name).moved(made_fleet, tmp_path / "fleet") for name in names}


def of_fleet(fleet: dict[str, FakeHost]) -> list[str | None]:
    return [host.running(f"{service}.service") for service, host in fleet.items()]


def test_what_two_hosts_share_goes_back_though_neither_can_alone(fleet: dict[str, FakeHost]) -> None:
    inf, gateway = fleet["reconciler"], fleet["gateway"]
    assert inf.run("undo")[0] == 1
    assert of_fleet(fleet) == ["two", "two"]
    assert [host.run(*HOLD)[0] for host in (inf, gateway)] == [0, 0], "in whatever order"
    assert [host.run(*JUDGE)[0] for host in (inf, gateway)] == [0, 0]
    assert of_fleet(fleet) == ["one", "one"]


def test_what_was_confirmed_on_one_host_comes_back_when_another_cannot_go_on(
    fleet: dict[str, FakeHost],
) -> None:
    inf, gateway = fleet["reconciler"], fleet["gateway"]
    before = [states(host) for host in fleet.values()]
    for step in (HOLD, JUDGE):
        assert [host.run(*step)[0] for host in (gateway, inf)] == [0, 0]
    assert gateway.run("confirm", "gateway")[0] == 0
    status, answer = inf.run(*BACK)
    assert status == 1, "the gateway is not back yet"
    assert "gateway runs one" in answer["error"]["message"]
    status, answer = gateway.run(*BACK)
    assert (status, answer["changed"]) == (0, True), gateway.last_output
    status, answer = inf.run(*BACK)
    assert (status, answer["changed"], answer["services"]["reconciler"]["restored_healthy"]) == (
        0,
        False,
        True,
    )
    assert of_fleet(fleet) == ["two", "two"]
    assert [states(host) for host in fleet.values()] == before, "the history as well"


def test_a_confirmed_undo_is_left_by_the_name_of_its_generation(fleet: dict[str, FakeHost]) -> None:
    """To what ran before it, and not to what was confirmed before that."""
    gateway = fleet["gateway"]
    before = states(gateway)
    assert gateway.run("undo")[0] == 0
    status, _ = gateway.run("revert", "gateway", "--confirmed", str(states(gateway)["gateway"]["current"]))
    assert (status, gateway.running("gateway.service")) == (0, "two")
    assert states(gateway) == before


def test_what_nobody_has_judged_may_fail_but_not_be_confirmed(fleet: dict[str, FakeHost]) -> None:
    inf = fleet["reconciler"]
    assert inf.run(*HOLD)[0] == 0
    (inf.systemd / "active/reconciler.service").write_text("failed 7 one\n")
    inf.run("recover", "reconciler", "--watch")
    assert held(inf) == {"reconciler": False}, "its gateway is not back yet"
    status, _ = inf.run("confirm", "reconciler")
    assert status == 1
    assert of_fleet(fleet) == ["two", "two"]
    assert fleet["gateway"].run("confirm", "gateway")[0] == 0, "nothing was moved there"


def test_restarts_before_all_are_back_do_not_count_and_later_ones_do(fleet: dict[str, FakeHost]) -> None:
    for host in fleet.values():
        assert host.run(*HOLD)[0] == 0
    inf = fleet["reconciler"]
    unit = inf.systemd / "active/reconciler.service"
    unit.write_text("failed 7 one\n")
    assert inf.run(*JUDGE)[0] == 0, "it had given up, and was started again"
    unit.write_text("active 1 one\n")
    inf.run("recover", "reconciler", "--watch")
    assert inf.running("reconciler.service") == "two"
    status, gone = inf.run(*JUDGE)
    assert status == 1
    assert "crashed and was restarted" in gone["error"]["message"]


def test_a_host_that_is_not_healthy_says_which_and_why_and_waits_for_the_others(shared: FakeHost) -> None:
    before = states(shared)
    assert shared.run(*HOLD)[0] == 0
    (shared.systemd / "active/strategy.service").write_text("active 0 something else\n")
    status, failed = shared.run(*JUDGE)
    assert status == 1
    assert "strategy runs something else" in failed["error"]["message"]
    assert held(shared) == dict.fromkeys(SHARING, False), "back alone it would not be healthy either"
    assert shared.run(*BACK)[0] == 0
    assert running(shared) == NEW
    assert states(shared) == before
    assert shared.timers() == []


def test_nobody_goes_on_so_all_return_at_their_deadline(shared: FakeHost) -> None:
    before = states(shared)
    assert shared.run(*HOLD[:-1], "1")[0] == 0
    assert running(shared) == OLD
    time.sleep(1.1)
    watch(shared)
    assert (running(shared), states(shared), shared.timers()) == (NEW, before, [])


def test_one_that_went_back_takes_the_others_of_its_host_along(shared: FakeHost) -> None:
    before = states(shared)
    assert shared.run(*HOLD)[0] == 0
    assert shared.run("revert", "reconciler")[0] == 0
    watch(shared)
    assert (running(shared), states(shared)) == (NEW, before)


def test_one_that_is_confirmed_takes_the_others_of_its_host_along(shared: FakeHost) -> None:
    """A run that dies between two confirmations leaves no half of a host."""
    for step in (HOLD, JUDGE):
        assert shared.run(*step)[0] == 0
    assert shared.run("confirm", "gateway")[0] == 0
    watch(shared)
    assert (running(shared), held(shared), shared.timers()) == (OLD, {}, [])


def test_a_reboot_while_it_is_held_returns_to_what_ran(shared: FakeHost) -> None:
    before = states(shared)
    assert shared.run(*HOLD)[0] == 0
    assert shared.run("recover", "--boot")[0] == 0
    assert (states(shared), shared.timers()) == (before, [])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("step", [("undo",), JUDGE])
def test_a_run_that_ends_while_it_judges_leaves_no_half(
    shared: FakeHost, step: tuple[str, ...], how: signal.Signals
) -> None:
    before = states(shared)
    if step == JUDGE:
        assert shared.run(*HOLD)[0] == 0
    (shared.systemd / "active/strategy.service").write_text("active 0 waits\n")
    run = subprocess.Popen(
        shared.command(*step), env=shared.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    lock = shared.base / "gateway/lock"
    end = time.monotonic() + 20
    while not (lock.exists() and "waiting for health" in lock.read_text()):
        assert time.monotonic() < end, "it never judged"
        time.sleep(0.01)
    run.send_signal(how)
    run.wait(timeout=30)
    watch(shared)
    if step == JUDGE:
        assert held(shared) == dict.fromkeys(SHARING, False), "its deployer may go on, or the deadline comes"
        assert shared.run(*BACK)[0] == 0
    assert (running(shared), states(shared), shared.timers()) == (NEW, before, [])


def test_state_of_an_older_tool_can_be_undone(shared: FakeHost) -> None:
    for path in shared.base.glob("*/state.json"):
        document = json.loads(path.read_text())
        for key in ("came_from", "undid"):
            del document[key]
        path.write_text(json.dumps(document))
    assert shared.run("undo")[0] == 0
    assert running(shared) == OLD


def with_port(port: int) -> dict[str, Any]:
    made = specification(f"port {port}")
    made["files"][".env"]["content"] += f"GATEWAY_PORT='{port}'\nLOG_LEVEL='{port}'\n"
    return made


def test_a_host_that_is_new_says_how_the_others_can_go_back(host: FakeHost) -> None:
    assert host.run("stage", "gateway", spec=with_port(5555))[0] == 0
    assert host.run("activate", "gateway", "--confirm-timeout", "0", "--deployment", FIRST)[0] == 0
    status, refused = host.run("undo")
    assert status == 2
    assert "leave this host out of the rollback (--limit)" in refused["error"]["remedy"]


def test_what_others_agreed_on_does_not_go_back_alone(host: FakeHost) -> None:
    for port, deployment in ((5555, FIRST), (5565, SECOND)):
        assert host.run("stage", "gateway", spec=with_port(port))[0] == 0
        assert host.run("activate", "gateway", "--confirm-timeout", "0", "--deployment", deployment)[0] == 0
    first = host.run("list", "gateway")[1]["generations"][0]["generation"]
    for words in ((), ("--dry-run",)):
        status, refused = host.run("rollback", "gateway", *words)
        assert status == 2
        assert "has another GATEWAY_PORT: going back to it alone cuts off" in refused["error"]["message"]
        assert f"to={first}" in refused["error"]["remedy"]
    assert host.run("undo", "--dry-run")[0] == 0
    assert host.run("rollback", "gateway", "--to", first)[0] == 0
