"""Expressions are compiled once, however many hosts have them, and mean the same as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.fleet import compiled
from deploy.fleet.inventory import prepare_ansible, resolve
from tests.unit.fleets import EXTRA, make_inventory


def compiled_for(directory: Path, inf: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many pieces of code Jinja makes to read a fleet of so many Inf hosts."""
    hosts = {"hub": ["hub-01"], "inf": [f"inf-{n:02}" for n in range(1, inf + 1)], "gateway": ["gtw-01"]}
    inventory = make_inventory(directory, hosts)
    prepare_ansible()
    from ansible._internal._templating import _jinja_bits as bits

    made: list[str] = []
    base = bits.AnsibleEnvironment._compile

    def counting(self: Any, source: str, filename: str) -> Any:
        made.append(source)
        return base(self, source, filename)

    compiled._code.clear()
    with monkeypatch.context() as patch:
        patch.setattr(bits.AnsibleEnvironment, "_compile", counting)
        resolve(inventory, EXTRA)
    return len(made)


def test_more_hosts_are_no_more_expressions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (compiled_for(tmp_path / str(n), n, monkeypatch) for n in (2, 12))
    assert many <= few + 2


def test_the_same_text_read_with_other_marks_is_another_expression(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    text = "{{ inventory_hostname }} [[ inventory_hostname ]]"
    marks = "#jinja2: variable_start_string:'[[', variable_end_string:']]'\n"
    beside = inventory.parent / "group_vars" / "gateway"
    beside.mkdir(parents=True)
    (beside / "own.yml").write_text(f'one: "{text}"\ntwo: "{marks.strip()}\\n{text}"\nthree: "{text}"\n')
    of = resolve(inventory, EXTRA).hosts["gtw-01"]
    assert (of["one"], of["three"]) == ("gtw-01 [[ inventory_hostname ]]",) * 2
    assert of["two"] == "{{ inventory_hostname }} gtw-01"
