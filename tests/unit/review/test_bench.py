"""The benchmark measures what it says, by the counts of the provider."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from mt5crs.__main__ import main
from mt5crs.review import bench
from mt5crs.review.cache import Cache
from mt5crs.review.model import ReviewError
from mt5crs.review.rehearsal import ProviderServer
from tests.unit.review.conftest import Commit


def by_name(found: list[bench.Figure]) -> dict[str, bench.Figure]:
    return {figure.name: figure for figure in found}


def test_the_scenarios_keep_their_targets() -> None:
    found = by_name(bench.scenarios(0.01))
    timed = found.pop("unchanged tree: time, of a review without")  # this machine may be busy
    assert timed.at_most == 5
    assert [figure.line() for figure in found.values() if not figure.good] == []
    assert found["first review: calls"].note == "20 without"
    assert found["unchanged tree: from the cache"].value == 100


def test_faults_cost_calls_and_no_verdict() -> None:
    assert [figure.line() for figure in bench.faults(0.4) if not figure.good] == []


def test_without_a_cache_the_targets_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "get", lambda *_: None)
    missed = {figure.name for figure in bench.scenarios(0.0) if not figure.good}
    assert missed >= {"unchanged tree: fewer calls", "one of twenty changed: from the cache"}


def test_commits_are_replayed(repository: Path, commit: Commit) -> None:
    with pytest.raises(ReviewError):
        bench.replay(repository, 5)
    commit({f"src/{number}.py": f"x = {number}\n" * 50 for number in range(20)})
    with pytest.raises(ReviewError, match="no two commits"):
        bench.replay(repository, 5)
    for number in range(3):
        commit({f"src/{number}.py": f"y = {number}\n" * 50})
    found = by_name(bench.replay(repository, 5))
    assert found["each change alone: saved"].note == "3 commits"
    assert found["whole tree each time: from the cache"].value == 95
    assert found["whole tree each time: saved"].good
    # A branch of three commits: one, two, three files, of which none, one, two are known.
    assert found["branches of 5 commits: from the cache"].value == 50
    with pytest.raises(ReviewError, match="has not changed by 1000 lines"):
        bench.verdict_s(repository, 1000)
    (whole,) = bench.verdict_s(repository, 100)
    assert (whole.good, whole.note.startswith("100 lines")) == (True, True)


def test_the_command_says_what_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt5crs.review.benchmark.scenarios", lambda _: [bench.Figure("x", 1, "%", 50)])
    monkeypatch.setattr("mt5crs.review.benchmark.faults", lambda: [bench.Figure("y", 1, "%", None, 50)])
    told = CliRunner().invoke(main, ["review", "bench"])
    assert told.exit_code == 1
    assert [line.split()[-1] for line in told.stdout.splitlines()] == ["MISSED", "OK"]
    told = CliRunner().invoke(main, ["review", "bench", "--json"])
    assert [figure["good"] for figure in json.loads(told.stdout)] == [False, True]


def test_a_client_that_goes_away_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with ProviderServer() as server:
        host, _, port = server.endpoint.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/messages HTTP/1.1\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 404"
    assert "Traceback" not in capfd.readouterr().err
