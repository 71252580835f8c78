"""What a strategy may take and do: decided from figures, refused, and told by what its process becomes."""

from __future__ import annotations

import errno
import queue
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mt5crs.local_fleet.rehearsal import Fleet
from mt5crs.service.logs import Log
from mt5crs.strategy.limits import CPU_WINDOW_S, NAMES, Broken, Use, broken, broken_before
from mt5crs.strategy.usage import Usage
from mt5crs.strategy.watch import Watch
from tests.promql import samples
from tests.unit.monitoring.exported import metrics

MIB = 2**20
CLASS = """
from mt5crs.strategy.api import Strategy
class Mine(Strategy):
    def on_timer(self, trading):
        {code}
"""
KEEPS_FILES = """\
kept = []
        try:
            while True: kept.append(open('/dev/null'))
        except OSError: __import__('time').sleep(9)"""


@pytest.mark.parametrize(
    ("use", "limit", "says"),
    [
        (
            Use(callback="on_timer", callback_s=2.1, callback_most_s=2.0),
            "callback",
            "on_timer has not returned",
        ),
        (
            Use(memory=96 * MIB, memory_most=100 * MIB),
            "memory",
            "it holds 96 MiB of memory, it may have 100 MiB",
        ),
        (Use(threads_refused=1, threads_most=64), "threads", "more threads than the 64"),
        (Use(threads=64, threads_most=64), "threads", "more threads than the 64"),
        (Use(files=64, files_most=64), "files", "all of its 64 files open"),
        (Use(cpu_held_back=0.5), "cpu", "raise strategy_cpu_percent"),
    ],
)
def test_a_broken_limit_is_named_with_its_remedy(use: Use, limit: str, says: str) -> None:
    found = broken(use)
    assert found is not None
    assert found.limit == limit
    assert limit in NAMES
    assert says in str(found)
    assert "raise strategy_" in found.remedy


@pytest.mark.parametrize(
    "use",
    [
        Use(),
        Use(callback="", callback_s=99, callback_most_s=1),
        Use(callback="on_timer", callback_s=1.9, callback_most_s=2.0),
        Use(
            memory=94 * MIB,
            memory_most=100 * MIB,
            threads=63,
            threads_most=64,
            threads_refused=0,
            files=63,
            files_most=64,
        ),
        Use(memory=94 * MIB, memory_most=None, cpu_held_back=0.49),
    ],
)
def test_what_is_within_its_limits_or_not_known_is_left_alone(use: Use) -> None:
    assert broken(use) is None


def test_figures_are_those_of_the_process_and_its_own_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, group = tmp_path / "self", tmp_path / "groups/system.slice/mine.service"
    (process / "fd").mkdir(parents=True)
    group.mkdir(parents=True)
    (process / "cgroup").write_text("1:name=systemd:/x\n0::/system.slice/mine.service\n")
    (process / "statm").write_text("900 500 100 1 0 1 0\n")
    for number in range(3):
        (process / "fd" / str(number)).touch()
    (group / "memory.high").write_text("1048576\n")
    (group / "pids.max").write_text("64\n")
    (group / "pids.events").write_text("max 5\n")
    (group / "cpu.stat").write_text("usage_usec 1\nnr_periods 100\nnr_throttled 10\n")
    now = 1000.0
    monkeypatch.setattr("mt5crs.strategy.usage.time.monotonic", lambda: now)
    usage = Usage(75, 512, groups=tmp_path / "groups", process=process)
    first = usage.all()
    assert first.memory == 400 * 4096
    assert (first.memory_most, first.threads_most, first.threads_refused, first.files) == (MIB, 64, 0, 3)
    assert first.cpu_held_back is None, "nothing is known of a minute that has not passed"
    (group / "pids.events").write_text("max 6\n")
    (group / "cpu.stat").write_text("nr_periods 700\nnr_throttled 460\n")
    now += CPU_WINDOW_S
    second = usage.all()
    assert second.threads_refused == 1
    assert second.cpu_held_back == 0.75


def test_a_host_that_keeps_no_figures_breaks_no_limit(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/\n")
    usage = Usage(50, 64, groups=tmp_path, process=tmp_path / "self")
    use = usage.all()
    assert (use.memory, use.threads, use.threads_refused, use.cpu_held_back) == (None, None, None, None)
    assert broken(use._replace(files=None)) is None


def test_without_a_control_group_its_settings_say_what_it_may_take(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:        1000 kB\nMemFree:          1 kB\n")
    (tmp_path / "self/task/1").mkdir(parents=True)
    (tmp_path / "self/cgroup").write_text("0::/\n")
    use = Usage(50, 64, groups=tmp_path, process=tmp_path / "self").all()
    assert (use.memory_most, use.threads, use.threads_most) == (460_800, 1, 64)


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own: a filter and a hook cannot be taken away again."""
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux refuses")
def test_the_kernel_refuses_processes_and_leaves_threads() -> None:
    done = run(
        "import ctypes, os, subprocess, sys, threading\n"
        "from mt5crs.strategy.processes import forbid\n"
        "print(forbid())\n"
        "thread = threading.Thread(target=lambda: print('a thread')); thread.start(); thread.join()\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def spawned(): os.posix_spawn('/bin/true', ['true'], {})\n"
        "for call in (os.fork, lambda: subprocess.run(['/bin/true']), spawned):\n"
        "    try: call(); print('made one')\n"
        "    except PermissionError as error: print(error.errno)\n"
        "print(libc.fork(), libc.vfork())\n"
        "sys.stdout.flush()\n"
        "os.execv('/bin/echo', ['echo', 'another program'])\n"
    )
    assert done.stdout.splitlines() == ["None", "a thread", "1", "1", "1", "-1 -1", "another program"], (
        done.stderr
    )


def test_what_python_tells_of_is_refused_counted_and_said_once(tmp_path: Path) -> None:
    deployed = tmp_path / "deployed"
    deployed.mkdir()
    (deployed / "model.json").write_text("{}")
    (tmp_path / "link").symlink_to(deployed)
    (tmp_path / "mine.py").write_text(
        "import os, socket, subprocess\n"
        "ACTS = [\n"
        "    lambda: subprocess.run(['/bin/true']),\n"
        "    os.fork,\n"
        "    lambda: socket.create_connection(('127.0.0.1', 1)),\n"
        "    lambda: socket.create_connection(('::1', 1)),\n"
        "    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53)),\n"
        "    lambda: socket.socket().bind(('127.0.0.1', 0)),\n"
        "    lambda: socket.socket().bind(('127.0.0.1', 9)),\n"
        "    lambda: socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket'),\n"
        f"    lambda: open({str(tmp_path / 'link/model.json')!r}, 'a'),\n"
        f"    lambda: open({str(deployed / 'more')!r}, 'w'),\n"
        "]\n"
        "def act(which):\n"
        "    ACTS[which]()\n"
    )
    done = run(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import socket\n"
        "from mt5crs.service.logs import Log\n"
        "from mt5crs.service.metrics import Registry\n"
        "from mt5crs.strategy.refusals import Refusals, RefusedError\n"
        "import mine\n"
        "registry = Registry()\n"
        "Refusals(Log('strategy', stream=sys.stderr), registry, allowed_hosts=['127.0.0.2/31'], port=0,\n"
        "         sockets=['/run/state.sock'], deployed=Path(sys.argv[1]) / 'deployed').begin()\n"
        "for which in range(len(mine.ACTS)):\n"
        "    for _ in range(2):\n"
        "        try: mine.act(which); print(which, 'was done')\n"
        "        except RefusedError as error: print(which, error.found.limit)\n"
        "        except OSError as error: print(which, type(error).__name__)\n"
        "for allowed in (('127.0.0.2', 1), ('127.0.0.3', 1)):\n"
        "    try: socket.create_connection(allowed)\n"
        "    except RefusedError: print('refused what is allowed')\n"
        "    except OSError: pass\n"
        "try: socket.socket(socket.AF_UNIX).connect('/run/state.sock')\n"
        "except RefusedError: print('refused its own socket')\n"
        "except OSError: pass\n"
        "open(sys.argv[1] + '/own', 'w').close()\n"
        "open(sys.argv[1] + '/deployed/model.json').close()\n"
        "print(registry.render())\n",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    said, _, figures = done.stdout.partition("# HELP")
    wanted = ["process"] * 2 + ["network"] * 3 + ["was done"] + ["network"] * 2 + ["write"] * 2
    assert [line.split(" ", 1)[1] for line in said.splitlines()] == [what for what in wanted for _ in "12"]
    counted = {series.labels["what"]: series.value for series in samples(figures) if "what" in series.labels}
    assert counted == {"process": 4, "network": 10, "write": 4}
    told = [line for line in done.stderr.splitlines() if "strategy.refused" in line]
    assert len(told) == 9, done.stderr
    assert "starts a program (mine.py:3)" in told[0]
    assert "strategy_allowed_hosts" in told[2]
    assert "what was deployed never changes" in told[-1]


def broken_figure(fleet: Fleet) -> dict[str, float]:
    """The limits that the strategy's process says are broken."""
    shown = samples(metrics(fleet.metrics_ports["strategy"]), job="strategy", host="inf-01")
    return {
        series.labels["limit"]: series.value
        for series in shown
        if series.name == "mt5crs_strategy_limit_broken" and series.value
    }


@pytest.fixture
def mine(fleet: Fleet, tmp_path: Path) -> Fleet:
    """A gateway and a reconciler, and a strategy whose class tests write."""
    fleet.settings["strategy"] = {
        "STRATEGY": "mine:Mine",
        "PYTHONPATH": tmp_path,
        "TICK_INTERVAL_S": 0.05,
        "ORDER_TIMEOUT_S": 0.4,
        "CALLBACK_LIMIT_S": 2,
    }
    fleet.start_ready("gateway")
    fleet.start_ready("reconciler")
    return fleet


@pytest.mark.parametrize(
    ("code", "limit", "says"),
    [
        ("while True: pass", "callback", "on_timer has not returned"),
        ("import os; os.fork()", "process", "it forks (mine.py:5)"),
        (
            KEEPS_FILES,
            "files",
            "open",
        ),
        (
            "import socket; socket.create_connection(('192.0.2.1', 80))",
            "network",
            "it connects to 192.0.2.1 (mine.py:5)",
        ),
    ],
)
def test_a_strategy_that_breaks_a_limit_is_stopped_and_told(
    mine: Fleet, tmp_path: Path, code: str, limit: str, says: str
) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
    (tmp_path / "mine.py").write_text(CLASS.format(code=code) + few)
    if limit != "callback":  # on a busy machine that one would come first
        mine.settings["strategy"]["CALLBACK_LIMIT_S"] = 60
    process = mine.start("strategy")
    mine.wait(lambda: mine.health("strategy").get("state") == "stopped", "the strategy stopped")
    assert says in str(mine.health("strategy")["reason"])
    assert broken_figure(mine) == {limit: 1}
    assert process.poll() is None, "the unit stays as it is, until somebody has looked"
    told = [line for line in mine.log("strategy") if line["event"] == "strategy.limit"]
    assert [(line["level"], line["limit"]) for line in told] == [("CRITICAL", limit)]
    assert says in told[0]["cause"]
    assert told[0]["remedy"]
    assert mine.stop("strategy") == 0


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.EMFILE, "Too many open files"), "files"),
        (RuntimeError("can't start new thread"), "threads"),
    ],
)
def test_an_error_that_tells_of_a_limit_stops_for_it(error: Exception, limit: str) -> None:
    ended: list[Broken] = []
    with (
        pytest.raises(type(error)),
        Watch(Log("strategy"), Usage(75, 512), 5.0, ended.append).calling("on_timer"),
    ):
        raise error
    assert [found.limit for found in ended] == [limit]


def test_a_process_that_cannot_become_the_one_that_says_so_ends_all_the_same() -> None:
    done = run(
        "import sys\n"
        "from mt5crs.strategy.limits import Broken\n"
        "from mt5crs.strategy.watch import become_stopped\n"
        "sys.executable = '/no/such/python'\n"
        "become_stopped(Broken('files', 'cause', 'remedy'))\n"
        "print('it goes on')\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "No such file" in done.stderr


def test_a_look_that_fails_is_told_once_and_the_callback_watched_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Blind(Usage):
        def memory(self) -> Use:
            raise RuntimeError("cannot see")

    monkeypatch.setattr("mt5crs.strategy.watch._LOOK_S", 0.01)
    found: queue.Queue[Broken] = queue.Queue()
    watch = Watch(Log("strategy"), Blind(75, 512), 0.5, found.put)
    watch.begin()
    with watch.calling("on_timer"):
        assert found.get(timeout=5).limit == "callback"
    assert capsys.readouterr().out.count("limits_unknown") == 1


def test_another_error_is_the_strategy_s_own() -> None:
    ended: list[Broken] = []
    for error in (OSError(errno.ENOENT, "x"), RuntimeError("x"), ValueError("x")):
        with (
            pytest.raises(type(error)),
            Watch(Log("strategy"), Usage(75, 512), 5.0, ended.append).calling("on_timer"),
        ):
            raise error
    assert ended == []


def test_what_a_strategy_catches_does_not_stop_it(mine: Fleet, tmp_path: Path) -> None:
    code = "try: __import__('os').fork()\n        except OSError: pass"
    (tmp_path / "mine.py").write_text(CLASS.format(code=code))
    mine.start_ready("strategy")

    def counted() -> float:
        shown = samples(metrics(mine.metrics_ports["strategy"]), job="strategy", host="inf-01")
        return sum(s.value for s in shown if s.name == "mt5crs_strategy_refused_total")

    mine.wait(lambda: counted() >= 2, "two forks refused")
    assert mine.health("strategy")["state"] == "ready"
    assert broken_figure(mine) == {}
    assert sum(line["event"] == "strategy.refused" for line in mine.log("strategy")) == 1


def test_code_in_c_that_lets_nothing_else_run_is_killed(mine: Fleet, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CLASS.format(code="import re; re.match('(a|a)*b', 'a' * 60)"))
    mine.start("strategy")
    assert mine.wait_exit("strategy") == -signal.SIGALRM


@pytest.mark.parametrize(
    ("ended", "limit"),
    [("oom-kill KILL", "memory"), ("signal ALRM", "callback"), ("watchdog ABRT", "callback")],
)
def test_the_way_a_process_was_killed_names_its_limit(ended: str, limit: str) -> None:
    found = broken_before(f"{ended}\n")
    assert found is not None
    assert found.limit == limit


@pytest.mark.parametrize("ended", ["", "success 0", "signal KILL", "exit-code 1"])
def test_other_ends_are_no_limit_s(ended: str) -> None:
    assert broken_before(ended) is None


def test_one_that_the_kernel_killed_for_memory_stays_stopped_until_it_is_started_again(
    mine: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(CLASS.format(code="pass"))
    state = mine.directory / "strategy"
    state.mkdir(exist_ok=True)
    (state / "ended").write_text("oom-kill KILL\n")
    mine.start("strategy")
    mine.wait(lambda: mine.health("strategy").get("state") == "stopped", "the strategy stopped")
    assert "want of memory" in str(mine.health("strategy")["reason"])
    assert broken_figure(mine) == {"memory": 1}
    assert mine.stop("strategy") == 0
    (state / "ended").write_text("success 0\n")
    mine.start_ready("strategy")
    assert broken_figure(mine) == {}
