"""What our report says of calls that fail in Ansible: a real run, on hosts whose tool is a script."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
ASKED = {"name": "Plan", "hosts": "all,!gone", "gather_facts": False}
LEFT = {"name": "Put back", "hosts": "stays", "gather_facts": False, "vars": {"release_failure": "confirm"}}
CONFIRMED = {"name": "Confirm the gateway", "hosts": "gone", "gather_facts": False}
PLAYS = [
    {
        **play,
        "tasks": [
            {"name": tasks, "ansible.builtin.include_role": {"name": "release", "tasks_from": tasks}}
            for tasks in of_play
        ],
    }
    for play, of_play in (
        (ASKED, ("observe.yml", "undo.yml")),
        (CONFIRMED, ("windows/confirm_anew.yml",)),
        (LEFT, ("put_back.yml",)),
    )
]
DAMAGED = {"error": {"message": "state.json cannot be used: not JSON", "remedy": "put a backup back"}}
FINE = """{"services": {"gateway": {"current": "0001-a", "version": "1"}}}"""
TOOLS = {
    "damaged": f"echo '{json.dumps(DAMAGED)}'; exit 1",
    "crashes": "echo 'Traceback (most recent call last):' >&2; echo 'zlib.error: bad data' >&2; exit 1",
    "talks": "echo hello",
    # Good in the tool's eyes, but the task that asked cannot go on with it.
    "vague": f"""[ "$1" = status ] && echo '{FINE}' || echo '{{"services": {{}}}}'""",
    "stays": f"""case $1 in status) echo '{FINE}';; undo) echo '{{"services": {{}}, "changed": false}}';;
        *) echo '{json.dumps(DAMAGED)}'; exit 1;; esac""",
    "good": f"""[ "$1" = status ] && echo '{FINE}' || echo '{{"services": {{}}, "changed": false}}'""",
}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The record that the run kept."""
    place = tmp_path_factory.mktemp("fleet")
    for host, script in TOOLS.items():
        tool = place / host / "mt5crs-release"
        tool.parent.mkdir()
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    nowhere = {"ansible_connection": "ssh", "ansible_shell_type": "powershell", "ansible_port": 1}
    gone = {"ansible_host": "127.0.0.1", **nowhere}
    hosts = {"all": {"hosts": {**dict.fromkeys(TOOLS), "gone": gone}, "vars": local}}
    (place / "unittest.yml").write_text(yaml.safe_dump(hosts))
    (place / "site.yml").write_text(yaml.safe_dump(PLAYS))
    (place / "password").write_text("none is needed")
    known = {
        "_release_tool": f"{place}/{{{{ inventory_hostname }}}}/mt5crs-release",
        "_release_windows_tool": ["python.exe", "mt5crs-release.pyz"],
        "release_provisional": {"gateway": "0001-a"},
        "release_service": "gateway",
        "release_deployment": "",
        "release_undo_step": "ask",
    }
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(place / "unittest.yml"), str(place / "site.yml"), "-e", json.dumps(known)),
        ],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(place / "password")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    kept = re.search(r"^report: (\S+)/report\.html$", done.stdout, re.MULTILINE)
    assert kept, done.stdout + done.stderr
    directory = PROJECT / kept[1]
    yield json.loads((directory / "record.json").read_text())
    shutil.rmtree(directory)


def test_a_host_that_cannot_say_what_runs_is_a_failure_of_the_run(record: dict[str, Any]) -> None:
    told = {failure["host"]: failure for failure in record["failures"]}
    assert record["outcome"] == "failed"
    assert (told["damaged"]["message"], told["damaged"]["remedy"]) == tuple(DAMAGED["error"].values())
    assert "zlib.error: bad data" in told["crashes"]["message"]
    assert "hello" in told["talks"]["message"]
    for host in ("damaged", "crashes", "talks"):
        assert told[host]["step"] == "ask what runs"
    for host in ("crashes", "talks"):
        assert "did not say what runs" in told[host]["message"]
        assert "mt5crs-release status" in told[host]["remedy"]
    assert [phase["failed"] for phase in record["phases"]] == [4, 1, 1]


def test_a_call_that_ansible_alone_takes_for_failed_is_one_as_well(record: dict[str, Any]) -> None:
    (failure,) = [failure for failure in record["failures"] if failure["host"] == "vague"]
    assert failure["step"] == "release : Ask for the way back"
    assert "changed" in failure["message"]
    assert failure["remedy"]


def test_a_windows_host_that_is_lost_while_it_confirms_has_failed(record: dict[str, Any]) -> None:
    (failure,) = [failure for failure in record["failures"] if failure["host"] == "gone"]
    assert failure["step"] == "release : Confirm gateway"
    # ssh ends before or after Ansible has given it the module; nothing else may be told.
    assert re.search(r"Connection refused|could not be sent to remote host", failure["message"])
    assert failure["remedy"] == "check the host and the network"


def test_each_host_fails_once_and_what_is_good_does_not(record: dict[str, Any]) -> None:
    assert sorted(failure["host"] for failure in record["failures"]) == sorted({*TOOLS, "gone"} - {"good"})
    assert {service["host"] for service in record["services"]} == {"good", "stays", "vague"}


def test_what_could_not_be_put_back_is_told_as_what_runs(record: dict[str, Any]) -> None:
    (service,) = [service for service in record["services"] if service["host"] == "stays"]
    assert (service["state"], service["version"]) == ("provisional", "1")
    (failure,) = [failure for failure in record["failures"] if failure["host"] == "stays"]
    assert failure["step"] == "put back gateway"
