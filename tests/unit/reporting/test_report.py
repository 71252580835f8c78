"""What people are told at the end of a run, and what is kept."""

import json
from pathlib import Path

import pytest

from deploy.reporting import report
from deploy.reporting.report_page import services
from deploy.rollout.record import Failure, Phase, Rollout, failure_of


def rollout(engine: str = "pyinfra", action: str = "deploy") -> Rollout:
    made = Rollout(engine, "lab", action=action, who="eve", command=f"{engine} -y inventory/lab.py deploy.py")
    made.seconds = 12.3
    for service, host in (("strategy", "inf-01"), ("gateway", "gtw-01"), ("reconciler", "inf-01")):
        entry = made.result(host, service)
        entry.generation = "0002-abc"
    return made


def test_unchanged() -> None:
    text = report.verdict(rollout())
    assert "nothing to do" in text
    assert "make verify INVENTORY=inventory/lab.yml" in text


def test_changed_and_rolled_back() -> None:
    made = rollout()
    made.result("gtw-01", "gateway").changed = True
    assert "lab deployed in 12.3 s" in report.verdict(made)
    made.action = "rollback"
    assert "lab rolled back" in report.verdict(made)


def test_checked_names_the_command_that_does_it() -> None:
    made = rollout("ansible")
    made.dry = True
    assert "nothing was changed" in report.verdict(made)
    assert "ansible-playbook -i inventory/lab.yml site.yml" in report.verdict(made)


def test_interrupted_says_what_becomes_of_it() -> None:
    made = rollout()
    made.interrupted = True
    assert made.failed
    made.result("inf-01", "reconciler").state = "provisional"
    assert "goes back by itself: reconciler on inf-01" in report.verdict(made)
    made.result("inf-01", "reconciler").state = "reverted"
    made.put_back.append("reconciler on inf-01")
    assert "put back: reconciler on inf-01. Nothing waits" in report.verdict(made)


def test_failure_says_where_why_journal_put_back_and_remedy() -> None:
    made = rollout()
    answer = {
        "error": {"kind": "failed", "message": "not healthy", "remedy": "read the journal"},
        "journal": [f"line {number}" for number in range(30)],
    }
    made.fail(failure_of("inf-01", "activate reconciler", answer, ""))
    made.put_back.append("gateway on gtw-01")
    text = report.failure_text(made.failures[0])
    for expected in ("FAILED  inf-01: activate reconciler", "not healthy", "line 29", "read the journal"):
        assert expected in text
    assert "line 3\n" not in text
    assert "put back: gateway on gtw-01" in report.verdict(made)
    assert made.outcome == "failed"


def test_failure_without_json_keeps_the_last_line() -> None:
    failure = failure_of("inf-01", "stage strategy", None, "first\nsudo: a password is required\n\n")
    assert failure.message == "sudo: a password is required"
    assert failure.remedy


def test_services_are_put_back_last_first() -> None:
    made = rollout()
    for (host, _), entry in made.results.items():
        if host == "inf-01":
            entry.state = "provisional"
    assert [entry.service for entry in made.touched("inf-01")] == ["strategy", "reconciler"]
    assert made.touched("gtw-01") == []


@pytest.mark.parametrize(("state", "step"), [("staged", "activate"), ("provisional", "confirm")])
def test_a_run_that_left_a_service_half_done_has_failed(state: str, step: str) -> None:
    run = Rollout("pyinfra", "lab")
    run.result("inf-01", "reconciler").state = state
    run.result("inf-02", "reconciler").state = "confirmed"
    run.require_complete()
    assert [(failure.host, failure.step) for failure in run.failures] == [("inf-01", f"{step} reconciler")]
    looking = Rollout("pyinfra", "lab", dry=True)
    looking.result("inf-01", "reconciler").state = state
    looking.require_complete()
    assert not looking.failed


def test_table_is_in_the_order_of_activation() -> None:
    rows = [line.split()[:2] for line in report.table(rollout()).splitlines()[2:]]
    assert rows == [["gtw-01", "gateway"], ["inf-01", "reconciler"], ["inf-01", "strategy"]]


def test_a_run_that_only_looks_shows_what_the_next_would_do() -> None:
    told = {"inf-01": {"strategy": "would change", "reconciler": "would start"}}
    looking = Rollout("pyinfra", "lab", dry=True)
    looking.seen("inf-01", {"services": {"strategy": {"current": "0003-aa"}}})
    looking.foretell(told)
    assert [line.split()[1:5] for line in report.table(looking).splitlines()[2:]] == [
        ["reconciler", "-", "would", "start"],
        ["strategy", "0003-aa", "would", "change"],
    ]
    acting = Rollout("pyinfra", "lab")
    acting.foretell(told)
    assert not acting.results, "what is done is told by who does it"


def test_phase_lines() -> None:
    assert "1 host " in report.phase_line(Phase("Stage gateway", 1, 1, 0.5))
    assert "unchanged" in report.phase_line(Phase("Baseline", 4, 0, 0.5))
    assert "1 failed" in report.phase_line(Phase("Activate", 4, 2, 0.5, failed=1))
    assert "not begun" in report.phase_line(Phase("Confirm", 4, 0, 0.5, skipped=True))


def test_record_and_report_are_kept(tmp_path: Path) -> None:
    made = rollout()
    made.phases.append(Phase("Baseline", 4, 1, 2.0))
    made.fail(Failure("gtw-01", "activate gateway", "no", "do", ("a", "b")))
    directory = report.write(made, tmp_path)
    record = json.loads((directory / "record.json").read_text())
    assert record["outcome"] == "failed"
    assert record["who"] == "eve"
    assert record["failures"][0]["journal"] == ["a", "b"]
    assert [entry["service"] for entry in record["services"]] == ["gateway", "reconciler", "strategy"]
    assert made.id.startswith(directory.name.rpartition("-")[2])
    assert "gtw-01: activate gateway" in (directory / "report.html").read_text()


def test_spans_carry_what_the_release_tool_told() -> None:
    made = rollout()
    cutover = {"mt5crs-strategy.service": {"gap_s": 0.31, "stopped_s": 0.1}}
    answer = {"cutover": cutover, "health": {"outcome": "healthy"}, "standby": "not an object"}
    made.spent("inf-01", "strategy", "activate", made.began + 2.0, "changed", answer, until=made.began + 3.5)
    made.spent("gtw-01", "", "baseline", made.began - 1.0, "unchanged", until=made.began + 1.0)
    first, second = made.record()["spans"]
    assert (first["host"], first["step"], first["began"], first["seconds"]) == (
        "gtw-01",
        "baseline",
        0.0,
        2.0,
    )
    assert (second["began"], second["seconds"]) == (2.0, 1.5)
    assert second["cutover"] == cutover
    assert second["standby"] is None


def test_what_ran_before_is_noted_once() -> None:
    made = Rollout("pyinfra", "lab")
    made.seen("inf-01", {"services": {"strategy": {"current": "0001-a", "version": "1.0", "previous": None}}})
    made.result("inf-01", "strategy").version = "1.1"
    made.seen("inf-01", {"services": {"strategy": {"current": "0002-b", "version": "1.1"}}})
    entry = made.record()["services"][0]
    assert (entry["generation"], entry["previous_version"], entry["version"]) == ("0001-a", "1.0", "1.1")


def test_the_page_escapes_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    made = rollout()
    made.why = "<script>alert(1)</script>"
    made.spent("inf-01", "strategy", "put back", made.began + 3.0, "changed", until=made.began + 6.15)
    made.spent("inf-01", "reconciler", "activate", made.began, "failed", until=made.began + 3.0)
    text = (report.write(made, tmp_path) / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not any(word in text for word in ("http:", "https:", "src=", "url(", "@import"))
    assert 'class="bar failed" style="left:0.0%;width:24.39%' in text
    assert 'class="bar put-back" style="left:24.39%;width:25.61%' in text


def test_the_page_tells_how_long_a_service_was_away() -> None:
    made = rollout()
    cutover = {"a.service": {"gap_s": 0.31, "stopped_s": 0.1}, "b.service": {"gap_s": 0.52, "stopped_s": 0.5}}
    made.spent("inf-01", "strategy", "activate", made.began, "changed", {"cutover": cutover})
    gaps = {(row["host"], row["service"]): row["gap"] for row in services(made.record())}
    assert gaps["inf-01", "strategy"] == "0.52 s"
    assert gaps["inf-01", "reconciler"] == ""
