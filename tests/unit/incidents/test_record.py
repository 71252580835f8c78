"""An incident's report follows from the records; what they do not tell is said."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.incidents import monthly, on_hub, record
from deploy.remote import ssh

OPENED = 1_800_000_000.0


def made(**of: Any) -> dict[str, Any]:
    return {
        "id": "20270115-0800-abcd",
        "priority": "P0",
        "state": "open",
        "what": "quotes | froze",
        "by": "alice",
        "opened": OPENED,
        "closed": None,
        "root_cause": "",
        "acts": [{"at": OPENED, "what": "opened by alice: quotes froze"}],
        **of,
    }


def at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(OPENED + seconds))


TOLD: dict[str, dict[str, Any]] = {
    "gtw-01": {
        "acts": {
            "value": [
                {
                    "at_msc": (OPENED + 4) * 1000,
                    "act": "halt",
                    "magic": 0,
                    "client": "ops",
                    "reason": "quotes froze",
                }
            ]
        }
    },
    "hub-01": {
        "alerts": {
            "value": [
                {
                    "alertname": "Mt5crsTerminalDown",
                    "host": "gtw-01",
                    "severity": "critical",
                    "first": OPENED - 20,
                    "last": OPENED + 100,
                },
                {
                    "alertname": "Mt5crsDiskFull",
                    "host": "",
                    "severity": "warning",
                    "first": 1.0,
                    "last": OPENED,
                },
            ]
        },
        "deployments": {
            "value": [
                {"started": at(-600), "action": "deploy", "who": "bob", "outcome": "changed"},
                {"started": at(-7200), "action": "deploy", "who": "eve", "outcome": "changed"},
                {"started": at(-60), "action": "rollback", "who": "bob", "outcome": "changed"},
            ]
        },
    },
}


def test_the_time_line_is_of_all_records_in_order() -> None:
    events = record.timeline(made(), TOLD, "hub-01")
    assert [each.at for each in events] == sorted(each.at for each in events)
    assert {each.source for each in events} == {"incident", "gateway gtw-01", "Prometheus", "deployments"}
    words = record.report(made(), events, record.figures(made(), TOLD, "hub-01"), [])
    assert "halt of everything at gtw-01 by ops: quotes froze" in words
    assert "quotes \\| froze" not in words.split("## Time line")[0]
    assert record.TO_FILL_IN in words
    assert "## Not known" not in words


def test_figures_are_told_and_unknown_ones_are_no_zero() -> None:
    open_one = record.figures(made(), TOLD, "hub-01")
    assert (open_one.detection_s, open_one.halted_s, open_one.recovery_s) == (20.0, 24.0, None)
    closed = record.figures(made(closed=OPENED + 900), TOLD, "hub-01")
    assert closed.recovery_s == 120.0
    nothing = record.figures(made(), {}, "hub-01")
    assert (nothing.began, nothing.detection_s, nothing.halted_s, nothing.recovery_s) == (None,) * 4
    words = record.report(made(), [], nothing, record.unknown({}, ["gtw-01"], "hub-01"))
    assert "| from then to its opening | unknown |" in words
    assert "unknown: none is recorded" in words
    assert "- acts of gtw-01:" in words


def test_what_a_record_does_not_tell_is_named() -> None:
    told = {**TOLD, "gtw-01": {"error": "no route to host"}}
    assert record.unknown(told, ["gtw-01"], "hub-01") == ["acts of gtw-01: no route to host"]
    broken = {**TOLD, "hub-01": {**TOLD["hub-01"], "alerts": {"error": "Prometheus is down"}}}
    assert record.unknown(broken, ["gtw-01"], "hub-01") == ["alerts of hub-01: Prometheus is down"]


def test_the_deployment_that_it_may_come_from() -> None:
    of = TOLD["hub-01"]["deployments"]["value"]
    found = record.suspect(of, OPENED)
    assert found is not None
    assert found["who"] == "bob"
    assert record.suspect(of, OPENED + 7200) is None
    assert record.suspect([{"started": "", "action": "deploy"}], OPENED) is None


def test_incidents_are_kept_newest_first_and_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "incidents.json"
    assert on_hub.kept(path, None) == []
    on_hub.kept(path, made())
    on_hub.kept(path, made(id="later", opened=OPENED + 1))
    on_hub.kept(path, made(state="closed"))
    assert [(each["id"][:5], each["state"]) for each in on_hub.kept(path, None)] == [
        ("later", "open"),
        ("20270", "closed"),
    ]
    assert path.stat().st_mode & 0o777 == 0o644


def test_who_was_not_told_is_said() -> None:
    posted: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert on_hub.tell(url, {"labels": {"alertname": "Mt5crsIncident"}}) == ""
    finally:
        server.shutdown()
        server.server_close()
    assert posted == [[{"labels": {"alertname": "Mt5crsIncident"}}]]
    assert on_hub.tell(url, {}).startswith("Alertmanager did not take it")


def test_a_month_is_asked_for_on_the_hub_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = [b'{"levels": {}}', b"[]", b"<html>"]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers.pop(0))

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    def here(_variables: object, command: list[str], **_options: object) -> ssh.Reply:
        ran = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False)
        return ssh.Reply(ran.returncode, ran.stdout, ran.stderr)

    monkeypatch.setattr(ssh, "run", here)
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub = {"fleet_address": "127.0.0.1", "hub_http_port": server.server_address[1]}
    try:
        assert monthly.asked(hub, "202611") == {"levels": {}}
        assert asked == ["/api/levels?month=202611"]
        for _ in range(2):
            with pytest.raises(monthly.NoLevelsError, match="no usable answer"):
                monthly.asked(hub, "202611")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(monthly.NoLevelsError, match=r"refused.*look whether mt5crs-hub runs"):
        monthly.asked(hub, "202611")
    monkeypatch.setattr(ssh, "run", lambda *_words, **_options: ssh.Reply(None, "", "no route"))
    with pytest.raises(monthly.NoLevelsError, match="cannot be reached: no route"):
        monthly.asked(hub, "202611")


def test_a_month_in_words_says_what_has_no_data_and_what_was_missed() -> None:
    level = {"target": "> 99", "definition": "d"}
    words = monthly.text(
        {
            "environment": "lab",
            "since": OPENED,
            "until": OPENED + 86_400,
            "levels": {
                "availability_percent": {**level, "no_data": "nobody looked"},
                "deployment_success_percent": {**level, "value": 50.0, "of": 4, "met": False, "partly": "p"},
            },
            "incidents": [made()],
        }
    )
    assert "no data  > 99      nobody looked" in words
    assert "50  > 99      MISSED, 4; p" in words
    assert "root cause: to be filled in" in words
    assert monthly.stamp(monthly.first_of_this(OPENED)) == "2027-01-01T00:00:00Z"
