"""Coverage by package, ratios against a release, and what a load test makes of its requests."""

import pytest

from mt5crs.client.errors import GatewaySilentError
from pipeline import covered, ratios
from pipeline.load import Load, Seen, joined, pace


def document(**files: tuple[int, int, int, int]) -> dict[str, object]:
    names = ("num_branches", "covered_branches", "num_statements", "covered_lines")
    return {
        "files": {
            path.replace("__", "/") + ".py": {"summary": dict(zip(names, told, strict=True))}
            for path, told in files.items()
        }
    }


def test_modules_of_a_directory_are_counted_together() -> None:
    packages = covered.by_package(
        document(a__b__x=(10, 10, 20, 20), a__b__y=(10, 4, 20, 10), a__c=(0, 0, 4, 3))
    )
    assert {name: each.percent for name, each in packages.items()} == {"a": 75.0, "a/b": 70.0}
    assert covered.whole(packages).percent == 70.0


def test_both_bounds_hold() -> None:
    good = covered.by_package(document(a__x=(100, 85, 10, 10), b__y=(10, 9, 10, 10)))
    assert covered.shortfalls(good) == []
    one_low = covered.by_package(document(a__x=(100, 95, 10, 10), b__y=(10, 6, 10, 10)))
    assert covered.shortfalls(one_low) == ["b has 60.0 % of its branches, 70 are wanted"]
    overall = covered.by_package(document(a__x=(100, 84, 10, 10)))
    assert covered.shortfalls(overall) == ["overall 84.0 % of the branches, 85 are wanted"]


def test_what_only_labs_run_is_judged_with_them() -> None:
    low = covered.by_package(
        document(deploy__operations__x=(10, 1, 5, 5), lab__x=(4, 0, 1, 1), labels__x=(4, 4, 1, 1))
    )
    assert set(covered.without_labs(low)) == {"labels"}
    assert covered.shortfalls(covered.without_labs(low)) == []
    assert len(covered.shortfalls(low)) == 3


def test_nothing_measured_is_not_all_covered() -> None:
    assert covered.shortfalls(covered.by_package({"files": {}})) == [
        "nothing was measured: run `make coverage` again"
    ]


def figure(name: str, value: float, unit: str = "times") -> ratios.Figure:
    return ratios.Figure(name=name, value=value, unit=unit)


def test_only_ratios_are_compared_and_only_worse_ones_told() -> None:
    before = [figure("PING", 1.2), figure("SYNC", 1.4), figure("memory", 30, "MB"), figure("gone", 1.0)]
    now = [figure("PING", 1.45), figure("SYNC", 1.8), figure("memory", 90, "MB"), figure("new", 9.0)]
    assert ratios.worse(now, before) == [
        "SYNC: 1.80, 1.40 before",
        "gone: not measured any more, 1.00 before",
    ]
    assert [line.split()[0] for line in ratios.lines(now, before)] == ["PING", "SYNC", "new"]


def test_a_request_counts_from_its_own_moment() -> None:
    """A gateway that hangs for a second makes the requests after it late, whatever they take themselves."""
    clock = [0.0]
    seen = Seen()

    def ask(number: int) -> None:
        clock[0] += 1.0 if number == 0 else 0.001

    def wait(seconds: float) -> None:
        clock[0] += seconds

    pace(ask, seen, 5, 0.1, 0.0, now=lambda: clock[0], wait=wait)
    assert [round(each) for each in seen.times_ms] == [1000, 901, 802, 703, 604]


def test_a_failed_request_is_counted_and_the_others_go_on() -> None:
    seen = Seen()

    def ask(number: int) -> None:
        if number % 2:
            raise GatewaySilentError("no answer")

    pace(ask, seen, 4, 0.0, 0.0, now=lambda: 0.0, wait=lambda _: None)
    assert (len(seen.times_ms), dict(seen.errors)) == (2, {"GatewaySilent": 2})


def load(answered: int, failed: int, seconds: float = 100.0) -> Load:
    seen = Seen(times_ms=[1.0] * answered)
    seen.errors["GatewaySilent"] = failed
    return joined("gtw-01", 10, seconds, [seen])


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        (load(1000, 0), None),
        (load(2000, 1, 200), None),
        (load(1998, 2, 200), "gtw-01: 0.100% of the requests failed (2 GatewaySilent); less than 0.1% may"),
        (load(980, 0), "gtw-01: held 9.8 requests a second of 10"),
        (load(0, 0), "gtw-01: 100.000% of the requests failed (no answer); less than 0.1% may"),
    ],
)
def test_errors_and_a_rate_that_was_not_held_fail(held: Load, problem: str | None) -> None:
    assert held.problem == problem
