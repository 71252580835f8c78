"""Directories of a Windows host are left alone only where owner and rights are exactly what is wanted."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest
import yaml

from tests.windows_model.winmodel import state

PROJECT = Path(__file__).resolve().parents[3]
ACCOUNT = "S-1-5-21-1111-2222-3333-1001"
READ = {"path": "C:/x", "rights": "ReadAndExecute"}
WRITE = {"path": "C:/x/state", "rights": "Modify"}
MINE = f"(A;OICI;0x1200a9;;;{ACCOUNT})"
AS_WANTED = f"O:BAG:S-1-5-21-1111-2222-3333-513D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA){MINE}"


class Filter(Protocol):
    """`windows_rights_wanting`."""

    def __call__(
        self, directories: Sequence[Mapping[str, str]], told: Sequence[str], account: str
    ) -> list[Mapping[str, str]]: ...


@pytest.fixture(scope="module")
def wanting() -> Filter:
    """The filter, loaded as Ansible does."""
    file = PROJECT / "plugins/filter/windows_rights.py"
    spec = importlib.util.spec_from_file_location("windows_rights_filter", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Filter = module.FilterModule().filters()["windows_rights_wanting"]
    return found


@pytest.mark.parametrize(
    "told",
    [
        AS_WANTED,
        AS_WANTED.replace("D:PAI", "D:P"),
        AS_WANTED + "\r",
        # Windows sorts entries in its own way.
        f"O:{'S-1-5-32-544'}G:SYD:PAI{MINE}(A;OICI;0x1f01ff;;;S-1-5-18)(A;OICI;FA;;;BA)",
    ],
)
def test_what_is_as_wanted_is_left_alone(wanting: Filter, told: str) -> None:
    assert wanting([READ], [told], ACCOUNT) == []


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(AS_WANTED.replace("O:BA", "O:SY"), id="another owner"),
        pytest.param(AS_WANTED.replace("D:PAI", "D:AI"), id="inherits"),
        pytest.param(AS_WANTED + "(A;OICI;0x1200a9;;;WD)", id="everyone reads"),
        pytest.param(AS_WANTED + "(A;;FR;;;BU)", id="users read"),
        pytest.param(AS_WANTED + f"(D;OICI;FA;;;{ACCOUNT})", id="denied"),
        pytest.param(AS_WANTED.replace("(A;OICI;FA;;;SY)", ""), id="SYSTEM is missing"),
        pytest.param(AS_WANTED.replace(MINE, ""), id="the account is missing"),
        pytest.param(AS_WANTED.replace("OICI;FA;;;BA", ";FA;;;BA"), id="not for what is in it"),
        pytest.param(AS_WANTED.replace("0x1200a9", "0x1301bf"), id="the account may write"),
        pytest.param(AS_WANTED.replace(MINE, MINE.replace("OICI;", "OICIID;")), id="inherited entry"),
        pytest.param("O:BAG:SYD:NO_ACCESS_CONTROL", id="no list at all"),
        pytest.param("O:BAG:SY", id="no list told"),
        pytest.param("", id="nothing told"),
        pytest.param(AS_WANTED + "S:AI(AU;SAFA;FA;;;WD)", id="more than is known here"),
        pytest.param("Get-Acl : Access is denied.", id="an error"),
    ],
)
def test_what_differs_or_is_not_understood_is_set_anew(wanting: Filter, told: str) -> None:
    assert wanting([READ], [told], ACCOUNT) == [READ]


def test_each_directory_has_its_own_rights(wanting: Filter) -> None:
    writable = AS_WANTED.replace("0x1200a9", "0x1301bf")
    assert wanting([READ, WRITE], [AS_WANTED, writable], ACCOUNT) == []
    assert wanting([READ, WRITE], [writable, AS_WANTED], ACCOUNT) == [READ, WRITE]


def test_in_doubt_every_directory_is_set(wanting: Filter) -> None:
    assert wanting([READ, WRITE], [AS_WANTED], ACCOUNT) == [READ, WRITE], "one of them is not there"
    assert wanting([READ], [AS_WANTED], "") == [READ], "whose account is not known"
    assert wanting([READ], [AS_WANTED], "S-1-5-21-1111-2222-3333-1002") == [READ], "somebody else's"


def test_the_rights_that_the_role_asks_for_are_known(wanting: Filter) -> None:
    variables = yaml.safe_load((PROJECT / "roles/baseline/vars/windows.yml").read_text())
    directories = variables["_baseline_windows_directories"]
    assert wanting(directories, [AS_WANTED] * len(directories), ACCOUNT) == [
        directory for directory in directories if directory["rights"] != READ["rights"]
    ]


def test_the_modelled_host_tells_rights_as_windows_does(
    wanting: Filter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "ROOT", tmp_path)
    path = tmp_path / "fs/C/x"
    path.mkdir(parents=True)
    rights = {"S-1-5-18": "FullControl", "S-1-5-32-544": "FullControl", ACCOUNT: READ["rights"]}
    entries = [{"sid": sid, "type": "allow", "rights": right} for sid, right in rights.items()]
    state.set_acl(path, {"owner": "S-1-5-32-544", "protected": True, "entries": entries})
    told = f"O:{state.own_acl(path)['owner']}G:SY{state.sddl(path)}"
    assert wanting([READ], [told], ACCOUNT) == []
