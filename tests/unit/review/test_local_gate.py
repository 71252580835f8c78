"""Gate 1 over real repositories of git, with the real programs where they are what is tested."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mt5crs.__main__ import main
from mt5crs.review import local_gate, making, programs, record, sarif, score
from mt5crs.review.decision import LOCAL, ExternalResult, Policy, decide
from mt5crs.review.local_gate import LocalResult
from mt5crs.review.model import PARTS, SEVERITIES, Finding, ReviewError
from mt5crs.review.programs import Outcome, Program
from mt5crs.review.tree import changed, tree_of, write
from tests.unit.review.conftest import Commit, git

LENIENT = Policy(external_required=False)


def finding(severity: str = "P2", part: str = "quality", line: int = 1, source: str = "rules") -> Finding:
    return msgspec.convert(
        {
            "rule": f"R{line}",
            "severity": severity,
            "part": part,
            "path": "a.py",
            "line": line,
            "message": "m",
            "source": source,
        },
        Finding,
    )


findings = st.lists(
    st.builds(
        finding,
        severity=st.sampled_from(SEVERITIES),
        part=st.sampled_from(sorted(PARTS)),
        line=st.integers(1, 50),
    ),
    max_size=12,
)


def quick(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Only these programs: mypy and ansible-lint take seconds."""
    monkeypatch.setattr(programs, "PROGRAMS", tuple(each for each in programs.PROGRAMS if each.name in names))


def test_a_tree_is_reviewed_as_it_is_in_git(repository: Path, commit: Commit, tmp_path: Path) -> None:
    first = commit(
        {"gone.py": "x = 1\n", "same.py": "y = 1\n", ".gitattributes": "hidden.py export-ignore -diff\n"}
    )
    (repository / "link.py").symlink_to("/etc/passwd")
    commit(
        {
            "gone.py": None,
            "hidden.py": "mt5.order_send(x)\n",
            "bin.dat": b"\0\1",
            "latin.txt": "grö".encode("latin-1"),
            "huge.txt": "x" * 2_000_001,
        }
    )
    tree = tree_of(repository, "HEAD")
    files = changed(tree, tree_of(repository, first))
    assert {file.path: file.kind for file in files} == {
        "gone.py": "deleted",
        "hidden.py": "text",
        "link.py": "link",
        "bin.dat": "binary",
        "latin.txt": "encoding",
        "huge.txt": "huge",
    }
    write(tree, tmp_path / "copy")
    assert (tmp_path / "copy/hidden.py").read_text() == "mt5.order_send(x)\n"
    assert not os.path.lexists(tmp_path / "copy/link.py")


def test_files_that_are_not_committed_are_reviewed_and_the_index_is_left_alone(
    repository: Path, commit: Commit
) -> None:
    commit({"a.py": "x = 1\n"})
    (repository / "b.py").write_text("y = 1\n")
    before = git(repository, "status", "--porcelain")
    tree = tree_of(repository)
    (repository / "b.py").write_text("z = 1\n")  # changes while it is reviewed: what is reviewed does not
    assert [file.text for file in changed(tree, None)] == ["x = 1\n", "y = 1\n"]
    (repository / "b.py").write_text("y = 1\n")
    assert git(repository, "status", "--porcelain") == before
    assert tree_of(repository).id == tree.id


def test_what_is_no_repository_or_revision_is_said(tmp_path: Path, repository: Path, commit: Commit) -> None:
    with pytest.raises(ReviewError, match="A review reads a repository of git"):
        tree_of(tmp_path / "repository" / "..")
    if os.geteuid() == 0:
        for path in (repository, repository / ".git"):
            os.chown(path, 4321, 4321)
        with pytest.raises(ReviewError, match=r"dubious ownership .* git config --global --add safe"):
            tree_of(repository)
        for path in (repository, repository / ".git"):
            os.chown(path, 0, 0)
    commit({"a": "b"})
    for revision in ("nowhere", "--output=x"):
        with pytest.raises(ReviewError, match=r"name a commit|no revision"):
            tree_of(repository, revision)


def test_seeded_defects_fail_with_the_real_programs(
    repository: Path, commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch, "ruff", "bandit", "zizmor")
    base = commit({"src/a.py": "x = 1\n"})
    commit(
        {
            "src/a.py": "import yaml\n\nx = yaml.load(open('f'))\ny = undefined\n",
            ".github/workflows/w.yml": "on: pull_request_target\njobs:\n  a:\n    runs-on: x\n    steps:\n"
            "      - uses: actions/checkout@v4\n"
            "      - run: echo ${{ github.event.pull_request.title }}\n",
        }
    )
    tree = tree_of(repository, "HEAD")
    made = making.make(tree, tree_of(repository, base), LENIENT, tmp_path / "cache")
    by_source = {each.source for each in made.decision.findings}
    assert by_source >= {"ruff", "bandit", "zizmor", "text"}
    assert made.decision.result == "FAILED"
    assert made.decision.levels == []
    assert {each.rule for each in made.decision.findings} >= {"F821", "B506", "zizmor/template-injection"}
    assert made.lines == 11


def test_a_program_that_is_missing_or_fails_is_not_a_program_that_found_nothing(tmp_path: Path) -> None:
    nothing = Program("no-such-program", lambda _: True, lambda *_: [], lambda *_: iter(()))
    broken = Program("git", lambda _: True, lambda *_: ["--no-such-option"], lambda *_: iter(()))
    unread = Program("git", lambda _: True, lambda *_: ["--version"], programs.PROGRAMS[2].read)
    for program, state in ((nothing, "missing"), (broken, "failed"), (unread, "failed")):
        outcome = programs.ask(program, ["a.py"], tmp_path, tmp_path)
        assert outcome.state == state
        assert outcome.detail
        decision = decide("t", None, {}, LocalResult(findings=[], programs=[outcome]), _passed(), LENIENT)
        assert (decision.result, decision.levels) == ("FAILED", ["MT5CRS_REVIEW_EXTERNAL"])
        assert decision.reasons == [outcome.detail]


def test_programs_see_nothing_of_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEW_API_KEY", "kept")
    (tmp_path / "tell.py").write_text("import os\nprint(sorted(os.environ))\n")
    told: list[bytes] = []
    python = Program(
        Path(os.sys.executable).name,  # type: ignore[attr-defined]
        lambda _: True,
        lambda *_: ["tell.py"],
        lambda output, _: iter(told.append(output) or ()),
    )
    assert programs.ask(python, ["a"], tmp_path, tmp_path).state == "ran"
    assert b"PATH" in told[0]
    assert b"REVIEW_API_KEY" not in told[0]


def test_bandit_and_ruff_have_one_way_to_accept_a_finding(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("import yaml\nx = yaml.load(f)  # noqa: S506 -- safe here\n")
    bandit = next(each for each in programs.PROGRAMS if each.name == "bandit")
    assert programs.ask(bandit, ["src/a.py"], tmp_path, tmp_path) == Outcome(program="bandit", state="ran")


@settings(max_examples=60)
@given(findings, findings)
def test_more_findings_never_make_a_score_or_result_better(some: list[Finding], more: list[Finding]) -> None:
    alone, together = score.score(some), score.score([*some, *more])
    assert together.total <= alone.total
    assert 100 - together.total == sum(each.points for each in together.deductions)
    local = LocalResult(findings=some, programs=[])
    without = decide("t", None, {}, local, _passed(), LENIENT)
    with_reviewer = decide(
        "t", None, {}, local, ExternalResult(state="passed", mode="live", findings=more), LENIENT
    )
    assert (without.result, with_reviewer.result) != ("FAILED", "PASSED")
    assert with_reviewer.score.total <= without.score.total
    assert set(without.findings) <= set(with_reviewer.findings)


def test_what_was_not_asked_is_neither_passed_nor_failed() -> None:
    local = LocalResult(findings=[], programs=[])
    silent = ExternalResult(state="not_asked", mode="offline", reasons=["no key"])
    in_the_lab = decide("t", None, {}, local, silent, LENIENT)
    assert (in_the_lab.result, in_the_lab.external, in_the_lab.levels) == ("PASSED", "not_asked", [LOCAL])
    in_production = decide("t", None, {}, local, silent, Policy())
    assert in_production.result == "FAILED"
    assert "no key" in in_production.reasons[0]
    recorded = ExternalResult(state="passed", mode="recorded")
    assert decide("t", None, {}, local, recorded, Policy()).result == "FAILED"
    assert decide("t", None, {}, local, recorded, LENIENT).levels == [LOCAL]


def test_the_worst_finding_fails_whatever_the_score() -> None:
    one = LocalResult(findings=[finding("P0", "quality")], programs=[])
    decision = decide("t", None, {}, one, _passed(), Policy(threshold=0, external_required=False))
    assert decision.result == "FAILED"
    assert decision.score.parts["quality"] == 0
    assert decision.score.total == 80


def test_findings_are_in_one_sarif_document() -> None:
    made = sarif.document([finding(), finding(source="ruff", line=0)], "1")
    assert [run["tool"]["driver"]["name"] for run in made["runs"]] == [
        "mt5crs review: rules",
        "mt5crs review: ruff",
    ]
    result = made["runs"][0]["results"][0]
    assert (result["level"], result["locations"][0]["physicalLocation"]["region"]) == (
        "warning",
        {"startLine": 1},
    )
    assert "region" not in made["runs"][1]["results"][0]["locations"][0]["physicalLocation"]


def test_run_and_show(
    repository: Path, commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch, "ruff")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    commit({"a.py": '"""Text."""\n'})
    options = ["--tree", str(repository), "--out", str(tmp_path / "out"), "--no-external"]
    good = CliRunner().invoke(main, ["review", "run", *options])
    assert good.exit_code == 0, good.output
    assert good.output.startswith("PASSED: tree ")
    commit({f"src/{number}.py": "mt5.order_send(x)\n" for number in range(7)})
    bad = CliRunner().invoke(main, ["review", "run", *options])
    assert bad.exit_code == 1
    assert bad.output.count("MT5CRS001") == record.SHOWN
    assert re.search(r"and \d+ more", bad.output), bad.output
    shown = CliRunner().invoke(main, ["review", "show", "--all", "--out", str(tmp_path / "out")])
    assert shown.output.count("MT5CRS001") == 7
    again = CliRunner().invoke(main, ["review", "show", "--json", "--out", str(tmp_path / "out")])
    made = msgspec.json.decode(again.output, type=record.Record)
    CliRunner().invoke(main, ["review", "run", *options])
    same = CliRunner().invoke(main, ["review", "show", "--json", "--out", str(tmp_path / "out")])
    assert record.digest(made.decision) == record.digest(
        msgspec.json.decode(same.output, type=record.Record).decision
    )
    # The record is no part of the tree, wherever it is kept.
    inside = [*options[:2], "--out", str(repository / "reports/review"), "--no-external"]
    trees = {CliRunner().invoke(main, ["review", "run", *inside]).output.splitlines()[0][:25] for _ in "12"}
    assert len(trees) == 1, trees
    # Where nothing can be kept nothing is asked.
    for out, word in ((str(repository / "a.py/x"), "--out"), (str(tmp_path / "fresh"), "XDG_CACHE_HOME")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(repository / "a.py" if word != "--out" else tmp_path))
        lost = CliRunner().invoke(main, ["review", "run", *options[:2], "--out", out])
        assert (lost.exit_code, lost.output.count("\n")) == (1, 1), lost.output
        assert word in lost.output
    none = CliRunner().invoke(main, ["review", "show", "abc", "--out", str(tmp_path / "nowhere")])
    assert none.exit_code == 1
    assert "holds no record of a tree abc" in none.output


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"decision": 1}')
    with pytest.raises(ReviewError, match="is no record of a review"):
        record.read(tmp_path / "a.json")


def test_an_empty_change_has_nothing_wrong(repository: Path, commit: Commit, tmp_path: Path) -> None:
    commit({"a.py": "x = 1\n"})
    tree = tree_of(repository, "HEAD")
    assert local_gate.judge(tree, changed(tree, tree), tmp_path / "cache").findings == []


def _passed() -> ExternalResult:
    return ExternalResult(state="passed", mode="live")
