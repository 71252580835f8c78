"""Stages are run, stopped and refused; what they run is a few words of shell here."""

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import cli, page, record, running
from pipeline.errors import PipelineError
from pipeline.source import source_of
from pipeline.stages import UNCHECKED, Options, Planned
from tests.unit.pipeline.told import SOURCE
from tests.unit.pipeline.told import record as told

OPTIONS = Options()


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Planned, ...]]:
    """What each stage runs; it may be changed."""
    steps: dict[str, tuple[Planned, ...]] = {}
    monkeypatch.setattr(running, "planned", lambda stage, _: steps[stage])
    monkeypatch.setattr(running, "tools", lambda: {"git": "git version 2"})
    monkeypatch.setattr(running.built, "digests", lambda _: {})
    return steps


def sh(script: str, name: str = "step", **more: object) -> Planned:
    return Planned(name, ("/bin/sh", "-c", script), **more)  # type: ignore[arg-type]


def test_a_stage_leaves_a_signed_record_and_the_next_one_takes_it(
    project: Path, plan: dict[str, tuple[Planned, ...]]
) -> None:
    plan["quality"] = (
        sh(
            "echo fine; mkdir -p reports/pipeline; echo '{\"n\": 1}' > reports/pipeline/f.json",
            figures="f.json",
        ),
    )
    plan["build"] = (sh("true"),)
    done = running.run(project, "quality", OPTIONS)
    assert (done.outcome, done.figures) == ("passed", {"f": {"n": 1}})
    assert (done.commit, done.tree) == (source_of(project).commit, source_of(project).tree)
    assert (project / record.DIRECTORY / done.steps[0].log).read_text() == "fine\n"
    kept = record.read("quality", project)
    assert kept is not None
    assert kept[0] == done
    assert running.run(project, "build", OPTIONS).before == {"quality": kept[1]}
    shown = (project / record.DIRECTORY / page.NAME).read_text()
    assert all(name in shown for name in ('href="quality.json"', 'href="build.json"', 'href="quality/1.log"'))


def test_the_next_stage_refuses_without_the_record(
    project: Path, plan: dict[str, tuple[Planned, ...]]
) -> None:
    with pytest.raises(PipelineError, match=r"quality has no record: run `make pipeline-quality`"):
        running.run(project, "build", OPTIONS)


def test_a_record_that_somebody_wrote_is_refused(project: Path, plan: dict[str, tuple[Planned, ...]]) -> None:
    plan["quality"] = (sh("exit 1"),)
    running.run(project, "quality", OPTIONS)
    path = record.path_of(project, "quality")
    path.write_text(path.read_text().replace('"failed"', '"passed"'))
    with pytest.raises(
        PipelineError, match=r"signature of quality\.json is not valid.*make pipeline-quality"
    ):
        running.run(project, "build", OPTIONS)


def test_a_record_without_its_signature_is_none(project: Path) -> None:
    path = record.write(told("quality"), project)
    path.with_name("quality.json.sig").unlink()
    with pytest.raises(PipelineError, match="is not signed"):
        record.read("quality", project)


def test_a_step_that_fails_ends_the_stage_and_is_taken_back(
    project: Path, plan: dict[str, tuple[Planned, ...]]
) -> None:
    plan["quality"] = (
        sh("echo it broke; exit 2", "deployed", undo=("/bin/sh", "-c", "echo back > reports/back")),
        sh("touch reports/never"),
    )
    done = running.run(project, "quality", OPTIONS)
    assert done.outcome == "failed"
    assert [(step.name, step.outcome) for step in done.steps] == [
        ("deployed", "failed"),
        ("deployed: taken back", "passed"),
    ]
    assert (done.steps[0].status, done.steps[0].detail) == (2, "it broke")
    assert (project / "reports/back").is_file()
    assert not (project / "reports/never").exists()


def test_production_is_not_touched_while_something_was_not_checked(
    project: Path, plan: dict[str, tuple[Planned, ...]]
) -> None:
    plan["quality"] = (sh(f"echo not checked: advisories; exit {UNCHECKED}", "scan"),)
    plan["build"] = (
        sh("touch reports/staging"),
        sh("touch reports/production", "production", production=True),
    )
    assert running.run(project, "quality", OPTIONS).outcome == "not checked"
    done = running.run(project, "build", OPTIONS)
    assert done.outcome == "failed"
    assert "and quality says not checked: advisories: run that stage" in done.steps[-1].detail
    assert (project / "reports/staging").is_file()
    assert not (project / "reports/production").exists()


def test_changes_beside_the_commit_are_refused(project: Path, plan: dict[str, tuple[Planned, ...]]) -> None:
    (project / "b.txt").write_text("b\n")
    with pytest.raises(PipelineError, match=r"changes beside it \(b\.txt\): commit or stash them$"):
        running.run(project, "quality", OPTIONS)


def test_a_stage_that_changes_the_tree_has_no_record(
    project: Path, plan: dict[str, tuple[Planned, ...]]
) -> None:
    plan["quality"] = (sh("echo more >> a.txt"),)
    with pytest.raises(PipelineError, match=r"changes beside it \(a\.txt\)"):
        running.run(project, "quality", OPTIONS)
    assert record.read("quality", project) is None


def test_a_full_disk_is_noticed_before_anything_is_begun(
    project: Path, plan: dict[str, tuple[Planned, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(running.FREE_MB, "quality", 10**9)  # type: ignore[arg-type]
    with pytest.raises(
        PipelineError, match=r"quality needs 1000000000 MB and only \d+ MB are free.*make room"
    ):
        running.run(project, "quality", OPTIONS)


def test_two_at_once_are_refused(project: Path, plan: dict[str, tuple[Planned, ...]]) -> None:
    with (
        running._alone(project),
        pytest.raises(PipelineError, match=rf"another pipeline runs .*process {os.getpid()}\): wait for it"),
    ):
        running.run(project, "quality", OPTIONS)


def test_a_stage_of_this_commit_that_passed_stands(
    project: Path, plan: dict[str, tuple[Planned, ...]]
) -> None:
    assert running.standing(project, "quality") is None
    plan["quality"] = (sh("true"),)
    running.run(project, "quality", OPTIONS)
    assert running.standing(project, "quality") is not None
    plan["quality"] = (sh("false"),)
    running.run(project, "quality", OPTIONS)
    assert running.standing(project, "quality") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_step_is_asked_to_stop_and_waited_for(
    project: Path, plan: dict[str, tuple[Planned, ...]], number: signal.Signals
) -> None:
    ends = "trap 'touch reports/put-back; exit 1' INT; touch reports/began; while :; do sleep 0.05; done"
    plan["quality"] = (sh(ends, "deployed"),)

    def stop() -> None:
        until = time.monotonic() + 20
        while not (project / "reports/began").exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=stop)
    asking.start()
    with pytest.raises(running.StoppedError) as stopped:
        running.run(project, "quality", OPTIONS)
    asking.join()
    assert stopped.value.step == "deployed"
    assert (project / "reports/put-back").is_file(), "it was not waited for"
    assert record.read("quality", project) is None


def test_a_missing_program_is_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "find", lambda _: None)
    with pytest.raises(
        PipelineError, match=r"^make is missing: install it with `apt-get install make` as root$"
    ):
        running._program("make")


def test_the_command_line_says_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "ROOT", project)
    assert cli.main(["run", "nothing"]) == 1
    assert cli.main(["run", "build"]) == 1
    assert cli.main(["run", "deploy", "--staging", "inventory/none.yml"]) == 1
    assert cli.main(["ratios"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["pipeline"] * 4
    assert "there is no stage nothing" in lines[0]


def test_what_goes_out_of_git_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"run the pipeline in a clone made by git$"):
        source_of(tmp_path)


def test_the_page_names_every_stage_and_escapes_what_steps_said() -> None:
    from tests.unit.pipeline.told import step

    text = page.text(
        {"quality": told("quality", step("failed", detail="<b>&")), "build": "it is damaged"},
        SOURCE,
        [{"commit": "a" * 40, "began": "now", "branches": 86.0}],
    )
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert "it is damaged" in text
    assert "86.00 %" in text
    for wanted in ("quality", "build", "integration", "deploy", "after"):
        assert f"<td>{wanted}" in text or f">{wanted}</a>" in text
    assert "src=" not in text
    assert "http" not in text


def test_every_command_of_a_stage_can_be_run() -> None:
    """Targets are in the Makefile; the pipeline's own commands are known to its command line."""
    root = Path(__file__).resolve().parents[3]
    targets = (root / "Makefile").read_text()
    from pipeline.order import STAGES
    from pipeline.stages import planned

    for stage in STAGES:
        for each in planned(stage, OPTIONS):
            program, *words = each.command
            if program == "make":
                assert f"\n{words[0]}:" in targets, each
            elif words[:2] == ["-m", "pipeline"]:
                cli._parser().parse_args(words[2:])
            else:
                assert (program, *words[:2]) in (
                    ("pyinfra", "-y", words[1]),
                    (sys.executable, "-m", "lab"),
                ), each
            if each.undo:
                assert each.undo[3] == "rollback.py"


def test_a_disk_that_gets_full_is_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "ROOT", project)
    monkeypatch.setattr(running, "run", full)
    assert cli.main(["run", "quality"]) == 1
    said = "a file could not be written: No space left on device; make room on that disk, then try again"
    assert capsys.readouterr().err == f"pipeline: {said}\n"
