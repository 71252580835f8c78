"""A strategy that takes what it may not, on a real host: it is stopped and told, and the rest goes on."""

from __future__ import annotations

import json
import re
from errno import EACCES, EPERM
from pathlib import Path

import pytest

from deploy.bundle import strategy_bundle, strategy_definition
from lab.handle import wait_until
from lab.state import PROJECT
from mt5crs.develop import project
from tests.lab.engines import Fleet
from tests.lab.units_and_alerts import Unit, alerts

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600),
    pytest.mark.slow(reason="what is decided and refused is tried in tests/unit/strategy/test_limits.py"),
]

HOST, STATE = "inf-01", "/var/lib/mt5crs/strategy"
GREEDY = '''
"""Does what a file in its working directory says."""
from pathlib import Path
from mt5crs.strategy.api import Strategy

class Greedy(Strategy):
    def on_timer(self, trading):
        act = Path("act")
        if act.exists():
            code = act.read_text()
            act.unlink()
            exec(code, {"kept": []})
'''
THREADS = """
import threading, time
for _ in range(60): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
time.sleep(5)
"""
AT_ONCE = """
# As much of the host's memory as the unit may have; what the interpreter takes comes on top.
import time
total = int(open("/proc/meminfo").readline().split()[1]) * 1024
kept.append(b"x" * (total // 20))
time.sleep(9)
"""
FILES = """
import time
try:
    while True: kept.append(open('/dev/null'))
except OSError: time.sleep(3)
"""
BREAKS = {
    "memory, a little more each time": (
        "import time\nwhile True: kept.append(b'x' * 2**20 * 8); time.sleep(0.005)",
        "memory",
    ),
    "memory, all at once": (AT_ONCE, "memory"),
    "threads": (THREADS, "threads"),
    "files": (FILES, "files"),
    "a callback that hangs": ("while True: pass", "callback"),
    "code in C that hangs": ("import re; re.match('(a|a)*b', 'a' * 60)", "callback"),
    "a fork": ("import os; os.fork()", "process"),
    "a program": ("import subprocess; subprocess.run(['/bin/true'])", "process"),
    "a connection": ("import socket; socket.create_connection(('192.0.2.1', 80), 2)", "network"),
    "a port": ("import socket; socket.socket().bind(('0.0.0.0', 7777))", "network"),
    "writing": ("open('/opt/mt5crs/strategy/current/manifest.json', 'a')", "write"),
}
BY_THE_KERNEL = """
# As code in C would: nothing of Python hears of it.
import ctypes, json, os, struct
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *given):
    return ctypes.get_errno() if call(*given) < 0 else 0
def address(host, port):
    return struct.pack("=H", 2) + struct.pack("!H4B8x", port, *map(int, host.split(".")))
def sent(host):
    return refused(libc.sendto, libc.socket(2, 2, 0), b"x", 1, 0, address(host, 53), 16)
found = {
    "fork": refused(libc.fork),
    "bind": refused(libc.bind, libc.socket(2, 1, 0), address("0.0.0.0", 7777), 16),
    "open": refused(libc.open, b"/opt/mt5crs/strategy/current/manifest.json", os.O_WRONLY),
    "to a host": sent("HOST"),
    "to the gateway": sent("GATEWAY"),
}
Path("found.new").write_text(json.dumps(found))
Path("found.new").rename("found")
"""
REFUSED = {"fork": EPERM, "bind": EPERM, "open": EACCES, "to a host": EPERM, "to the gateway": 0}


def health(fleet: Fleet) -> str:
    """What the command of the host says of its strategy."""
    current = "/opt/mt5crs/strategy/current"
    command = [f"{current}/venv/bin/mt5crs", "health", "strategy", "--env-file", f"{current}/.env"]
    return fleet.lab.exec(HOST, command, check=False).stdout


def act(fleet: Fleet, code: str) -> None:
    """Have the strategy run this at its next timer."""
    write = f"cat >{STATE}/new && chown mt5crs: {STATE}/new && mv {STATE}/new {STATE}/act"
    fleet.lab.exec(HOST, ["sh", "-c", write], input_text=code)


def test_a_strategy_that_takes_too_much_is_stopped_and_the_rest_goes_on(fleet: Fleet, tmp_path: Path) -> None:
    project.make("greedy", tmp_path)
    (tmp_path / "greedy/src/greedy/__init__.py").write_text(GREEDY)
    built = strategy_bundle.build(strategy_definition.read("greedy", tmp_path), PROJECT / "dist")
    fleet.override(
        strategy_bundle=str(built["file"])[len("strategy-") : -len(".tar")],
        strategy_strategy="greedy",
        strategy_tick_interval_s=0.2,
        strategy_memory_percent=5,
        strategy_threads=40,
        strategy_open_files=100,
        strategy_order_timeout_s=1.0,
        strategy_callback_limit_s=12.0,
    )
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]
    others = {key: pid for key, pid in fleet.pids().items() if key != (HOST, "strategy")}
    unit = Unit(fleet.lab, HOST, "mt5crs-strategy.service")

    address = {host.name: host.address for host in fleet.plan.hosts}
    act(fleet, BY_THE_KERNEL.replace("HOST", address["inf-02"]).replace("GATEWAY", address["gtw-01"]))

    def found() -> str:
        return fleet.lab.exec(HOST, ["cat", f"{STATE}/found"], check=False).stdout

    wait_until(lambda: bool(found()), 30, "what the kernel refuses", seen=lambda: health(fleet))
    assert json.loads(found()) == REFUSED
    assert "strategy ready" in health(fleet)

    for what, (code, limit) in BREAKS.items():
        act(fleet, code)
        wait_until(lambda: "stopped" in health(fleet), 60, f"stopped for {what}", seen=lambda: health(fleet))
        said = health(fleet)
        assert f"it broke its limit {limit}: " in said, (what, said)
        status = fleet.lab.exec(HOST, ["systemctl", "status", "mt5crs-strategy"], check=False).stdout
        assert re.search(rf'Status: "stopped for its limit {limit}: ', status), status
        assert unit.state() == "active"
        journal = fleet.lab.exec(
            HOST, ["journalctl", "-u", "mt5crs-strategy", "-n", "30", "-o", "cat"]
        ).stdout
        assert '"event":"strategy.stopped"' in journal
        print(f"{what}: {said.strip()}")
        if what == "memory, all at once":
            wait_until(lambda: ("Mt5crsStrategyLimit", HOST) in alerts(fleet.lab), 60, "the alert")
        fleet.lab.exec(HOST, ["systemctl", "restart", "mt5crs-strategy"])
        wait_until(
            lambda: "strategy ready" in health(fleet), 30, "the strategy again", seen=lambda: health(fleet)
        )
    now = {key: pid for key, pid in fleet.pids().items() if key != (HOST, "strategy")}
    assert now == others
    assert fleet.running()
