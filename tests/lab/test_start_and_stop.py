"""A magic number is stopped and started on a fleet, with the command and with both engines."""

from __future__ import annotations

import json

import pytest

from lab.handle import wait_until
from tests.lab.engines import Fleet
from tests.lab.test_operator import findings, operate

MAGIC = "202401"
pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.mark.slow(reason="a preflight and a backup of all hosts each; the unit tests start at a real gateway")
def test_a_magic_number_is_stopped_and_started_and_its_run_is_told(fleet: Fleet) -> None:
    seen: list[object] = []

    def go() -> bool:
        seen.append(findings(operate(fleet, "preflight", "--json"), stopping=True))
        return not seen[-1]

    wait_until(go, 330, "GO", seen=lambda: seen[-1])  # alerts of an earlier test are told for five minutes
    stopped = fleet.pyinfra(
        *("--data", "do=stop", "--data", f"magic={MAGIC}", "--data", "why=end of the week"), file="operate.py"
    )
    assert "gtw-01: stopped, HALTED" in stopped.output, stopped.output
    told = ("-e", f"magic={MAGIC}", "-e", "yes=true")
    started = fleet.playbook("operate.yml", "--tags", "start", *told)
    assert started.status == 0, started.output
    assert f"{MAGIC} trades" in started.output
    again = operate(fleet, "start", "--magic", MAGIC, "--yes")
    assert (again.returncode, "trades already" in again.stdout) == (0, True), again.stdout + again.stderr
    try:
        ended = operate(fleet, "stop", "--magic", MAGIC, "--reason", "drill", "--json")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        report = json.loads(ended.stdout)
        assert 0 < report["run"]["value"]["seconds"] < 300
        assert "no_data" not in report["money"]["gtw-01"], "unknown is no zero"
        acts = [one["act"] for one in report["acts"]["gtw-01"]["value"]]
        assert acts == ["resume", "halt"]
        taken = operate(fleet, "withdraw", "--magic", MAGIC, "--reason", "drill")
        assert taken.returncode == 0, taken.stdout + taken.stderr
        refused = operate(fleet, "start", "--magic", MAGIC, "--yes")
        assert (refused.returncode, "trading was withdrawn" in refused.stderr) == (1, True), refused.stderr
    finally:
        for words in (("phase", "activate"), ("resume",)):
            assert operate(fleet, *words, "--magic", MAGIC, "--reason", "drill").returncode == 0
