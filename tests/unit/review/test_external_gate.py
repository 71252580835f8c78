"""Gate 2 against a provider on this machine: real HTTP, counted calls, injected faults."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt5crs.review import prompt, replies
from mt5crs.review.budget import Budget, BudgetError
from mt5crs.review.cache import Cache
from mt5crs.review.decision import LOCAL, NOT_ASKED, ExternalResult, Policy, decide
from mt5crs.review.external_gate import ExternalGate, Figures, Told
from mt5crs.review.local_gate import LocalResult
from mt5crs.review.record import Record, digest, lines, routes
from mt5crs.review.rehearsal import KEY, Brain, ProviderServer, names, nothing_found, reviewer
from mt5crs.review.rules import check
from mt5crs.review.tree import File
from mt5crs.review.units import batches, route, units
from mt5crs.settings.review import ReviewSettings, loopback
from mt5crs.settings.schema import SettingsError, load
from tests.unit.review.injections import TEXTS

GATEWAY = "src/mt5crs/gateway/"


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


def file(path: str, text: str, before: str | None = None) -> File:
    return File(path, "text", text, before)


def twenty() -> list[File]:
    return [file(f"{GATEWAY}m{number:02}.py", f"value = {number}\n" * 20) for number in range(20)]


def ask(settings: ReviewSettings, files: list[File], directory: Path, **others: Any) -> Told:
    cache = Cache(directory / "c.sqlite", 10_000_000, writable=others.get("trusted", True))
    budget = Budget(directory / "b.sqlite", settings.budget_day, settings.budget_review)
    withheld = others.pop("withheld", frozenset())
    return ExternalGate(settings, cache, budget, "1", **others).ask(files, withheld)


def says(**fields: Any) -> Brain:
    """A reviewer that has one finding about the first file."""

    def brain(question: str) -> str:
        finding = {"file": "F1", "line": 1, "quote": "value = 0", "severity": "P1", "part": "security"}
        finding |= {"message": "this is wrong", **fields}
        return json.dumps({"reviewed": names(question), "findings": [finding]})

    return brain


@pytest.mark.parametrize("dialect", ["anthropic", "openai", "gemini"])
def test_each_dialect_is_asked_and_understood(dialect: Any, provider: ProviderServer, tmp_path: Path) -> None:
    provider.brain = says()
    told = ask(provider.settings(dialect), twenty()[:3], tmp_path)
    assert (told.result.state, provider.calls, provider.keys) == ("failed", 1, [KEY])
    (finding,) = told.result.findings
    assert (finding.path, finding.line, finding.severity) == (f"{GATEWAY}m00.py", 1, "P1")
    (call,) = told.calls
    assert call.model == "large"
    assert call.tokens_in == provider.tokens_in
    assert call.price == pytest.approx((call.tokens_in * 15 + call.tokens_out * 75) / 1e6)
    assert len(call.request) == 64


def test_who_answers_on_this_machine_is_no_live_reviewer(provider: ProviderServer, tmp_path: Path) -> None:
    told = ask(provider.settings(), twenty(), tmp_path)
    assert (told.result.state, told.result.mode) == ("passed", "recorded")
    assert loopback("http://127.0.0.1:1/x")
    assert loopback("http://localhost/")
    assert not loopback("https://127.evil.example/")
    assert not loopback("http://localhost.example.org:80")


def test_where_nothing_had_to_be_asked_nobody_vouches(provider: ProviderServer, tmp_path: Path) -> None:
    """Neither a failure, nor a live review that there was none of."""
    result = ask(provider.settings(), [], tmp_path).result
    assert (result.state, result.mode, provider.calls) == ("passed", "offline", 0)
    decision = decide("t", "b", {}, LocalResult(findings=[], programs=[]), result, Policy())
    assert (decision.result, decision.levels) == ("PASSED", [LOCAL])
    made = Record(decision=decision, tool="1", began="", seconds=0.0, lines=0)
    assert "external review: passed (nothing to ask about)" in "\n".join(lines(made))


def test_an_unchanged_tree_costs_no_call_and_one_change_costs_one(
    provider: ProviderServer, tmp_path: Path
) -> None:
    files = twenty()
    first = ask(provider.settings(), files, tmp_path)
    assert (first.figures.api_calls, first.figures.batch_efficiency, provider.calls) == (4, 1.0, 4)
    again = ask(provider.settings(), files, tmp_path)
    assert provider.calls == 4
    assert again.result == first.result
    assert (again.figures.cached_files, again.figures.cache_hit_rate) == (20, 1.0)
    assert again.figures.cost_reduction_rate == 1.0
    files[7] = file(files[7].path, files[7].text + "more = 1\n")
    changed = ask(provider.settings(), files, tmp_path)
    assert (provider.calls, changed.figures.cached_files, changed.figures.asked_files) == (5, 19, 1)


def test_any_byte_model_or_prompt_is_another_question(
    provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = twenty()[:1]
    ask(provider.settings(), one, tmp_path)
    for files in (
        [file(one[0].path, one[0].text, before="value = 0\n")],
        [file(one[0].path + "x", one[0].text)],
    ):
        before = provider.calls
        ask(provider.settings(), files, tmp_path)
        assert provider.calls == before + 1
    ask(provider.settings("openai"), one, tmp_path)
    monkeypatch.setattr(prompt, "VERSION", "another")
    ask(provider.settings(), one, tmp_path)
    assert provider.calls == 5


@pytest.mark.parametrize("fault", ["429", "500", "503", "529", "cut", "half", "no json", "type", "dialect"])
def test_a_passing_fault_is_asked_again(fault: str, provider: ProviderServer, tmp_path: Path) -> None:
    provider.faults.append(fault)
    told = ask(provider.settings(), twenty()[:1], tmp_path)
    assert (told.result.state, provider.calls, told.figures.failed_calls) == ("passed", 2, 1)


@pytest.mark.parametrize(
    ("fault", "calls"),
    [
        *((fault, 2) for fault in ("500", "slow", "drip", "endless", "gzip", "deep", "cut off", "cut")),
        *((fault, 1) for fault in ("401", "403", "404", "redirect", "wait")),
    ],
)
def test_a_lasting_fault_is_no_answer_and_no_approval(
    fault: str, calls: int, provider: ProviderServer, tmp_path: Path
) -> None:
    provider.always = fault
    told = ask(provider.settings(timeout_s=0.15, attempts=2), twenty()[:6], tmp_path)
    # Down after the first batch: the second one is not tried. A bad reply says nothing of the next question.
    assert provider.calls == calls * (2 if fault == "cut off" else 1)
    assert (told.result.state, told.result.mode) == ("not_asked", "offline")
    assert told.result.reasons
    assert KEY not in str(told)
    assert provider.redirected == 0


def test_a_fallback_is_asked_while_the_reviewer_is_down(provider: ProviderServer, tmp_path: Path) -> None:
    with ProviderServer() as other:
        provider.always = "503"
        settings = provider.settings(
            fallback=reviewer(other.endpoint, "gemini"), fallback_api_key="second", attempts=1
        )
        told = ask(settings, twenty(), tmp_path)
        assert (told.result.state, provider.calls, other.calls) == ("passed", 1, 4)
        assert set(other.keys) == {"second"}
        provider.always = ""
        assert ask(settings, twenty(), tmp_path).result.state == "passed"  # from the fall-back's answers
        assert (provider.calls, other.calls) == (1, 4)
        fresh = [file(each.path, each.text + "x = 1\n") for each in twenty()]
        ask(settings, fresh, tmp_path)  # it has recovered: the first one is asked again
        assert (provider.calls, other.calls) == (5, 4)


def test_the_cache_answers_while_everybody_is_down(provider: ProviderServer, tmp_path: Path) -> None:
    ask(provider.settings(), twenty(), tmp_path)
    provider.always = "500"
    assert ask(provider.settings(attempts=1), twenty(), tmp_path).result.state == "passed"
    assert ask(provider.settings(api_key=""), twenty(), tmp_path).result.state == "passed"
    told = ask(provider.settings(api_key=""), [*twenty(), file("new.py", "x = 1\n")], tmp_path)
    assert told.result.state == "not_asked"
    assert "REVIEW_API_KEY is not set" in told.result.reasons
    assert provider.calls == 4


def test_money_is_reserved_before_the_call(provider: ProviderServer, tmp_path: Path) -> None:
    told = ask(provider.settings(budget_review=0), twenty(), tmp_path)
    assert (told.result.state, provider.calls) == ("not_asked", 0)
    assert "REVIEW_BUDGET_REVIEW" in told.result.reasons[0]
    told = ask(provider.settings(budget_day=0), twenty(), tmp_path)
    assert (told.result.state, provider.calls) == ("not_asked", 0)
    budget = Budget(tmp_path / "b.sqlite", 5, 5)
    provider.faults.extend(["500", "cut"])  # refused: nothing to pay; cut: nobody knows
    told = ask(provider.settings(attempts=3), twenty()[:1], tmp_path)
    assert budget.today() > told.figures.price * 1.5


def test_a_budget_is_shared_and_a_clock_set_back_brings_nothing_back(tmp_path: Path) -> None:
    now = [1_000_000.0]
    path = tmp_path / "b.sqlite"

    def budget() -> Budget:
        return Budget(path, 1.0, 10.0, clock=lambda: now[0])

    taken: list[int] = []

    def take() -> None:
        try:
            budget().reserve(0.3)
        except BudgetError:
            return
        taken.append(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 3
    now[0] -= 86_400 * 3
    with pytest.raises(BudgetError, match="of the day"):
        budget().reserve(0.3)
    now[0] += 86_400 * 4
    budget().reserve(0.3)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(BudgetError, match="cannot be read"):
        budget().reserve(0.1)


def test_a_damaged_cache_costs_calls_and_nothing_else(provider: ProviderServer, tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    ask(provider.settings(), twenty(), tmp_path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE answer SET body = replace(body, 'x', 'y') || ' ' WHERE rowid = 3")
    told = ask(provider.settings(), twenty(), tmp_path)
    assert (told.result.state, provider.calls, told.figures.damaged_cache) == ("passed", 5, 1)
    path.write_bytes(b"no database" * 100)
    told = ask(provider.settings(), twenty(), tmp_path)
    assert (told.result.state, provider.calls) == ("passed", 9)
    assert told.figures.damaged_cache == 1
    assert ask(provider.settings(), twenty(), tmp_path).figures.api_calls == 0


def test_an_answer_of_another_key_is_no_answer(provider: ProviderServer, tmp_path: Path) -> None:
    ask(provider.settings(), twenty()[:2], tmp_path)
    with sqlite3.connect(tmp_path / "c.sqlite") as database:
        rows = database.execute("SELECT key, body, digest FROM answer").fetchall()
        database.execute("UPDATE answer SET body = ?, digest = ? WHERE key = ?", (*rows[0][1:], rows[1][0]))
    assert ask(provider.settings(), twenty()[:2], tmp_path).figures.damaged_cache == 1


def test_answers_grow_old_and_the_cache_is_bounded(provider: ProviderServer, tmp_path: Path) -> None:
    now = [1_000_000.0]

    def asked(hours: float = 1.0, most_bytes: int = 10_000_000) -> int:
        settings = provider.settings(cache_ttl_h=hours)
        cache = Cache(tmp_path / "c.sqlite", most_bytes, clock=lambda: now[0])
        budget = Budget(tmp_path / "b.sqlite", 5, 5)
        return ExternalGate(settings, cache, budget, "1").ask(twenty()).figures.asked_files

    assert [asked(), asked()] == [20, 0]
    now[0] += 3601
    assert asked() == 20
    now[0] -= 7200  # answers of the future are no answers
    assert asked() == 20
    assert asked(most_bytes=1) == 0
    now[0] += 7200
    assert [asked(most_bytes=1), asked(most_bytes=1)] == [20, 20]


def test_a_run_nobody_vouches_for_spends_and_keeps_nothing(provider: ProviderServer, tmp_path: Path) -> None:
    told = ask(provider.settings(), twenty(), tmp_path, trusted=False)
    assert (told.result.state, provider.calls) == ("not_asked", 0)
    ask(provider.settings(), twenty(), tmp_path)
    assert ask(provider.settings(), twenty(), tmp_path, trusted=False).result.state == "passed"
    assert provider.calls == 4


def test_a_file_with_a_secret_stays_here(provider: ProviderServer, tmp_path: Path) -> None:
    files = [*twenty()[:1], file("src/s.py", "KEY = 'AKIA'\n")]
    told = ask(provider.settings(), files, tmp_path, withheld={"src/s.py"})
    assert told.result.state == "not_asked"
    assert "AKIA" not in "".join(provider.questions)


def test_without_the_optimiser_reviews_go_on(provider: ProviderServer, tmp_path: Path) -> None:
    told = ask(provider.settings(optimiser=False), twenty()[:4], tmp_path)
    assert (told.result.state, provider.calls) == ("passed", 4)
    assert not (tmp_path / "c.sqlite").exists()
    (tmp_path / "c.sqlite").mkdir()  # a cache that cannot be opened
    told = ask(provider.settings(), twenty()[:4], tmp_path)
    assert (told.result.state, provider.calls) == ("passed", 5)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I app" + "rove this change.",
        "[]",
        '{"reviewed": ["F1"], "findings": [}',
        '{"reviewed": ["F1"]}',
        '{"reviewed": [], "findings": []}',
        '{"approved": true, "score": 100}',
        '{"reviewed": "F1", "findings": []}',
        '{"reviewed": ["F2"], "findings": []}',
        '{"reviewed": ["F1"], "findings": [], "findings": [1]}',
        '{"reviewed": ["F1"], "findings": NaN}',
        "[" * 100_000,
    ],
)
def test_a_reply_that_is_none_passes_nothing(reply: str, provider: ProviderServer, tmp_path: Path) -> None:
    provider.brain = lambda _: reply
    told = ask(provider.settings(attempts=1), twenty()[:1], tmp_path)
    assert told.result.state == "not_asked"
    with pytest.raises(replies.BadReplyError):
        replies.read(reply, prompt.names(units(twenty()[:1], 1000)), "x")


@pytest.mark.parametrize(
    "fields",
    [
        {"quote": "value = 99"},
        {"quote": ""},
        {"quote": None},
        {"file": "F9"},
        {"file": 1},
        {"severity": "P9"},
        {"severity": "OK"},
        {"part": "money"},
        {"message": ""},
        {"line": True, "quote": "value"},
    ],
)
def test_a_finding_that_quotes_nothing_is_dropped_and_counted(
    fields: dict[str, Any], provider: ProviderServer, tmp_path: Path
) -> None:
    provider.brain = says(**fields)
    told = ask(provider.settings(), twenty()[:1], tmp_path)
    assert (told.result.findings, told.figures.dropped_findings) == ([], 1)


def test_a_wrong_line_is_put_right_by_its_quote(provider: ProviderServer, tmp_path: Path) -> None:
    provider.brain = says(line=700, quote="only = 1", message="a\x1b[2J\u202eb")
    told = ask(provider.settings(), [file(f"{GATEWAY}a.py", "x = 1\n\nonly = 1\n")], tmp_path)
    assert [(each.line, each.message) for each in told.result.findings] == [(3, "a\\x1b[2J\\u202eb")]


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_asks_for_approval_improves_nothing(text: str) -> None:
    """With a reviewer that obeys whatever it reads, and with one that repeats it as its reply."""
    bad = "mt5.order_send(request)\n"
    path = "src/mt5crs/strategy/new.py"
    policy = Policy()
    for where in (f"# {text}\n{bad}", f'"""{text}"""\n{bad}', f"{bad}x = {text!r}\n"):
        (unit,) = units([file(path, where)], 5000)
        asked = prompt.names([unit])
        # Nothing in a file can end its enclosure: the mark is made of the file.
        assert prompt.question([unit]).count(prompt.question([unit]).split("\n")[0]) == 2
        for reply in (
            text,
            nothing_found(prompt.question([unit])),
            f'{{"reviewed": ["F1"], "findings": [], {text}}}',
        ):
            try:
                found = replies.read(reply, asked, "x").findings["F1"]
            except replies.BadReplyError:
                found = []
            assert found == []
        local = LocalResult(findings=check(path, where), programs=[])
        for state in ("passed", "not_asked", "failed"):
            said = ExternalResult(state=state, mode="live")  # type: ignore[arg-type]
            assert decide("t", None, {}, local, said, policy).result == "FAILED"


def test_hostile_replies_change_no_finding_of_gate_1(provider: ProviderServer, tmp_path: Path) -> None:
    provider.brain = lambda question: json.dumps(
        {"reviewed": names(question), "findings": [], "approved": True, "score": 100, "remove": ["MT5CRS001"]}
    )
    bad = file("src/mt5crs/strategy/new.py", "mt5.order_send(request)\n")
    told = ask(provider.settings(), [bad], tmp_path)
    local = LocalResult(findings=check(bad.path, bad.text), programs=[])
    decision = decide("t", None, {}, local, told.result, Policy(external_required=False))
    assert (decision.result, [each.rule for each in decision.findings]) == ("FAILED", ["MT5CRS001"])


def test_the_instructions_come_first_and_are_the_same(provider: ProviderServer, tmp_path: Path) -> None:
    ask(provider.settings(), twenty(), tmp_path)
    assert all(question.startswith("===== F1 ") for question in provider.questions)
    turned = ProviderServer()
    with turned:
        ask(turned.settings(), list(reversed(twenty())), tmp_path / "other")
    assert sorted(turned.questions) == sorted(provider.questions)  # they are asked side by side


def test_who_is_asked_follows_from_what_can_happen() -> None:
    assert route(f"{GATEWAY}order_manager.py")[0] == "strong"
    assert route("templates/env/gateway.env.j2")[0] == "medium"
    assert route("docs/review.md")[0] == route("tests/unit/x.py")[0] == route("README.md")[0] == "cheap"
    assert route("uv.lock")[0] == "here"
    assert route("nobody/knows.c")[0] == "strong"
    told = Told(
        result=NOT_ASKED,
        figures=Figures(),
        calls=[],
        routes={path: ": ".join(route(path)) for path in (f"{GATEWAY}a.py", f"{GATEWAY}b.py", "docs/a.md")},
    )
    assert routes(told) == ["strong: 2 (the gateway: orders and limits)", "cheap: 1 (a document)"]
    files = [file("docs/a.md", "a\n"), file(f"{GATEWAY}a.py", "a\n"), file("uv.lock", "a\n")]
    made = batches(units(files, 1000), 5, 1000)
    assert [[each.path for each in batch] for batch in made] == [[f"{GATEWAY}a.py"], ["docs/a.md"]]


def test_a_large_file_is_asked_about_in_pieces_and_a_change_with_its_surroundings() -> None:
    text = "".join(f"line {number}\n" for number in range(1, 2001))
    pieces = units([file("src/a.py", text)], 1000)
    assert "\n".join(each.text for each in pieces).count("\n") == 1999
    assert max(each.tokens for each in pieces) <= 1001
    (one,) = units([file("src/a.py", text.replace("line 999\n", "other\n"), before=text)], 1000)
    assert "- line 999\n+ 999 other\n  1000 line 1000" in one.text
    assert one.text.count("\n") < 25
    (long,) = [units([file("src/a.py", "x" * 10_000)], 1000)]
    assert len(long) == 4


def test_settings_are_checked() -> None:
    given = (
        '{"provider": "openai", "endpoint": "http://example.org", "strong": %s, "medium": %s, "cheap": %s}'
    )
    model = '{"name": "m", "input_price": 1, "output_price": 2}'
    with pytest.raises(SettingsError, match="without TLS"):
        load(ReviewSettings, {"REVIEW_REVIEWER": given % (model, model, model)})
    with pytest.raises(SettingsError) as caught:
        load(ReviewSettings, {"REVIEW_API_KEY": "hidden", "REVIEW_BUDGET_DAY": "-1"})
    assert "hidden" not in str(caught.value)
    assert "hidden" not in str(load(ReviewSettings, {"REVIEW_API_KEY": "hidden"}))


def in_twos(**others: Any) -> dict[str, Any]:
    return {"batch_files": 2, **others}


@pytest.mark.parametrize("at_once", [1, 4])
def test_calls_are_made_together_and_no_more_than_set(
    at_once: int, provider: ProviderServer, tmp_path: Path
) -> None:
    under_way, most, meet = 0, 0, threading.Barrier(at_once)
    lock = threading.Lock()

    def brain(question: str) -> str:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if provider.calls > 1:
            meet.wait(10)  # nine calls are left, and 8 of them meet in fours
        with lock:
            under_way -= 1
        return nothing_found(question)

    provider.brain = brain
    told = ask(provider.settings(**in_twos(calls_at_once=at_once)), twenty()[:18], tmp_path)
    assert (told.result.state, provider.calls, most) == ("passed", 9, at_once)


def test_the_order_of_answers_changes_nothing(provider: ProviderServer, tmp_path: Path) -> None:
    """The same decision, byte by byte, one call at a time or all at once, whichever answer comes first."""
    late: dict[str, float] = {}

    def brain(question: str) -> str:
        number = next(number for number in range(20) if f"m{number:02}.py" in question)
        threading.Event().wait(late.get("by", 0.0) * (20 - number))
        return says(quote=f"value = {number}")(question)

    provider.brain = brain
    made = []
    for at_once, by in ((1, 0.0), (8, 0.005), (8, 0.0)):
        late["by"] = by
        settings = provider.settings(**in_twos(calls_at_once=at_once))
        told = ask(settings, twenty(), tmp_path / f"{at_once}{by}")
        decision = decide("tree", None, {}, LocalResult(findings=[], programs=[]), told.result, Policy())
        made.append((digest(decision), [call.request for call in told.calls], told.figures.price))
    assert made[0] == made[1] == made[2]
    assert len(made[0][1]) == 10


def test_concurrent_calls_stay_within_the_budget_and_leave_nobody_out(
    provider: ProviderServer, tmp_path: Path
) -> None:
    """Money that is set aside for calls under way is waited for, and never spent twice."""
    settings = provider.settings(**in_twos(calls_at_once=8, reply_tokens=256, budget_review=0.05))
    one = ask(settings, twenty()[:2], tmp_path / "one").figures.price
    alone = ask(
        provider.settings(**in_twos(calls_at_once=1, reply_tokens=256, budget_review=0.05)),
        twenty(),
        tmp_path / "alone",
    )
    together = ask(settings, twenty(), tmp_path / "together")
    assert 10 * one + 0.02 * 8 > 0.05, "what would be set aside together is more than there is"
    assert together.result == alone.result
    assert [call.request for call in together.calls] == [call.request for call in alone.calls]
    assert together.figures.price <= 0.05


def test_after_ctrl_c_nothing_more_is_asked_and_what_was_paid_is_kept(
    provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten batches two are answered, two under way, and one waits to be asked about again."""
    told, paused, held = threading.Event(), threading.Event(), threading.Semaphore(0)
    quick = iter((True, True))  # the first of all, and one of those that are asked about together
    said: list[str] = []
    arrived = ExternalGate._arrived

    def interrupted(gate: ExternalGate, outcome: Any) -> None:
        arrived(gate, outcome)
        if provider.answered > 1 and not told.is_set():
            assert paused.wait(10)
            assert all(held.acquire(timeout=10) for _ in range(2))
            raise KeyboardInterrupt

    def say(line: str) -> None:
        said.append(line)
        if "no more is asked" in line:
            told.set()

    def sleep(_: float) -> None:
        paused.set()
        assert told.wait(10)

    def brain(question: str) -> str:
        if not next(quick, False):
            held.release()
            assert told.wait(10)
        return nothing_found(question)

    provider.brain = brain
    provider.faults.extend(["", "500"])
    monkeypatch.setattr(ExternalGate, "_arrived", interrupted)
    settings = provider.settings(**in_twos(calls_at_once=3))
    with pytest.raises(KeyboardInterrupt):
        ask(settings, twenty(), tmp_path, say=say, sleep=sleep)
    assert said[-1] == "no more is asked; waiting for 3 calls under way"
    assert provider.calls == 5
    again = ask(settings, twenty(), tmp_path)
    assert (again.result.state, again.figures.cached_files, provider.calls) == ("passed", 8, 5 + 6)
