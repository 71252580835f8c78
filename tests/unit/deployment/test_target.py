"""A run without a target is refused instead of doing nothing and calling that success."""

from pathlib import Path

import pytest
from pyinfra.api.exceptions import PyinfraError

from deploy.inventory import Fleet
from deploy.run import refuse_empty_target

FLEET = Fleet(Path("inventory/lab.yml"), "lab", {"inf-01": {}, "gtw-01": {}}, {})


@pytest.mark.parametrize(
    ("limit", "exclude", "expected"),
    [
        (["typo"], [], r"--limit typo matches no host of lab\.yml; it has inf-01, gtw-01"),
        (["inf-01"], ["typo"], r"--exclude typo matches no host"),
        (["inf-01"], ["inf-*"], r"no host is left"),
        ([], ["lab"], r"no host is left"),
    ],
)
def test_refused(limit: list[str], exclude: list[str], expected: str) -> None:
    with pytest.raises(PyinfraError, match=expected):
        refuse_empty_target(FLEET, limit, exclude)


@pytest.mark.parametrize(
    ("limit", "exclude"), [([], []), (["inf-*"], []), (["lab"], ["gtw-01"]), (["all"], [])]
)
def test_taken(limit: list[str], exclude: list[str]) -> None:
    refuse_empty_target(FLEET, limit, exclude)
