"""What has to be done for a service, from what the host says of itself."""

from pathlib import Path
from typing import Any

import pytest

from deploy.rollout.generation import (
    Bundle,
    BundleError,
    Desired,
    Todo,
    code_arguments,
    decide,
    find_bundle,
    settled,
)
from mt5crs_release.desired.spec import ExtraBundle

CONTENT = "c" * 64
BUNDLE = Bundle(Path("dist/mt5crs-9.8.7-cccccccccccc.tar"), CONTENT)
WANT = Desired("gateway", "{}", BUNDLE, "d" * 64, 180)


def status(**changes: Any) -> dict[str, Any]:
    gateway = {
        "current": "0003-dddddddddddd",
        "digest": "d" * 64,
        "state": "confirmed",
        "intact": True,
        "previous": "0002-eeeeeeeeeeee",
        "units": {"mt5crs-gateway.service": "active"},
    }
    answer: dict[str, Any] = {
        "services": {"gateway": gateway},
        "bundles": [],
        "runtimes": ["cccccccccccc-cp313"],
    }
    for name, value in changes.items():
        (answer if name in answer else gateway)[name] = value
    return answer


def test_nothing_to_do() -> None:
    assert decide(WANT, status()) == Todo(generation="0003-dddddddddddd", previous="0002-eeeeeeeeeeee")
    assert decide(WANT, status()).nothing


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "e" * 64},
        {"state": "provisional"},
        {"intact": False},
        {"services": {}},
    ],
)
def test_something_to_do(changes: dict[str, Any]) -> None:
    todo = decide(WANT, status(**changes))
    assert (todo.upload, todo.stage, todo.activate) == ((), True, True)


def test_what_is_down_is_started() -> None:
    todo = decide(WANT, status(units={"mt5crs-gateway.service": "failed", "other.service": "active"}))
    assert (todo.stage, todo.activate, todo.start) == (False, False, ("mt5crs-gateway.service",))
    assert not todo.nothing


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (status(), "unchanged"),
        (status(units={"mt5crs-gateway.service": "failed"}), "would start"),
        (status(intact=False), "would change"),
        ({}, "would change"),
    ],
)
def test_a_run_that_only_looks_tells_what_the_next_would_do(now: dict[str, Any], told: str) -> None:
    assert decide(WANT, now).foretold == told


def test_a_fresh_host_needs_everything() -> None:
    assert decide(WANT, {}) == Todo((BUNDLE,), True, True)


def test_an_uploaded_bundle_is_not_uploaded_again() -> None:
    assert not decide(WANT, status(digest="e", runtimes=[], bundles=[BUNDLE.path.name])).upload
    assert decide(WANT, status(digest="e", runtimes=[], bundles=["other.tar"])).upload


def test_a_strategy_s_own_bundle_is_uploaded_when_a_part_of_it_is_missing() -> None:
    extra = ExtraBundle("mine", "1.0", "strategy-mine.tar", "a" * 64, "1" * 64, "2" * 64)
    want = Desired("strategy", "{}", BUNDLE, "d" * 64, 180, extra=extra)
    both, data = f"{want.runtime[:12]}-cp313", f"{'2' * 12}-data"

    def uploads(**there: Any) -> list[str]:
        return [bundle.path.name for bundle in decide(want, status(**there)).upload]

    assert uploads() == [BUNDLE.path.name, "strategy-mine.tar"]
    assert uploads(bundles=[BUNDLE.path.name]) == ["strategy-mine.tar"]
    assert uploads(runtimes=[both]) == ["strategy-mine.tar"]
    assert uploads(runtimes=[both, data]) == []
    assert code_arguments(want, status(runtimes=[both, data])) == ["--content", CONTENT]
    assert code_arguments(want, status())[0] == "--bundle"


def test_configuration_only_never_uploads() -> None:
    want = Desired("monitoring", "{}", None, "d" * 64, 180)
    assert decide(want, {}) == Todo((), True, True)


def test_code_is_named_by_content_when_it_is_there() -> None:
    assert code_arguments(WANT, status()) == ["--content", CONTENT]
    assert code_arguments(WANT, {}) == [
        "--bundle",
        f"/opt/mt5crs/bundles/{BUNDLE.path.name}",
        "--content",
        CONTENT,
    ]


@pytest.mark.parametrize(
    ("changes", "staged", "is_settled"),
    [
        ({}, "0003-dddddddddddd", True),
        # A run died after it had staged it: staging it anew changes nothing, and it does not run yet.
        ({}, "0004-ffffffffffff", False),
        ({"state": "provisional"}, "0003-dddddddddddd", False),
        ({"intact": False}, "0003-dddddddddddd", False),
        ({"intact": None}, "0003-dddddddddddd", False),
    ],
)
def test_only_what_runs_whole_and_confirmed_is_settled(
    changes: dict[str, Any], staged: str, is_settled: bool
) -> None:
    assert settled(status(**changes)["services"]["gateway"], staged) is is_settled
    assert not settled({}, staged)


def test_a_missing_or_wrong_bundle_is_named() -> None:
    with pytest.raises(BundleError, match=r"dist/none\.tar does not exist; build it with `make bundle`"):
        find_bundle("dist/none.tar")
    with pytest.raises(BundleError, match=r"README\.md is no bundle"):
        find_bundle("README.md")
