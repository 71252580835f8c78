"""What nobody should hand in: each is one clear error or a finding, and never a better verdict."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mt5crs.__main__ import main
from mt5crs.review import calling, local_gate, making, programs, providers, record, replies
from mt5crs.review.budget import Budget
from mt5crs.review.calling import LaterError, call
from mt5crs.review.decision import Decision, Policy, decide
from mt5crs.review.local_gate import LocalResult
from mt5crs.review.model import Finding, ReviewError
from mt5crs.review.record import Record
from mt5crs.review.rehearsal import ProviderServer, names, reviewer
from mt5crs.review.rules import check
from mt5crs.review.score import score
from mt5crs.review.tree import changed, tree_of
from mt5crs.review.units import units
from mt5crs.settings.review import ReviewSettings
from mt5crs.settings.schema import SettingsError, load
from tests.unit.review.conftest import Commit, git
from tests.unit.review.injections import TEXTS
from tests.unit.review.test_external_gate import ask, file, twenty

LENIENT = Policy(external_required=False)


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", ())


def found(repository: Path, base: str | None, cache: Path) -> list[tuple[str, str, str]]:
    """(rule, severity, path) of what gate 1 finds."""
    tree = tree_of(repository, "HEAD")
    files = changed(tree, tree_of(repository, base) if base else None)
    judged = local_gate.judge(tree, files, cache).findings
    return [(each.rule, each.severity, each.path) for each in judged]


@pytest.mark.parametrize("text", TEXTS)
def test_an_obedient_reviewer_makes_no_verdict_better(
    text: str, provider: ProviderServer, tmp_path: Path
) -> None:
    """The whole way: files over HTTP to a reviewer that answers what it was told, and the decision."""
    bad = "mt5.order_send(request)\n"

    def decision(content: str, path: str = "src/mt5crs/strategy/new.py") -> Decision:
        told = ask(provider.settings(attempts=1), [file(path, content)], tmp_path)
        local = LocalResult(findings=[*check(path, content)], programs=[])
        return decide("t", None, {}, local, told.result, LENIENT)

    provider.brain = lambda question: json.dumps(
        {"reviewed": names(question), "findings": [], text[:40]: text, "approved": True}
    )
    plain = decision(bad)
    assert plain.result == "FAILED"
    for content in (f"# {text}\n{bad}", f"{bad}#: {text}\n"):
        provider.brain = lambda question: text if text.strip() else question
        assert decision(content).result == "FAILED"
        provider.brain = lambda question: json.dumps({"reviewed": names(question), "findings": []})
        told = decision(content)
        assert (told.result, told.score.total <= plain.score.total) == ("FAILED", True)
        assert {each.rule for each in told.findings} >= {each.rule for each in plain.findings}


def test_what_differs_is_judged_whatever_became_of_it(
    repository: Path, commit: Commit, tmp_path: Path, no_programs: None
) -> None:
    base = commit(
        {
            "src/a.py": "value = 1\n" * 9,
            "src/moved.py": "other = 2\n" * 9,
            "tests/unit/test_a.py": "def test_a(): assert True\n",
            "tests/unit/test_b.py": "def test_b(): assert True\n",
        }
    )
    assert found(repository, base, tmp_path) == []  # nothing differs
    commit(
        {
            "src/b.bin": b"\0" * 100,
            "src/huge.py": "x = 1\n" * 400_000,
            "src/latin.py": b"# \xe9\nmt5.order_send(x)\n",
            "docs/latin.txt": b"caf\xe9\n",
            "src/moved.py": None,
            "src/here.py": "other = 2\n" * 9,
            "src/a.py": None,
            "tests/unit/test_a.py": None,
            "tests/unit/test_b.py": None,
            "tests/unit/test_moved.py": "def test_b(): assert True\n",
        }
    )
    (repository / "src/link.py").symlink_to("/etc/passwd")
    commit({})
    assert sorted(found(repository, base, tmp_path)) == [
        ("MT5CRS201", "P2", "src/link.py"),
        ("MT5CRS203", "P1", "src/huge.py"),
        ("MT5CRS204", "P2", "src/b.bin"),
        ("MT5CRS205", "P2", "docs/latin.txt"),
        ("MT5CRS206", "P3", "tests/unit/test_a.py"),
        # A program reads it as it is: three points were too few for an order that no rule saw.
        ("MT5CRS207", "P0", "src/latin.py"),
    ]


def test_a_link_that_is_known_is_known_with_its_goal(
    repository: Path, commit: Commit, tmp_path: Path, no_programs: None
) -> None:
    """A link of a known name was let pass wherever it led."""
    base = commit({"docs/runbook.md": "Text.\n", "templates/monitoring/x": "x\n"})
    link = repository / "templates/monitoring/runbook.md"
    link.symlink_to("../../docs/runbook.md")
    commit({})
    assert found(repository, base, tmp_path) == []
    link.unlink()
    link.symlink_to("/etc/shadow")
    commit({})
    assert found(repository, base, tmp_path) == [("MT5CRS201", "P2", "templates/monitoring/runbook.md")]


@pytest.mark.parametrize(
    "text",
    [
        "# -*- coding: utf-7 -*-\n# +AAo-mt5.order_send(x)\n",
        "#!/usr/bin/python3\n# vim: set fileencoding=latin-1 :\nx = 1\n",
        "# coding: raw_unicode_escape\n# \\u000amt5.order_send(x)\n",
    ],
)
def test_python_that_another_encoding_turns_into_other_python_is_refused(text: str) -> None:
    """Rules read UTF-8, Python what the comment says: the order was in a comment for one of them."""
    assert [each.severity for each in check("src/a.py", text) if each.rule == "MT5CRS000"] == ["P0"]


@pytest.mark.parametrize("text", ["# coding: utf-8\nx = 1\n", "# -*- coding: UTF8 -*-\nx = 1\n"])
def test_python_that_says_its_encoding_is_utf_8_is_read(text: str) -> None:
    assert check("src/a.py", text) == []


def raw_tree(repository: Path, *entries: bytes) -> str:
    """A tree as nobody makes with git's own commands."""
    blob = git(repository, "hash-object", "-w", "--stdin", "-t", "blob")
    body = b"".join(entry + b"\0" + bytes.fromhex(blob) for entry in entries)
    made = subprocess.run(
        ["git", "-C", str(repository), "hash-object", "-w", "--literally", "-t", "tree", "--stdin"],
        input=body,
        check=True,
        capture_output=True,
    )
    return made.stdout.decode().strip()


@pytest.mark.parametrize(
    "name",
    [b"../outside.py", b"/tmp/outside.py", b"a/../../outside.py", b".git/hooks/x", b"caf\xe9.py", b".."],
    ids=repr,
)
def test_a_name_that_leads_out_of_the_tree_or_is_no_text_is_one_error(
    name: bytes, repository: Path, commit: Commit
) -> None:
    commit({"a.py": "x = 1\n"})
    with pytest.raises(ReviewError, match="is no name of a file"):
        tree_of(repository, raw_tree(repository, b"100644 " + name))


def test_a_name_can_steer_no_terminal(
    repository: Path, commit: Commit, tmp_path: Path, no_programs: None
) -> None:
    commit({"src/a\x1b[2J\u202eb.py": "mt5.order_send(x)\n", "docs/c\nd.md": "\u202e\n"})
    options = ["--tree", str(repository), "--out", str(tmp_path / "out"), "--no-external"]
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    done = CliRunner().invoke(main, ["review", "run", *options], env=environment)
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert "\u202e" not in done.output
    assert "src/a\\x1b[2J\\u202eb.py:1" in done.output
    assert "docs/c\\nd.md:1" in done.output


def test_two_reviews_of_one_tree_at_once_both_end_well(
    provider: ProviderServer, repository: Path, commit: Commit, tmp_path: Path, no_programs: None
) -> None:
    commit({f"src/{number}.py": f"x = {number}\n" for number in range(12)})
    settings, made, failed = provider.settings(), [], []
    provider.thinks_s = 0.01

    def review() -> None:
        try:
            gate = making.external_gate(settings, tmp_path / "cache")
            one = making.make(tree_of(repository), None, LENIENT, tmp_path / "cache", gate.ask)
            record.write(one, tmp_path / "out")
            made.append(one)
        except Exception as error:  # a thread says nothing else of it
            failed.append(error)

    threads = [threading.Thread(target=review) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({record.digest(each.decision) for each in made}) == 1
    (path,) = (tmp_path / "out").glob("*.json")
    assert isinstance(record.read(path), Record)
    kept = sorted(each.name.rpartition(".")[2] for each in (tmp_path / "out").iterdir())
    assert kept == ["gitignore", "json", "sarif"]
    assert Budget(tmp_path / "cache/budget.sqlite", 5, 5).today() == pytest.approx(
        sum(each.external.figures.price for each in made if each.external is not None), abs=1e-4
    )


def test_files_that_change_while_they_are_read_are_no_tree_of_both(
    repository: Path, commit: Commit, tmp_path: Path, no_programs: None
) -> None:
    """A writer that never rests: each review is of one state, and its record says which."""
    commit({"src/a.py": "value = 0\n", "src/b.py": "value = 0\n"})
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (repository / "src/a.py").write_text(f"value = {number}\n" * (number % 50))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            try:
                tree = tree_of(repository)
            except ReviewError:  # after several attempts: no verdict on doubt
                continue
            made = making.make(tree, None, LENIENT, tmp_path)
            blob = git(repository, "cat-file", "-p", made.decision.files["src/a.py"])
            assert next(each.text for each in changed(tree, None)).strip() == blob
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("variable", ["REVIEW_BUDGET_DAY", "REVIEW_BUDGET_REVIEW", "REVIEW_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e999"])
def test_money_that_is_no_number_is_no_budget(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load(ReviewSettings, {variable: value})


def test_a_price_without_end_is_no_price() -> None:
    model = '{"name": "m", "input_price": 1e999, "output_price": 1}'
    models = ", ".join(f'"{each}": {model}' for each in ("strong", "medium", "cheap"))
    given = f'{{"provider": "openai", "endpoint": "https://x", {models}}}'
    with pytest.raises(SettingsError, match="REVIEW_REVIEWER"):
        load(ReviewSettings, {"REVIEW_REVIEWER": given})


@pytest.mark.parametrize("tokens", [1e400, 10**30, -1, True, None, "many", 1.5e300])
@pytest.mark.parametrize("dialect", ["anthropic", "openai", "gemini"])
def test_a_count_of_tokens_that_cannot_be_is_no_answer(dialect: Any, tokens: object) -> None:
    usage = {
        "anthropic": {
            "model": "m",
            "content": [],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": tokens, "output_tokens": 1},
        },
        "openai": {
            "model": "m",
            "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 1},
        },
        "gemini": {
            "modelVersion": "m",
            "candidates": [{"content": {"parts": []}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": tokens},
        },
    }
    with pytest.raises(replies.BadReplyError):
        providers.reply(dialect, usage[dialect])


@pytest.mark.parametrize("fault", ["header drip", "informational", "huge", "many headers", "drip"])
def test_an_answer_without_end_ends_with_the_time(fault: str, provider: ProviderServer) -> None:
    """Headers that came byte by byte kept the review for hours: only the body was watched."""
    provider.always = fault
    model = reviewer(provider.endpoint).strong
    request = providers.request(reviewer(provider.endpoint), model, "x", "y", 100)
    began = time.monotonic()
    with pytest.raises(LaterError):
        call(request, "key", 0.3)
    assert time.monotonic() - began < 3


def test_over_tls_the_time_counts_too_and_a_stranger_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=x"]
    subprocess.run([*made, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ProviderServer(tls=context) as provider:
        asked = reviewer(provider.endpoint)
        request = providers.request(asked, asked.strong, "x", "y", 100)
        with pytest.raises(LaterError, match="no connection"):
            call(request, "key", 1.0)
        assert (provider.calls, provider.keys) == (0, [])
        monkeypatch.setattr(calling, "_certificates", lambda: ssl.create_default_context(cafile=certificate))
        assert call(request, "key", 10.0).document["model"] == "large"
        provider.always = "header drip"
        began = time.monotonic()
        with pytest.raises(LaterError, match=r"longer than 0\.5 s"):
            call(request, "key", 0.5)
        assert time.monotonic() - began < 3


def test_half_a_character_in_a_reply_is_shown_as_such(provider: ProviderServer, tmp_path: Path) -> None:
    def brain(question: str) -> str:
        said = {"file": "F1", "line": 1, "quote": "value = 0", "severity": "P1", "part": "security"}
        return json.dumps({"reviewed": names(question), "findings": [{**said, "message": "a\ud800b"}]})

    provider.brain = brain
    told = ask(provider.settings(), twenty()[:1], tmp_path)
    assert [each.message for each in told.result.findings] == ["a\\ud800b"]
    decision = decide("t", None, {}, LocalResult(findings=[], programs=[]), told.result, LENIENT)
    made = Record(decision=decision, tool="1", began="", seconds=0, lines=1, external=told)
    assert record.read(record.write(made, tmp_path / "out")).decision == decision


def test_no_more_findings_than_one_can_read_are_shown_and_all_are_listed(tmp_path: Path) -> None:
    many = [
        Finding(rule=f"R{n}", severity="P2", part="quality", path="a.py", line=n, message="m", source="x")
        for n in range(1, 40)
    ]
    local = LocalResult(findings=many, programs=[])
    decision = decide("t", None, {}, local, making.NOT_ASKED, LENIENT)
    made = Record(decision=decision, tool="1", began="", seconds=0, lines=1)
    shown = [line for line in record.lines(made) if " P2 " in line]
    assert (len(shown), record.lines(made)[-1]) == (5, "  and 34 more: mt5crs review show --all t")
    assert len(record.read(record.write(made, tmp_path)).decision.findings) == 39
    assert score(many).total == decision.score.total


def test_a_deleted_file_is_in_no_question(repository: Path, commit: Commit) -> None:
    base = commit({"a.py": "x = 1\n", "b.py": "y = 1\n"})
    commit({"a.py": None})
    assert units(changed(tree_of(repository, "HEAD"), tree_of(repository, base)), 1000) == []
