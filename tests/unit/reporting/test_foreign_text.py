"""What a hostile host answers steers no terminal, is no line of ours, and ends no run with a traceback."""

import io
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.coordination import alerts
from deploy.remote.release_call import document_of, not_told
from deploy.remote.ssh import Reply
from deploy.reporting import report
from deploy.reporting.report_page import page
from deploy.rollout.answer import ToolAnswer, apply
from deploy.rollout.record import Failure, Rollout, failure_of
from mt5crs.foreign_text import SafeStream, safe, shown, shown_tree
from mt5crs.service.logs import Log

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b1A\r\u202egood\u2066 \ud800 <script>\n  hub-01  confirmed"
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def answer(**more: Any) -> str:
    """What a host says; JSON hides every character in it until it is read."""
    return json.dumps(
        {"generation": HOSTILE, "version": HOSTILE, "state": HOSTILE, "changes": [HOSTILE], **more}
    )


def attacked() -> Rollout:
    """A run in which a host lies wherever it can."""
    rollout = Rollout("pyinfra", "lab")
    refused = document_of(
        answer(error={"message": HOSTILE, "remedy": HOSTILE}, journal=[HOSTILE], health={"reason": HOSTILE})
    )
    assert refused is not None
    rollout.fail(failure_of("inf-01", "stage strategy", refused, ""))
    rollout.fail(failure_of("inf-02", "stage strategy", None, HOSTILE))
    rollout.fail(not_told("inf-03", None, HOSTILE))
    rollout.fail(Failure("inf-04", "stage", Reply(1, "", HOSTILE).why))
    apply(rollout, ToolAnswer("inf-01", "rollback", "strategy", True, refused))
    rollout.seen("inf-02", {"services": {"gateway": {"current": shown(HOSTILE)}}})
    rollout.put_back.append(f"strategy on inf-01: {HOSTILE}")
    return rollout


def test_nothing_of_it_reaches_terminal_record_or_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "REPORTS", tmp_path)
    rollout = attacked()
    report.finish(rollout)
    printed = capsys.readouterr()
    record = json.loads(next(tmp_path.glob("*/record.json")).read_text())
    html = next(tmp_path.glob("*/report.html")).read_text()
    for text in (printed.out, printed.err, html, *texts(record), page(rollout.record())):
        assert not STEERS.search(text), ascii(STEERS.search(text))
    assert "<script>" not in html
    assert "\\x1b]0;owned" in printed.out
    assert not re.search(r"^ {0,2}hub-01  confirmed", printed.out, re.MULTILINE)


def texts(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in texts(each)]


@pytest.mark.parametrize(
    "lie",
    [
        {"services": []},
        {"services": {"gateway": "running"}},
        {"services": {"gateway": {"current": 7}}},
        {"services": {"gateway": {"units": ["a"]}}},
        {"deployment": 7},
        {"error": "no"},
        {"seconds": "long"},
        {"changes": "code"},
        {"journal": {"a": 1}},
        {"health": []},
    ],
    ids=str,
)
def test_an_answer_that_no_release_tool_gives_is_none(lie: dict[str, Any]) -> None:
    assert document_of(json.dumps({"format": 1, **lie})) is None
    failure = not_told("inf-01", document_of(json.dumps(lie)), json.dumps(lie))
    assert failure.message.startswith("the release tool did not say what runs")


def test_endless_nesting_is_no_answer() -> None:
    assert document_of('{"a":' * 100_000) is None
    with pytest.raises(alerts.UnknownError):
        alerts.read('{"status":"success","data":[1]}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("services", "deployment", "error", "generation", "changes", "journal", "health", "cutover", "seconds")


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5))
@settings(max_examples=150)
def test_whatever_a_host_answers_is_recorded_without_a_traceback(lie: dict[str, Any]) -> None:
    rollout = Rollout("ansible", "lab")
    told = document_of(json.dumps(lie))
    rollout.fail(failure_of("inf-01", "stage strategy", told, json.dumps(lie)))
    if told is not None:
        rollout.seen("inf-01", told)
        apply(rollout, ToolAnswer("inf-01", "rollback", "strategy", True, told))
    assert report.table(rollout) is not None
    assert page(rollout.record())


@given(st.text(alphabet=st.characters(), max_size=50))
@settings(max_examples=200)
def test_what_is_shown_is_printable_and_stays_so(text: str) -> None:
    once = shown(text)
    assert once.replace("\t", "").isprintable()
    assert shown(once) == once
    assert shown_tree({text: [text]}) == {shown(text, lines=True): [shown(text, lines=True)]}


def test_colours_of_our_own_get_through_and_nothing_else_does() -> None:
    written = io.StringIO()
    stream = safe(safe(written))
    assert isinstance(stream, SafeStream)
    stream.write(f"\x1b[1;31mFAILED\x1b[0m {HOSTILE}\n")
    told = written.getvalue()
    assert told.startswith("\x1b[1;31mFAILED\x1b[0m ")
    assert not STEERS.search(told.replace("\x1b[1;31m", "").replace("\x1b[0m", ""))


def test_the_journal_gets_no_control_character() -> None:
    written = io.StringIO()
    Log("gateway", stream=written).warning("refused", message=HOSTILE, client=cast(object, HOSTILE))
    assert written.getvalue().rstrip("\n").isascii()
    assert not STEERS.search(written.getvalue())
