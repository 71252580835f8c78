"""The release tool hit at every system call that changes anything: killed there, or refused by the disk.

Afterwards the host must have exactly one complete current generation, old or new, and run it.
``MT5CRS_FAULT_CASES`` is the number of hits per scenario and kind (0: every single one).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.faults.scenarios import NEW, OLD, PAIRED, SCENARIOS, SIDE, Scenario, new, old
from tests.faults.syscalls import FAILING, MUTATING, Hit, choose, count
from tests.release_host.host import SHADOW_UNIT, STANDBY_UNIT, UNIT, FakeHost

CASES = int(os.environ.get("MT5CRS_FAULT_CASES", "12"))
AT_ONCE = 2
pytestmark = [
    pytest.mark.timeout(3600 if CASES == 0 else 300),
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
    ),
]


HIT = [scenario for scenario in SCENARIOS if CASES == 0 or not scenario.repeats]


@pytest.fixture(scope="module", params=HIT, ids=lambda scenario: scenario.name.replace(" ", "-"))
def ready(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scenario, FakeHost]:
    """A scenario and the host made ready for it; each hit gets a copy."""
    scenario: Scenario = request.param
    host = FakeHost.create(tmp_path_factory.mktemp("host") / "root")
    scenario.prepare(host)
    return scenario, host


def test_killed(ready: tuple[Scenario, FakeHost]) -> None:
    scenario, template = ready
    counted = _count(scenario, template)
    every = [Hit(name, n) for name in MUTATING for n in range(1, counted[name] + 1)]
    chosen = choose(every, CASES)
    landed = _hit_all(scenario, template, chosen, _kill)
    print(f"{scenario.name}: {landed} of {len(every)} kill points hit")
    assert landed >= 0.8 * len(chosen), "the count of system calls does not fit the runs"


@pytest.mark.parametrize("error", sorted(FAILING))
def test_disk_refuses(ready: tuple[Scenario, FakeHost], error: str) -> None:
    scenario, template = ready
    counted = _count(scenario, template)
    every = [
        Hit(name, n, f"error={error}", lasting)
        for name in FAILING[error]
        for n in range(1, counted[name] + 1)
        for lasting in (False, True)
    ]
    landed = _hit_all(scenario, template, choose(every, CASES // 3), _refuse)
    print(f"{scenario.name}: {landed} of {len(every)} places where {error} can strike")


def _count(scenario: Scenario, template: FakeHost) -> dict[str, int]:
    with _copy(template, "count") as host:
        text = host.text(scenario.spec) if scenario.spec else ""
        log = host.root / "calls"
        return count(host.command(*scenario.arguments), log, host.environment(), text)


def _hit_all(scenario: Scenario, template: FakeHost, hits: list[Hit], strike: object) -> int:
    def one(numbered: tuple[int, Hit]) -> tuple[bool, str | None]:
        number, hit = numbered
        with _copy(template, f"{hit.name}-{hit.number}-{number}") as host:
            try:
                return strike(scenario, host, hit, number), None  # type: ignore[operator]
            except AssertionError as error:
                return True, f"{hit}: {error}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(one, enumerate(hits)))
    failures = [failure for _, failure in outcomes if failure]
    assert not failures, f"{len(failures)} of {len(hits)} hits left a mess:\n" + "\n".join(failures[:10])
    return sum(landed for landed, _ in outcomes)


def _kill(scenario: Scenario, host: FakeHost, hit: Hit, number: int) -> bool:
    """Kill the run, then let time pass in one of three ways, and look."""
    status, _ = _run_hit(scenario, host, hit)
    landed = status in (-9, 137)
    if number % 3 == 0:
        host.run("recover")
    elif number % 3 == 1:
        _reboot(host)
    else:
        host.run(*scenario.arguments, spec=scenario.spec)
    _assert_whole(scenario, host, number)
    return landed


def _refuse(scenario: Scenario, host: FakeHost, hit: Hit, number: int) -> bool:
    """Let the disk refuse once or from there on; the run must end by itself, with a message."""
    status, said = _run_hit(scenario, host, hit)
    assert status in (0, 1, 2), f"ended with {status}: {said}"
    assert "Traceback" not in said, said
    if status != 0 and not hit.lasting:  # one of the two streams may be what was hit
        assert "What to do:" in said or '"remedy": "' in said, f"no remedy in {said!r}"
    running = host.running()
    ran = (running or "").split(" ")[0]
    may_be_down = scenario.nothing_allowed or (scenario.spoilt and hit.lasting)
    assert ran in (OLD, NEW) or (running is None and may_be_down), f"runs {running!r}"
    host.run("recover")
    if host.timers():
        host.run("recover", "gateway", "--watch")  # as the timer does a few seconds later
    _assert_whole(scenario, host, number)
    return status != 0


def _run_hit(scenario: Scenario, host: FakeHost, hit: Hit) -> tuple[int, str]:
    answer = subprocess.run(
        [*hit.strace(), *host.command(*scenario.arguments)],
        input=host.text(scenario.spec) if scenario.spec else "",
        capture_output=True,
        text=True,
        env=host.environment(),
        timeout=60,
        check=False,
    )
    assert "canary" not in answer.stdout + answer.stderr, "a secret was printed"
    return answer.returncode, answer.stdout + answer.stderr


def _reboot(host: FakeHost) -> None:
    """As a reboot does: nothing runs, no timer is left; the boot unit comes first, then what is enabled."""
    for directory in ("active", "timers", "loaded"):
        for path in (host.systemd / directory).iterdir():
            path.unlink()
    systemctl = [str(host.programs / "systemctl")]
    environment = host.environment()
    subprocess.run([*systemctl, "daemon-reload"], env=environment, check=True, timeout=30)
    if host.service.is_dir():
        host.run("recover", "--boot")
    wants = host.root / "etc/systemd/system/multi-user.target.wants"
    for link in sorted(wants.iterdir()) if wants.is_dir() else []:
        assert link.exists(), f"{link} dangles"
        subprocess.run([*systemctl, "start", link.name], env=environment, check=True, timeout=30)


def _assert_whole(scenario: Scenario, host: FakeHost, number: int) -> None:
    """The host has one complete current generation, runs exactly that, and can be deployed to."""
    if scenario.pair:
        _assert_pair(host)
    pointer = host.pointer()
    if pointer is None:
        assert scenario.nothing_allowed, "nothing is current"
        assert not list((host.systemd / "active").iterdir()), "something runs although nothing is current"
    else:
        generation = host.service / "generations" / pointer
        status, answer = host.run("status", "gateway")
        assert status == 0, host.last_output
        entry = answer["services"]["gateway"]
        text = (generation / "units" / UNIT).read_text()
        assert text.split()[0] in scenario.allowed, f"current is {text!r}"
        assert entry["intact"], f"{pointer} is not complete"
        assert host.running() == text.splitlines()[0], f"{pointer} is current, {host.running()!r} runs"
        live = generation / "live.env"
        if live.exists():
            assert (host.systemd / "live").read_text() == live.read_text(), "other live settings are in force"
        assert entry["state"] in ("confirmed", "provisional"), entry["state"]
        assert (entry["state"] == "provisional") == bool(host.timers()) == bool(entry["pending"]), entry
        if entry["state"] == "confirmed":
            assert host.seen_before() is None, "what ran before counts as well, although this is confirmed"
            assert not (host.service / "before").is_symlink(), "the pointer to what ran before was left"
            _assert_access(scenario, host)
        side_wanted = text.startswith(OLD)
        assert (host.running(SIDE) is not None) == side_wanted, f"side unit: {host.running(SIDE)!r}"
        units = host.root / "etc/systemd/system"
        dangling = [str(path) for path in units.rglob("*") if path.is_symlink() and not path.exists()]
        assert not dangling, f"dangling links {dangling}"
    assert not (host.service / "standby").is_symlink(), "the pointer of the standby phase was left"
    assert host.running(STANDBY_UNIT) is None, "the standby still runs"
    assert host.running(SHADOW_UNIT) is None, "the shadow still runs"
    volatile = host.root / "run/systemd/system"
    assert not volatile.is_dir() or not list(volatile.iterdir()), "a link of the standby phase was left"
    if (host.service / "state.json").exists():
        recorded = set(host.state()["generations"])
        assert {path.name for path in (host.service / "generations").iterdir()} == recorded
    leftovers = [str(path) for path in host.root.rglob(".mt5crs-tmp-*")]
    assert not leftovers, f"left behind {leftovers}"
    for name in ("journal.jsonl", "state.json"):
        path = host.service / name
        assert not path.exists() or "canary" not in path.read_text(), f"a secret is in {name}"
    if number % 5 == 0:
        _assert_deployable(host)


def _assert_access(scenario: Scenario, host: FakeHost) -> None:
    """Who gets in fits what is confirmed; only a rollback leaves what the newer one wanted."""
    text = str(host.running())
    clients = json.loads((host.service / "access.json").read_text())["clients"]
    wanted = {1} if text.startswith(OLD) and scenario.name != "roll back" else {2}
    assert set(clients["rest"]["magics"]) == wanted, f"{text} runs with {clients}"
    if text.startswith(NEW) and not scenario.pair:
        assert "gone" not in clients, "who was shut out gets in"


def _assert_pair(host: FakeHost) -> None:
    """As soon as the timers have looked, both services run the old or both the new."""
    for _ in range(2):
        for service in ("gateway", PAIRED):
            host.run("recover", service, "--watch")
    found = [host.running(), host.running(f"{PAIRED}.service")]
    assert found in ([OLD, OLD], [NEW, NEW]), f"half of the host went back: {found}"


def _assert_deployable(host: FakeHost) -> None:
    """Whatever happened, the next deployment goes through."""
    host.run("confirm", "gateway")
    remark = new("next", state_format=9) if host.running() != NEW else old(state_format=9)
    assert host.run("stage", "gateway", spec=remark)[0] == 0, host.last_output
    assert host.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0, host.last_output


@contextmanager
def _copy(template: FakeHost, name: str) -> Iterator[FakeHost]:
    """A copy of ``template`` beside it; absolute paths inside are those of the copy."""
    root = template.root.parent / name
    try:
        yield template.copied(root)
    finally:
        shutil.rmtree(root)
