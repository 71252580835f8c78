"""The Hub's queue: what is handed over is what is reviewed, once, whatever kills the service."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.reviewing import on_host
from lab.handle import wait_until
from mt5crs.review import making, queue, submission
from mt5crs.review.decision import Policy
from mt5crs.review.model import ReviewError
from mt5crs.review.programs import Outcome
from mt5crs.review.queue import Answer, Queue
from mt5crs.review.record import digest
from mt5crs.review.rehearsal import ProviderServer
from mt5crs.review.service import Reviews
from mt5crs.review.submission import Submission
from mt5crs.review.tree import Entry, changed, id_of, tree_of
from mt5crs.service.logs import Log
from mt5crs.settings.review import ReviewSettings
from tests.unit.review.conftest import Commit, git

FILES: dict[str, str | bytes | None] = {
    "src/mt5crs/gateway/a.py": "VALUE = 1\n",
    "docs/b.md": "Text.\n",
    "docs/b-c.md": "Sorted before a directory of its beginning.\n",
    "docs/b/d.md": "Text.\n",
    "a.bin": b"\0\1",
}
RAN = [Outcome(program="ruff", state="ran")]
LOCAL = Policy(external_required=False)


def submitted(repository: Path, policy: Policy = LOCAL, **others: Any) -> Submission:
    given = {
        "tool": making.version("mt5crs"),
        "by": "ann@order_manager",
        "base": None,
        "outcomes": RAN,
        "bundles": [],
    }
    given |= others
    tree = tree_of(repository)
    return submission.of(
        tree, given.pop("base"), policy, given.pop("outcomes"), given.pop("bundles"), **given
    )


@pytest.fixture
def asked(repository: Path, commit: Commit) -> Submission:
    commit(FILES)
    return submitted(repository)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    Queue(directory, 200)
    monkeypatch.setattr(on_host, "STATE", directory)
    return directory


def hand_over(made: Submission, most: int = 20) -> dict[str, Any]:
    return on_host.put(made.id, most, submission.packed(made))


def service(state: Path, **settings: Any) -> Reviews:
    given = ReviewSettings(state_dir=str(state), metrics_port=free_port(), **settings)
    return Reviews(given, Log("review", "ERROR"))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def worked_off(made: Reviews) -> None:
    """Have the service answer all that waits."""
    try:
        for name in made._queue.ids():
            made._next(name)
    finally:
        made.close()


# ---- what is handed over ----


def test_the_id_of_a_tree_is_that_of_git(repository: Path, commit: Commit) -> None:
    commit(FILES)
    (repository / "run").symlink_to("docs/b.md")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    commit({"z.sh": "x\n"})
    tree = tree_of(repository, "HEAD")
    assert {entry.mode for entry in tree.files.values()} >= {"120000", "100644"}
    assert id_of(tree.files) == tree.id == git(repository, "rev-parse", "HEAD^{tree}")


def test_what_arrives_is_what_was_sent(repository: Path, asked: Submission) -> None:
    arrived = submission.read(submission.packed(asked), 10)
    assert arrived == asked
    tree, base = submission.trees(arrived)
    assert base is None
    assert changed(tree, None) == changed(tree_of(repository), None)


def test_of_a_change_the_base_comes_with_it(repository: Path, commit: Commit) -> None:
    commit(FILES)
    base = tree_of(repository, "HEAD")
    (repository / "docs/b.md").write_text("Other.\n")
    (repository / "docs/b-c.md").unlink()
    arrived = submission.read(submission.packed(submitted(repository, base=base)), 10)
    tree, before = submission.trees(arrived)
    assert changed(tree, before) == changed(tree_of(repository), base)
    assert [file.path for file in changed(tree, before)] == ["docs/b-c.md", "docs/b.md"]


def swapped(asked: Submission) -> Submission:
    """Another content under the id of the reviewed one."""
    blob = asked.files["src/mt5crs/gateway/a.py"].blob
    return msgspec.structs.replace(asked, blobs={**asked.blobs, blob: b"VALUE = 2\n"})


def hidden(asked: Submission) -> Submission:
    """A file that the tree has, left out."""
    files = {path: entry for path, entry in asked.files.items() if path != "src/mt5crs/gateway/a.py"}
    return msgspec.structs.replace(asked, files=files)


def outside(asked: Submission) -> Submission:
    return msgspec.structs.replace(asked, files={**asked.files, "../x": next(iter(asked.files.values()))})


def resized(asked: Submission) -> Submission:
    """A text that is said to be too large to be read."""
    path = "src/mt5crs/gateway/a.py"
    mode, blob, _ = asked.files[path]
    return msgspec.structs.replace(asked, files={**asked.files, path: Entry(mode, blob, 9_000_000)})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (swapped, "not what it says"),
        (hidden, "not what it says"),
        (resized, "not what it says"),
        (outside, "no name of a file"),
        (lambda asked: msgspec.structs.replace(asked, format=2), "format 2"),
        (lambda asked: msgspec.structs.replace(asked, files={"a": Entry("100644", "xyz", 1)}), "damaged"),
    ],
)
def test_a_submission_that_lies_is_refused(
    spoil: Callable[[Submission], Submission], said: str, asked: Submission
) -> None:
    with pytest.raises(ReviewError, match=said):
        submission.read(submission.packed(spoil(asked)), 10)


@pytest.mark.parametrize("content", [b"", b"x", submission.zlib.compress(b"{}"), b"half"])
def test_what_is_no_submission_is_refused(content: bytes, asked: Submission) -> None:
    given = submission.packed(asked)[:-9] if content == b"half" else content
    with pytest.raises(ReviewError, match=r"no submission|cut, or larger"):
        submission.read(given, 10)


def test_a_submission_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(ReviewError, match="larger than 1 MB"):
        submission.read(submission.zlib.compress(b"\0" * 50_000_000), 1)


# ---- the queue ----


def test_two_submissions_of_one_tree_are_answered_once(
    repository: Path, asked: Submission, state: Path
) -> None:
    assert hand_over(asked) == {"state": "taken", "ahead": 0}
    again = submitted(repository, by="bob@other")
    assert again.id == asked.id
    assert hand_over(again) == {"state": "waiting", "ahead": 0}
    worked_off(service(state))
    assert hand_over(again) == {"state": "answered"}
    told = on_host.look(asked.id[:6])
    answer = queue.read(base64.b64decode(told["answer"]))
    assert answer.by == "ann@order_manager"
    assert answer.record is not None
    assert answer.record.decision.result == "PASSED"
    assert answer.record.decision.external == "not_asked", "no key, so nobody is asked"
    assert answer.record.programs_by == "ann@order_manager"
    assert list((state / "waiting").iterdir()) == []


def test_the_decision_is_that_of_a_review_here(repository: Path, asked: Submission, state: Path) -> None:
    """Byte by byte, when the programs found the same."""
    hand_over(asked)
    worked_off(service(state))
    answer = Queue(state, 9).known(asked.id)
    assert answer is not None
    assert answer.record is not None
    here = making.make(tree_of(repository), None, LOCAL, state, outcomes=RAN)
    told = msgspec.structs.replace(answer.record.decision, external_reasons=here.decision.external_reasons)
    assert digest(told) == digest(here.decision)


def test_our_own_rules_look_on_the_hub_whatever_the_programs_said(
    repository: Path, commit: Commit, state: Path
) -> None:
    commit(
        {"src/mt5crs/strategy/a.py": "def act(gateway):\n    while True:\n        gateway.order_send(1)\n"}
    )
    made = submitted(repository)
    hand_over(made)
    worked_off(service(state))
    answer = Queue(state, 9).known(made.id)
    assert answer is not None
    assert answer.record is not None
    assert answer.record.decision.result == "FAILED"
    assert any(finding.rule == "MT5CRS003" for finding in answer.record.decision.findings)


def test_a_program_that_did_not_look_elsewhere_is_no_clean_program(
    repository: Path, asked: Submission, state: Path
) -> None:
    missing = [Outcome(program="ruff", state="missing", detail="ruff is not beside this Python")]
    made = submitted(repository, outcomes=missing)
    hand_over(made)
    worked_off(service(state))
    answer = Queue(state, 9).known(made.id)
    assert answer is not None
    assert answer.record is not None
    assert "ruff is not beside this Python" in answer.record.decision.reasons
    assert asked.id != made.id


def test_an_answer_that_was_not_final_is_made_again(repository: Path, asked: Submission, state: Path) -> None:
    made = submitted(repository, policy=Policy(external_required=True))
    hand_over(made)
    worked_off(service(state))
    with ProviderServer() as server:
        given = server.settings()
        assert hand_over(made)["state"] == "taken", "nobody was asked the first time"
        worked_off(service(state, reviewer=given.reviewer, api_key=given.api_key))
        assert server.calls >= 1
    answer = Queue(state, 9).known(made.id)
    assert answer is not None
    assert answer.record is not None
    assert (answer.record.decision.external, answer.record.decision.mode) == ("passed", "recorded")
    assert hand_over(made) == {"state": "answered"}
    assert asked.id != made.id


def test_the_queue_is_bounded(repository: Path, asked: Submission, state: Path) -> None:
    hand_over(asked, most=1)
    other = submitted(repository, policy=Policy(threshold=80, external_required=False))
    with pytest.raises(on_host.RefusedError, match="1 submissions wait, and no more may"):
        hand_over(other, most=1)
    assert len(list((state / "waiting").iterdir())) == 1


def test_on_a_full_disk_nothing_is_left_behind(
    asked: Submission, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(on_host.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        hand_over(asked)
    assert list((state / "waiting").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(on_host, "STATE", state)
    monkeypatch.setattr(on_host, "_SPARE", 1 << 60)
    with pytest.raises(on_host.RefusedError, match="is full; make room"):
        hand_over(asked)


def test_an_answer_that_cannot_be_kept_is_told_and_kept_later(
    asked: Submission, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(asked)
    made = service(state)
    full = True
    write = Queue._write

    def written(self: Queue, path: Path, content: bytes) -> None:
        if full and path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, content)

    def room(_: float) -> bool:
        nonlocal full
        assert made.health()["healthy"] is False
        assert "make room on the disk" in str(made.health()["reason"])
        full = False
        return False

    monkeypatch.setattr(Queue, "_write", written)
    monkeypatch.setattr(made._stopping, "wait", room)
    worked_off(made)
    assert made.health()["healthy"] is True
    assert Queue(state, 9).known(asked.id) is not None


def test_what_cannot_be_read_is_answered_and_the_next_is_reviewed(asked: Submission, state: Path) -> None:
    (state / "waiting" / f"{'0' * 16}.review").write_bytes(b"rubbish")
    (state / "waiting" / f"{'1' * 16}.review").write_bytes(submission.packed(asked))
    hand_over(asked)
    worked_off(service(state))
    answers = Queue(state, 9)
    errors = [known.error for name in ("0" * 16, "1" * 16) if (known := answers.known(name))]
    assert ["is no submission" in errors[0], f"the submission is {asked.id}, not" in errors[1]] == [
        True,
        True,
    ]
    known = answers.known(asked.id)
    assert known is not None
    assert known.record is not None


def test_another_version_is_no_review(repository: Path, asked: Submission, state: Path) -> None:
    made = submitted(repository, tool="9.9")
    hand_over(made)
    worked_off(service(state))
    answer = Queue(state, 9).known(made.id)
    assert answer is not None
    assert "the controller has version 9.9" in answer.error
    assert asked.id != made.id


def test_a_review_that_ends_the_service_again_and_again_is_given_up(asked: Submission, state: Path) -> None:
    hand_over(asked)
    waiting = Queue(state, 9)
    for _ in range(queue.MOST_TRIES):
        waiting.tried(asked.id)
    worked_off(service(state))
    answer = waiting.known(asked.id)
    assert answer is not None
    assert "ended the service 3 times" in answer.error


def test_old_answers_go(state: Path) -> None:
    few = Queue(state, 3)
    for number in range(6):
        few.answer(Answer(id=f"{number:016x}", at=float(number)))
        os.utime(state / "answers" / f"{number:016x}.json", (number + 1, number + 1))
    few.answer(Answer(id="f" * 16, at=9.0))
    assert len(list((state / "answers").iterdir())) == 3
    assert few.known("f" * 16) is not None


# ---- the process ----


@pytest.fixture
def process(state: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(port: int, **settings: str) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "REVIEW_STATE_DIR": str(state),
            "REVIEW_METRICS_PORT": str(port),
            **settings,
        }
        made = subprocess.Popen(
            [sys.executable, "-m", "mt5crs.review"], env=environment, stderr=subprocess.DEVNULL
        )
        begun.append(made)
        return made

    yield begin
    for each in begun:
        each.kill()
        each.wait(10)


def asked_of(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_killed_in_the_middle_it_goes_on_and_pays_no_answer_twice(
    repository: Path, commit: Commit, state: Path, process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    commit({f"src/mt5crs/gateway/m{number}.py": f"VALUE = {number}\n" for number in range(8)})
    made = submitted(repository, policy=Policy(external_required=True))
    hand_over(made)
    port = free_port()
    with ProviderServer() as server:
        given = server.settings()
        environment = {
            "REVIEW_REVIEWER": msgspec.json.encode(given.reviewer).decode(),
            "REVIEW_API_KEY": given.api_key,
            "REVIEW_CALLS_AT_ONCE": "1",
            "REVIEW_BATCH_FILES": "1",
            "REVIEW_BUDGET_DAY": "1000",
            "REVIEW_BUDGET_REVIEW": "1000",
        }
        server.thinks_s = 0.15
        first = process(port, **environment)
        wait_until(lambda: server.answered >= 3, 20, "three answers", seen=lambda: str(server.answered))
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        assert Queue(state, 9).ids() == [made.id], "it still waits"
        answered = server.answered
        second = process(port, **environment)
        wait_until(
            lambda: Queue(state, 9).known(made.id) is not None,
            20,
            "the answer",
            seen=lambda: asked_of(port, "/health")[1],
        )
        # The one that was under way may be asked about again, and no other.
        assert server.answered <= 8 + 1
        assert server.answered > answered
        status, health = asked_of(port, "/health")
        assert (status, json.loads(health)["waiting"]) == (200, 0)
        metrics = asked_of(port, "/metrics")[1]
        second.send_signal(signal.SIGTERM)
        assert second.wait(10) == 0
    assert "mt5crs_review_waiting 0" in metrics
    assert "mt5crs_review_api_calls_total" in metrics
    answer = Queue(state, 9).known(made.id)
    assert answer is not None
    assert answer.record is not None
    assert answer.record.decision.external == "passed"


def test_two_wait_and_one_is_made_at_a_time(
    repository: Path, asked: Submission, state: Path, process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    hand_over(asked)
    time.sleep(0.01)
    other = submitted(repository, policy=Policy(threshold=80, external_required=False))
    assert hand_over(other) == {"state": "taken", "ahead": 1}
    port = free_port()
    process(port)
    wait_until(
        lambda: Queue(state, 9).known(other.id) is not None,
        20,
        "the second",
        seen=lambda: asked_of(port, "/health")[1],
    )
    first, second = (Queue(state, 9).known(made.id) for made in (asked, other))
    assert first is not None
    assert second is not None
    assert first.at <= second.at
