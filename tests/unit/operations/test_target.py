"""A run without a target is refused instead of doing nothing and calling that success."""

import subprocess
import sys
from pathlib import Path

import pytest
from pyinfra.api.exceptions import PyinfraError

from deploy.fleet.inventory import Fleet
from deploy.fleet.vault_password import PROJECT
from deploy.operations.run import as_typed, refuse_data, refuse_empty_target
from tests.unit.fleets import make_inventory

GROUPS = {"all": ("inf-01", "gtw-01"), "lab": ("inf-01", "gtw-01"), "inf": ("inf-01",)}
FLEET = Fleet(Path("inventory/lab.yml"), "lab", {"inf-01": {}, "gtw-01": {}}, GROUPS)


@pytest.mark.parametrize(
    ("limit", "exclude", "expected"),
    [
        (["typo"], [], r"--limit typo matches no host of lab\.yml; it has inf-01, gtw-01"),
        (["inf-01"], ["typo"], r"--exclude typo matches no host"),
        (["inf-01"], ["inf-*"], r"no host is left"),
        ([], ["lab"], r"no host is left"),
        (["inf"], ["inf-01"], r"no host is left"),
        (["gateway"], [], r"matches no host .* and the groups lab, inf"),
    ],
)
def test_refused(limit: list[str], exclude: list[str], expected: str) -> None:
    with pytest.raises(PyinfraError, match=expected):
        refuse_empty_target(FLEET, limit, exclude)


@pytest.mark.parametrize(
    ("limit", "exclude"), [([], []), (["inf-*"], []), (["lab"], ["gtw-01"]), (["all"], []), (["inf"], [])]
)
def test_taken(limit: list[str], exclude: list[str]) -> None:
    refuse_empty_target(FLEET, limit, exclude)


def test_windows_gateways_alone_are_ansibles() -> None:
    mixed = Fleet(Path("inventory/lab.yml"), "lab", {"inf-01": {}, "gtw-02": {}}, {"windows": ("gtw-02",)})
    refuse_empty_target(mixed, [], [])
    for limit, exclude in ((["gtw-02"], []), (["gtw-*"], []), ([], ["inf-01"])):
        with pytest.raises(
            PyinfraError, match=r"site\.yml --tags baseline,gateway --limit gtw-02.* Nothing was"
        ):
            refuse_empty_target(mixed, limit, exclude)


@pytest.mark.parametrize(
    ("file", "given", "expected"),
    [
        ("deploy.py", "strategy=canarry", r"no such strategy; choose one of rolling, canary, .*all_at_once"),
        ("deploy.py", "stategy=canary", r"knows no 'stategy'; it takes strategy, plan"),
        ("rollback.py", "strategy=canary", r"rollback\.py knows no 'strategy'; it takes part, to"),
    ],
)
def test_data_that_would_do_nothing_is_refused(file: str, given: str, expected: str) -> None:
    with pytest.raises(PyinfraError, match=expected):
        refuse_data(file, [given])


def test_data_is_text_whatever_it_looks_like() -> None:
    """Ids are hexadecimal; a reason may be anything."""
    given = ["plan=012345678901", "deployment=1e456789", 'why=two words = "three"', "to="]
    assert as_typed(given) == {
        "plan": "012345678901",
        "deployment": "1e456789",
        "why": 'two words = "three"',
        "to": "",
    }


def test_known_data_is_taken() -> None:
    refuse_data("deploy.py", ["strategy=canary", "plan=0123456789ab"])
    refuse_data("rollback.py", ["part=gateway", "to=0001-0123456789ab"])


def pyinfra(*arguments: str) -> str:
    """What pyinfra says in the project's directory, without a terminal; it must fail, and not by chance."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("pyinfra")), *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in said
    assert "internal exception" not in said
    return " ".join(said.split())


def test_an_inventory_for_ansible_is_named_with_the_one_for_pyinfra(tmp_path: Path) -> None:
    assert "use inventory/lab.py. Nothing was changed" in pyinfra("-y", "inventory/lab.yml", "deploy.py")
    alone = tmp_path / "mine.yml"
    alone.write_text("all: {}")
    assert f"copy inventory/staging.py to {tmp_path}/mine.py" in pyinfra("-y", str(alone), "rollback.py")


def test_data_without_a_value_is_refused() -> None:
    assert "--data why has no value" in pyinfra("-y", "inventory/lab.py", "deploy.py", "--data", "why")


def test_without_a_terminal_nobody_can_be_asked(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path).with_suffix(".py")
    inventory.write_text("from deploy.inventory import hosts_of\nlab = hosts_of(__file__)\n")
    assert "no terminal to answer on; add -y" in pyinfra(str(inventory), "deploy.py")
