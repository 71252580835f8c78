"""The run of very many histories goes on where it was stopped, and counts what was tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import histories


class Runs:
    """Stands for the batches."""

    def __init__(self, *, stop_after: int = 10**9, red_at: int = -1) -> None:
        self.made: list[tuple[str, int, int]] = []
        self._stop_after, self._red_at = stop_after, red_at

    def __call__(self, name: str, seed: int, count: int) -> int:
        if len(self.made) == self._stop_after:
            raise KeyboardInterrupt
        if len(self.made) == self._red_at:
            raise histories.RedError(f"{name} with seed {seed}")
        self.made.append((name, seed, count))
        return count


def go(tmp_path: Path, runs: Runs, code: str = "a") -> int:
    return histories.main(["--runs", "2500"], run=runs, kept=tmp_path / "reports/kept.json", code=code)


def test_what_was_interrupted_goes_on_with_other_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Runs(stop_after=3), Runs()
    assert go(tmp_path, first) == 130
    assert "the same command goes on" in capsys.readouterr().out
    assert go(tmp_path, second) == 0
    made = first.made + second.made
    assert len({(name, seed) for name, seed, _ in made}) == len(made)
    total = {name: sum(count for each, _, count in made if each == name) for name in histories.MACHINES}
    assert total == {"gateway": 2500, "fleet": 2500, "phases": 1000, "compare": 2500}
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("no violation; gateway: 2500 of 2500 histories in ")
    assert go(tmp_path, again := Runs()) == 0
    assert again.made == []


def test_a_red_batch_ends_it_and_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go(tmp_path, Runs(red_at=1)) == 1
    assert "with seed 0" in capsys.readouterr().out
    assert go(tmp_path, after := Runs()) == 0
    assert ("fleet", 0, 1000) in after.made


def test_histories_of_other_code_count_for_nothing(tmp_path: Path) -> None:
    assert go(tmp_path, Runs()) == 0
    assert go(tmp_path, other := Runs(), code="b") == 0
    assert sum(count for _, _, count in other.made) == 8500


def test_some_machines_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, kept = Runs(), tmp_path / "kept.json"
    assert histories.main(["fleet", "--runs", "1200"], run=runs, kept=kept, code="a") == 0
    assert runs.made == [("fleet", 0, 1000), ("fleet", 1, 200)]
    with pytest.raises(SystemExit):
        histories.main(["gatewy"], run=runs, kept=kept, code="a")
    assert "no machine gatewy: name some of gateway, fleet, phases, compare" in capsys.readouterr().err


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    found = set()
    for name, content in (("a.py", "1"), ("a.py", "2"), ("b.py", "2")):
        for file in tmp_path.iterdir():
            file.unlink()
        (tmp_path / name).write_text(content)
        found.add(histories.digest(["."], tmp_path))
    assert len(found) == 3
    assert all((histories.ROOT / each).exists() for each in histories.TRIED)


def test_hypothesis_says_how_many_it_has_tried() -> None:
    said = """
  - during reuse phase (0.01 seconds):
    - 2 passing, 0 failing, and 0 invalid test cases
  - during generate phase (97.11 seconds):
    - 998 passing, 0 failing, and 7 invalid test cases
"""
    assert histories.passing(said) == 1000
    assert histories.passing(said.replace(",", " examples,")) == 1000
    with pytest.raises(histories.RedError, match="does not say how many"):
        histories.passing("1 passed in 0.77s")
