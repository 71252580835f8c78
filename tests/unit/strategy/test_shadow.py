"""The shadow stage on loopback: real processes, a seeded difference found, and nothing sent."""

from __future__ import annotations

import ast
import inspect
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mt5crs.local_fleet.rehearsal import MAGIC, Fleet, free_ports
from mt5crs.probes import shadow as following
from mt5crs.probes.agreement import Terms
from mt5crs.probes.health import ask_health
from mt5crs.strategy import shadow as program
from mt5crs.strategy.tape import TAPE, Call, Decision, TapeWriter

OPTIONS = {"positions": 2, "hold_s": 0.3}


class Beside:
    """A shadow of the rehearsal's strategy, and the comparison of both."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.directory = fleet.directory / "shadow"
        self.port = free_ports(1)[0]
        self.record = fleet.directory / "shadow.json"
        self.word = fleet.directory / "shadow.word"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *, key: str = "reconciler", **settings: object) -> subprocess.Popen[str]:
        self.directory.mkdir()
        environment = {
            **self.fleet.environment("strategy"),
            "CLIENT_NAME": key,
            "CLIENT_SECRET_KEY": self.fleet.secrets[key],
            "METRICS_PORT": str(self.port),
            **{name: str(value) for name, value in settings.items()},
        }
        return self._begin([sys.executable, "-m", "mt5crs.strategy.shadow"], environment)

    def compare(self, *more: str, window: float = 2.5, asked_by: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [
            *asked_by,
            *(sys.executable, "-m", "mt5crs", "standby", "shadow"),
            *("--running", str(self.fleet.directory / "strategy" / TAPE)),
            *("--candidate", str(self.directory / TAPE)),
            *("--health", f"127.0.0.1:{self.port}", "--window", str(window)),
            *("--agreement", "95", "--least", "2", "--promotion", "rule", "--tolerance", "0.2"),
            *("--record", str(self.record), "--word", str(self.word)),
            *more,
        ]
        return self._begin(command, self.fleet.environment("strategy"))

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.record.read_text())
        return found

    def replayed(self) -> int:
        try:
            return int(str(ask_health("127.0.0.1", self.port)[1].get("replayed", 0)))
        except OSError:
            return 0

    def _begin(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.fleet.directory,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)


@pytest.fixture
def beside(fleet: Fleet) -> Iterator[Beside]:
    made = Beside(fleet)
    fleet.settings["strategy"] = {
        "TICK_INTERVAL_S": 0.1,
        "STRATEGY_OPTIONS": json.dumps(OPTIONS),
        "SHADOW_DIR": made.directory,
    }
    for service in ("gateway", "reconciler", "strategy"):
        fleet.start_ready(service)
    yield made
    made.end()


def sent(fleet: Fleet) -> int:
    with fleet.client() as client:
        return sum(deal.magic == MAGIC for deal in client.snapshot(MAGIC, history_since_msc=0).deals)


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    output, _ = process.communicate(timeout=30)
    return process.returncode, json.loads(output.strip().splitlines()[-1])


def test_the_same_version_agrees_and_its_orders_go_nowhere(fleet: Fleet, beside: Beside) -> None:
    beside.start()
    status, answer = ended(beside.compare())
    told = beside.told()
    assert (status, answer["agreement"]) == (0, 1.0), answer
    assert told["decisions"] == told["same"] >= 2
    assert (told["state"], told["promoted"], told["behind"]) == ("ended", True, 0)
    assert {row["running"]["became"] for row in told["rows"]} == {"FILLED"}
    assert all(row["new"]["where"].startswith("example.py:") for row in told["rows"])
    # What the strategy's own journal has is all that the broker has: nothing came from the shadow.
    beside.end()
    fleet.stop("strategy")
    journal = (fleet.directory / "strategy" / "intents.db").read_bytes()
    mine = {row["running"]["id"] for row in told["rows"]}
    assert all(name.encode() in journal for name in mine)
    assert not any(row["new"]["id"].encode() in journal for row in told["rows"])


def test_a_seeded_difference_is_found(fleet: Fleet, beside: Beside) -> None:
    beside.start(VOLUME="0.02", STRATEGY_OPTIONS=json.dumps({**OPTIONS, "positions": 1.5}))
    status, answer = ended(beside.compare())
    told = beside.told()
    assert status == 1, answer
    assert answer["agreement"] < 0.95
    assert told["volume"] > 0, told["rows"]
    assert "95 % were wanted" in answer["reason"]
    other = next(row for row in told["rows"] if row["what"] == "volume")
    assert (other["running"]["volume"], other["new"]["volume"]) == (0.01, 0.02)


def test_no_decision_is_not_agreement(fleet: Fleet, beside: Beside) -> None:
    fleet.stop("strategy")
    held = {**fleet.settings["strategy"], "STRATEGY_OPTIONS": json.dumps({"positions": 1, "hold_s": 86400})}
    fleet.settings["strategy"] = held
    fleet.wait(lambda: fleet.state().positions, "a position that is held")
    fleet.start_ready("strategy")
    beside.start()
    status, answer = ended(beside.compare(window=1.5))
    assert (status, answer["agreement"], answer["decisions"]) == (75, None, 0)
    assert "no decisions in the window" in answer["reason"]


@pytest.mark.parametrize(("away_s", "window_s"), [(0.5, 60.0), (60.0, 1.0)])
def test_what_is_known_of_half_a_window_promotes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away_s: float, window_s: float
) -> None:
    """The tape ended long before the window did, or just before."""
    monkeypatch.setattr(following, "_AWAY_S", away_s)
    paths = {name: tmp_path / name for name in ("running", "new")}
    for path in paths.values():
        writer = TapeWriter(path)
        order = Decision("x", 0, "MARKET", "EURUSD", "BUY", 0.1, "s.py:1")
        writer.write(Call("run", 1, 0, "on_timer", decisions=(order,)))
        writer.close()
    follower = following.Follower(
        paths["running"],
        paths["new"],
        ("127.0.0.1", free_ports(1)[0]),
        Terms(window_s, 95, 1, "rule"),
        tolerance_s=1,
        record=tmp_path / "record.json",
        word=tmp_path / "word",
    )
    reading = follower._read  # the first time it looks, they are there

    def read_once(*, more: bool = True) -> None:
        reading(more=more)
        paths["running"].unlink(missing_ok=True)

    monkeypatch.setattr(follower, "_read", read_once)
    verdict = follower.follow()
    assert (verdict.status, follower.found.ratio) == (75, 1.0)
    assert "has ended its tape, because it stopped or cannot write; 1 of 1" in verdict.reason


def test_a_comparison_ends_with_the_run_that_asked_for_it(fleet: Fleet, beside: Beside) -> None:
    beside.start()
    script = '"$@" & echo $!; wait'
    asking = beside.compare(window=60, asked_by=["sh", "-c", script, "sh"])
    assert asking.stdout is not None
    process = int(asking.stdout.readline())
    fleet.wait(beside.record.exists, "the comparison")
    asking.kill()
    fleet.wait(lambda: not Path(f"/proc/{process}").exists(), "the comparison to end", 10)
    assert beside.told()["state"] == "running", "it may be another run's by now"


def test_a_word_decides_at_once(fleet: Fleet, beside: Beside) -> None:
    beside.start()
    comparing = beside.compare("--promotion", "command", window=30)
    fleet.wait(beside.replayed, "a callback that the shadow was called for")
    beside.word.write_text('{"said": "promote", "by": "ann"}')
    status, answer = ended(comparing)
    assert status == 0
    assert answer["reason"].startswith("promoted by ann; ")


def test_a_shadow_that_hangs_is_stopped_and_told(fleet: Fleet, beside: Beside) -> None:
    module = fleet.directory / "hanging.py"
    module.write_text(
        "import time\nfrom mt5crs.strategy.api import Strategy\n"
        "class Hanging(Strategy):\n    def on_timer(self, trading):\n        time.sleep(60)\n"
    )
    environment = {
        "PYTHONPATH": str(fleet.directory),
        "STRATEGY": "hanging:Hanging",
        "STRATEGY_OPTIONS": "{}",
    }
    before = sent(fleet)
    beside.start(CALLBACK_LIMIT_S="0.6", ORDER_TIMEOUT_S="0.5", **environment)
    status, answer = ended(beside.compare(window=20))
    assert status == 2, answer
    assert "on_timer has not returned" in answer["reason"]
    fleet.wait(lambda: sent(fleet) > before + 2, "trades of what runs")
    assert fleet.health("strategy")["healthy"] is True


def test_a_crashing_shadow_ends_alone(fleet: Fleet, beside: Beside) -> None:
    module = fleet.directory / "crashing.py"
    module.write_text(
        "from mt5crs.strategy.api import Strategy\n"
        "class Crashing(Strategy):\n    def on_timer(self, trading):\n        raise RuntimeError('boom')\n"
    )
    environment = {
        "PYTHONPATH": str(fleet.directory),
        "STRATEGY": "crashing:Crashing",
        "STRATEGY_OPTIONS": "{}",
    }
    process = beside.start(**environment)
    assert process.wait(20) == 1
    assert "boom" in str(process.stdout.read() if process.stdout else "")
    before = sent(fleet)
    fleet.wait(lambda: sent(fleet) > before + 2, "trades of what runs")


def test_the_tape_lasts_as_long_as_the_shadow(fleet: Fleet, beside: Beside) -> None:
    tape = fleet.directory / "strategy" / TAPE
    assert not tape.exists()
    process = beside.start()
    fleet.wait(beside.replayed, "a callback that the shadow was called for")
    assert tape.exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    for path in sorted(beside.directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    beside.directory.rmdir()
    fleet.wait(lambda: not tape.exists(), "the tape to be removed")


def test_a_key_that_may_trade_is_refused(fleet: Fleet, beside: Beside) -> None:
    process = beside.start(key="strategy")
    assert process.wait(20) == 78
    assert "may trade, and a shadow must not have such a key" in str(process.stdout.read())  # type: ignore[union-attr]


def test_no_way_to_trade_is_in_the_program() -> None:
    """Not the adapter, the journal or the lease, and no request that changes anything."""
    tree = ast.parse(inspect.getsource(program))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert not (names | imported) & {"ExecutionAdapter", "IntentJournal", "LeaseKeeper", "LiveTrading"}
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & {
        "OrderSend", "OrderCancel", "PositionClose", "LeaseAcquire", "LeaseRenew", "LeaseRelease", "Halt"
    }  # fmt: skip
    assert asked == set()


def test_the_strategys_own_state_is_copied_and_ours_is_not(tmp_path: Path) -> None:
    running, own = tmp_path / "running", tmp_path / "own"
    (running / "notes").mkdir(parents=True)
    for name in ("intents.db", "intents.db-wal", "strategy.lock", "ended", TAPE, "memory.json", "notes/a"):
        (running / name).write_text(name)
    program.copy_of_state(running, own)
    assert sorted(str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()) == [
        "memory.json",
        "notes/a",
    ]


def test_too_much_state_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_COPY_MOST_BYTES", 3)
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "big").write_bytes(b"1234")
    with pytest.raises(Exception, match="too much to copy"):
        program.copy_of_state(tmp_path / "running", tmp_path / "own")
