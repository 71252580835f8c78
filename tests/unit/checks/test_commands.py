"""The `mt5crs` commands as people run them: real processes, real gateway, exit status and JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zmq

import mt5crs
from mt5crs.__main__ import COMMANDS
from mt5crs.checks.event_delay import Clock, Heard
from mt5crs.checks.latency import LatencySettings, Seen, judge, judge_events, measure
from mt5crs.checks.percentiles import buckets, confidence_note, histogram_svg, percentile
from mt5crs.local_fleet.phoenix import doubled_orders, lost_positions
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet, Service, free_ports
from mt5crs.protocol.curve import Context, public_of
from tests.unit.reconciler.books import deal, position, snapshot


def run(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mt5crs …`."""
    return subprocess.run(
        [sys.executable, "-m", "mt5crs", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def env_file(fleet: Fleet, service: Service, **changes: object) -> str:
    """Write the `.env` of a service, 0600, as the deployment does."""
    path = fleet.directory / f"{service}.env"
    values = {**fleet.environment(service), **{name: str(value) for name, value in changes.items()}}
    text = "".join(
        f"{name}='{value}'\n" for name, value in values.items() if name.isupper() and "'" not in value
    )
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {finding["name"]: finding["verdict"] for finding in json.loads(done.stdout)["findings"]}


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    for service in ("gateway", "reconciler", "strategy"):
        fleet.start_ready(service)
    return fleet


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_help_imports_no_command() -> None:
    code = (
        "import sys, mt5crs.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in sys.modules if n.startswith('mt5crs.checks.')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("service", ["gateway", "reconciler", "strategy"])
def test_services_import_nothing_heavy(service: str) -> None:
    code = (
        f"import sys, mt5crs.{service}.__main__\n"
        "heavy = {'click', 'rich', 'ansible', 'structlog', 'prometheus_client', 'asyncio', 'http.server'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


def test_health_says_healthy_starting_and_down(fleet: Fleet) -> None:
    port = str(fleet.metrics_ports["strategy"])
    down = run("health", "strategy", "--port", port)
    assert down.returncode == 1
    assert "journalctl -u mt5crs-strategy" in down.stdout
    fleet.start("strategy")
    fleet.wait(lambda: fleet.health("strategy"), "the end point")
    assert run("health", "strategy", "--port", port).returncode == 75
    fleet.start_ready("gateway")
    fleet.start_ready("reconciler")
    fleet.wait_healthy("strategy")
    done = run("health", "strategy", "--port", port, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["state"] == "ready"
    assert run("health", "strategy", "--env-file", env_file(fleet, "strategy")).returncode == 0


def test_health_of_a_port_that_someone_else_has_is_a_broken_check(running: Fleet) -> None:
    done = run("health", "gateway", "--port", str(running.port))
    assert done.returncode not in (0, 75)


def test_link_passes_all_nine_layers(running: Fleet) -> None:
    running.wait(lambda: running.state().positions, "an open position")
    done = run("link", "--json", "--env-file", env_file(running, "strategy"))
    assert done.returncode == 0, done.stdout
    assert list(verdicts(done).values()) == ["PASS"] * 9
    reconciler = run("link", "--json", "--env-file", env_file(running, "reconciler"))
    assert verdicts(reconciler)["8 dry-run order"] == "SKIP"
    assert reconciler.returncode == 0
    assert running.secrets["strategy"] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"GATEWAY_HOST": "no-such-host.invalid"}, "1 name and route"),
        ({"GATEWAY_HOST": "255.255.255.255"}, "1 name and route"),
        ({"GATEWAY_PORT": "1"}, "2 TCP"),
        ({"CLIENT_SECRET_KEY": "11" * 32}, "3 ZeroMQ handshake"),
        ({"GATEWAY_PUBLIC_KEY": "11" * 32}, "3 ZeroMQ handshake"),
        ({"CLIENT_NAME": "somebody"}, "4 PING/PONG"),
        ({"EXPECTED_ACCOUNT_LOGIN": "7"}, "6 SYNC_ALL"),
        ({"RECONCILER_SOCKET": "/nowhere/state.sock"}, "9 reconciled state"),
    ],
)
def test_link_names_the_broken_layer(running: Fleet, changes: dict[str, str], broken: str) -> None:
    done = run("link", "--json", "--env-file", env_file(running, "strategy", **changes))
    assert done.returncode == 1
    found = verdicts(done)
    assert next(name for name, verdict in found.items() if verdict == "FAIL") == broken


def test_link_layer_nine_sees_a_state_that_is_not_known(running: Fleet) -> None:
    env = env_file(running, "strategy")
    running.stop("strategy")
    running.kill("reconciler")
    done = run("link", "--json", "--env-file", env)
    assert verdicts(done)["9 reconciled state"] == "FAIL"


def test_halt_stops_orders_until_resumed(running: Fleet) -> None:
    ops = env_file(running, "reconciler", CLIENT_NAME="ops", CLIENT_SECRET_KEY=running.secrets["ops"])
    assert run("halt", "--reason", "drill", "--env-file", ops).returncode == 0

    def deals() -> int:
        with running.client() as client:
            return len(client.snapshot(MAGIC, history_since_msc=0).deals)

    stopped = deals()
    running.kill("gateway")
    running.start_ready("gateway")
    running.wait(lambda: "HALTED" in running.tail("strategy"), "an order refused after the restart")
    assert deals() == stopped
    status = run("status", "--json", "--env-file", ops)
    assert json.loads(status.stdout)["halts"][0]["reason"] == "drill"
    assert run("resume", "--reason", "over", "--env-file", ops).returncode == 0
    running.wait(lambda: deals() > stopped, "orders again")


def test_halt_of_the_fleet_is_refused_to_a_client_that_only_observes(running: Fleet) -> None:
    done = run("halt", "--reason", "drill", "--env-file", env_file(running, "reconciler"))
    assert done.returncode == 1
    assert "FORBIDDEN" in done.stderr


def test_positions_and_leases(running: Fleet) -> None:
    running.wait(lambda: running.state().positions, "an open position")
    env = env_file(running, "strategy")
    listed = json.loads(run("positions", "--json", "--env-file", env).stdout)
    assert listed["positions"]
    leases = json.loads(run("leases", "--json", "--env-file", env).stdout)
    assert [lease["client"] for lease in leases] == ["strategy"]
    assert "POSITION" in run("positions", "--env-file", env).stdout


def test_missing_settings_come_all_at_once(tmp_path: Path) -> None:
    done = run("link")
    assert done.returncode == 78
    for name in ("GATEWAY_HOST", "GATEWAY_PUBLIC_KEY", "CLIENT_NAME", "CLIENT_SECRET_KEY", "--env-file"):
        assert name in done.stderr


def test_audit_passes_here_and_fails_for_an_env_file_that_others_can_read(fleet: Fleet) -> None:
    assert run("audit", "--json").returncode == 0
    path = env_file(fleet, "reconciler")
    Path(path).chmod(0o644)
    done = run("audit", "--json", "--env-file", path)
    assert done.returncode == 1
    assert verdicts(done)["structure: .env"] == "FAIL"


def test_audit_names_the_part_that_is_broken(tmp_path: Path) -> None:
    source = tmp_path / "src"
    shutil.copytree(Path(mt5crs.__file__).parents[1], source)
    (source / "mt5crs" / "gateway" / "broken.py").write_text("import no_such_module\n")
    halt = source / "mt5crs" / "reconciler" / "compare.py"
    old = "STRIKES_TO_HALT = 3"
    assert old in halt.read_text()
    halt.write_text(halt.read_text().replace(old, f"{old}0"))
    done = run("audit", "--json", environment={"PYTHONPATH": str(source)})
    assert done.returncode == 1
    failed = {name for name, verdict in verdicts(done).items() if verdict == "FAIL"}
    assert failed == {"imports: modules", "unit tests"}
    assert "no_such_module" in done.stdout
    assert "test_nothing_explains_a_change" in done.stdout


def test_phoenix_kills_and_recovers_every_service() -> None:
    done = run("phoenix", "--json", timeout_s=120)
    assert done.returncode == 0, done.stdout
    assert list(verdicts(done).values()) == ["PASS"] * 3


def test_phoenix_sees_lost_and_doubled() -> None:
    before = snapshot(positions=[position(1, 1.0), position(2, 1.0)])
    closed = deal(9, 2, -1.0, entry="OUT")
    assert lost_positions(before, snapshot(deals=[closed])) == [1]
    twice = [deal(9, 1, 1.0, order=5, comment="c-1"), deal(10, 2, 1.0, order=6, comment="c-1")]
    partial = [deal(9, 1, 0.5, order=5, comment="c-1"), deal(10, 1, 0.5, order=5, comment="c-1")]
    assert doubled_orders(snapshot(deals=twice)) == ["c-1"]
    assert doubled_orders(snapshot(deals=partial)) == []


def test_keys_go_to_a_private_file_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    done = run("keys", "new", "--secret-file", str(path))
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert done.stdout.strip() == public_of(secret)
    assert secret not in done.stdout + done.stderr
    assert run("keys", "new", "--secret-file", str(path)).returncode == 1


# ---- latency ----


def latency_environment(fleet: Fleet) -> dict[str, str]:
    return {
        "ZMQ_SERVER_IP": "127.0.0.1",
        "ZMQ_REQ_PORT": str(fleet.port),
        "ZMQ_PUB_PORT": str(fleet.pub_port),
        "GATEWAY_PUBLIC_KEY": fleet.gateway_public,
        "CLIENT_SECRET_KEY": fleet.secrets["ops"],
    }


def test_latency_measures_and_draws(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_ready("gateway")
    picture = tmp_path / "latency.svg"
    environment = latency_environment(fleet)
    options = ("--json", "--samples", "200", "--listen", "0.6", "--svg", str(picture))
    done = run("latency", *options, environment=environment)
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["samples"] == 200
    assert figures["errors"] == {}
    assert figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["maximum"]
    assert any("P99" in note for note in figures["notes"])
    assert picture.read_text().startswith("<svg")
    events = figures["events"]  # heartbeats every 0.2 s, from the same clock
    assert events["events"] >= 2
    assert events["malformed"] == 0
    assert 0 < events["first"] <= 600
    assert -events["delay_uncertain"] - 1 <= events["delay_p50"] <= events["delay_maximum"] < 600
    dry = run("latency", "--dry-run", environment=environment)
    assert dry.returncode == 0
    assert "nothing sent" in dry.stdout

    (nobody,) = free_ports(1)
    silent = run(
        "latency",
        "--samples",
        "20",
        "--listen",
        "0.3",
        environment={**environment, "ZMQ_PUB_PORT": str(nobody)},
    )
    assert silent.returncode == 1
    assert f"no event on port {nobody} in 0.3 s; check ZMQ_PUB_PORT" in silent.stdout


def test_latency_shows_what_it_has_when_interrupted(fleet: Fleet) -> None:
    fleet.start_ready("gateway")
    command = [sys.executable, "-m", "mt5crs", "latency", "--samples", "10000000"]
    environment = {"PATH": os.environ["PATH"], **latency_environment(fleet)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:

        def pings() -> float:
            page = urllib.request.urlopen(
                f"http://127.0.0.1:{fleet.metrics_ports['gateway']}/metrics", timeout=5
            )
            lines = page.read().decode().splitlines()
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'kind="PING"' in line)

        fleet.wait(lambda: pings() > 100, "PINGs at the gateway")
        running.send_signal(signal.SIGINT)
        try:
            said = running.communicate(timeout=60)[0]
        finally:
            running.kill()
    assert running.returncode == 130
    assert re.search(r"^note: interrupted after [1-9]\d+ of 10000000 samples$", said, re.MULTILINE)
    assert re.search(r"^min .* P99 ", said, re.MULTILINE)
    assert said.splitlines()[-1] == "INTERRUPTED"


def test_latency_of_nobody_fails_and_ends(fleet: Fleet) -> None:
    began = time.monotonic()
    done = run(
        "latency",
        "--timeout",
        "0.1",
        environment={"ZMQ_SERVER_IP": "127.0.0.1", "ZMQ_REQ_PORT": str(fleet.port)},
    )
    assert done.returncode == 1
    assert "no answer" in done.stdout
    assert time.monotonic() - began < 30


@contextlib.contextmanager
def answering(*answers: list[bytes]) -> Iterator[LatencySettings]:
    """A REP server with answers ready."""
    context: Context = zmq.Context()
    server = context.socket(zmq.REP)
    port = server.bind_to_random_port("tcp://127.0.0.1")

    def answer() -> None:
        for each in answers:
            if server.poll(5000):
                server.recv()
                server.send_multipart(each)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield LatencySettings(server_ip="127.0.0.1", req_port=port)
    finally:
        thread.join()
        context.destroy(0)


def test_latency_counts_an_answer_that_is_no_pong_as_an_error() -> None:
    with answering(*[[b"PANG"]] * 3) as where:
        assert measure(where, 5, 0, 2.0) == ([], {"answer": 3})


def test_latency_tells_wrong_answers_from_none() -> None:
    seen = Seen()
    with answering([b"PONG:1", b"and more"], [b"PANG"], [b"PONG:1700000000000"]) as where:
        measure(where, 3, 0, 2.0, seen)
    assert (len(seen.times), seen.errors) == (1, {"answer": 2})
    figures = judge(seen.times, seen.errors, seen.wrong)
    assert figures.notes[0] == "2 answers do not begin with PONG:; the first: b'PONG:1 and more'"
    wrong, none = judge([], {"answer": 3}, b"PANG"), judge([], {"timeout": 3})
    assert "no answer" not in str(wrong.notes)
    assert "no answer at all" in none.notes[0]


def test_latency_takes_no_answer_of_any_size() -> None:
    with answering([b"PONG:" + b"1" * 1_000_000]) as where:
        assert measure(where, 1, 0, 0.3) == ([], {"timeout": 1})


def test_latency_knows_the_other_clock_by_the_fastest_answer() -> None:
    clock = Clock()
    for theirs, sent, received in ((1000, 0.0, 100.0), (5000, 3999.0, 4001.0), (9000, 7900.0, 8000.0)):
        clock.learn(theirs, sent, received)
    assert (clock.ahead_ms, clock.uncertain_ms) == (1000.5, 1.5)


def test_latency_says_what_was_heard_of_a_plain_peer() -> None:
    where = LatencySettings(server_ip="127.0.0.1", req_port=1)
    quiet = judge([1.0], {})
    judge_events(quiet, Seen(heard=Heard(seconds=3.0)), where)
    assert quiet.verdict == "PASS"
    assert "no event on port 5556 in 3.0 s; the market is closed" in quiet.notes[-1]
    loud = judge([1.0], {})
    judge_events(loud, Seen(heard=Heard(arrivals=[0.1, 0.2, 0.5], seconds=3.0)), where)
    assert loud.events is not None
    assert loud.events.longest_gap == pytest.approx(300)
    assert (loud.events.first, loud.events.delay_p50) == (pytest.approx(100), None)


def test_latency_takes_its_own_names_before_those_of_a_service(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "GATEWAY_HOST=10.0.0.1\nGATEWAY_PORT=1111\nGATEWAY_PUB_PORT=1112\n"
        "ZMQ_SERVER_IP=127.0.0.1\nZMQ_REQ_PORT=2221\n"
    )
    options = ("latency", "--dry-run", "--env-file", str(path))
    file, both = run(*options), run(*options, environment={"ZMQ_REQ_PORT": "3331"})
    assert "127.0.0.1:2221, " in file.stdout
    assert "events on 1112 " in file.stdout
    assert "127.0.0.1:3331, " in both.stdout


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"ZMQ_SERVER_IP": "255.255.255.255"},
        {"ZMQ_SERVER_IP": "127.0.0.1", "ZMQ_REQ_PORT": "5556"},
        {"ZMQ_SERVER_IP": "127.0.0.1", "ZMQ_REQ_PORT": "x"},
        {"ZMQ_SERVER_IP": "127.0.0.1", "CLIENT_SECRET_KEY": "11" * 32},
    ],
)
def test_latency_checks_its_configuration_first(environment: dict[str, str]) -> None:
    done = run("latency", "--dry-run", environment=environment)
    assert done.returncode == 78
    assert "11" * 32 not in done.stderr


def test_percentiles_are_nearest_rank() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.01, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_confidence_note_says_how_many_are_needed() -> None:
    assert confidence_note(1000, 0.99) == ""
    assert "at least 1000" in confidence_note(999, 0.99)


def test_judge_fails_on_errors_and_on_slowness() -> None:
    assert judge([1.0] * 2000, {}).verdict == "PASS"
    assert judge([1.0] * 2000, {"timeout": 3}).verdict == "FAIL"
    assert judge([60.0] * 2000, {}).verdict == "FAIL"
    assert judge([], {"timeout": 3}).verdict == "FAIL"


def test_buckets_hold_every_sample() -> None:
    values = [0.1, 0.2, 0.2, 5.0, 80.0]
    assert sum(number for *_, number in buckets(values)) == len(values)
    assert sum(number for *_, number in buckets([1.0, 1.0])) == 2
    assert "</svg>" in histogram_svg([1.0], {"P50": 1.0}, "ms", "one")


def test_a_word_that_is_nearly_a_command_is_told_which() -> None:
    """Nobody looks a word up while the market runs."""
    told = run("--inventory", "x.yml", "hlat")
    assert (told.returncode, "'halt'" in told.stderr) == (2, True)
