"""Where a setting comes from: what wins is what Ansible uses, for any layers; secrets stay hidden."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.fleet.inventory import resolve
from deploy.fleet.layers import HIDDEN, SECRETS, history, layers, names
from tests.unit.fleets import make_inventory

PLACES = (
    "inventory all",
    "inventory lab",
    "inventory inf",
    "inventory inf-01",
    "group_vars/all",
    "group_vars/lab",
    "group_vars/inf",
    "host_vars/inf-01",
)
NAMES = ("reconciler_sync_timeout_s", "fleet_a", "fleet_b")


def written(directory: Path, chosen: dict[str, dict[str, Any]]) -> Path:
    """An inventory whose layers say what was chosen, a file for each beside it."""
    said: dict[str, dict[str, Any]] = {
        "lab": {"fleet_environment": "lab"},
        "all": {},
        "inf": {},
        "inf-01": {},
    }
    for place, values in chosen.items():
        if place.startswith("inventory "):
            said[place.removeprefix("inventory ")].update(values)
        else:
            file = directory / f"{place}.yml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(values))
    inf = {"hosts": {"inf-01": said["inf-01"], "inf-02": {}}, "vars": said["inf"]}
    tree = {"lab": {"children": {"inf": inf}, "vars": said["lab"]}, "all": {"vars": said["all"]}}
    path = directory / "inventory.yml"
    path.write_text(json.dumps(tree))
    return path


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(PLACES), st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9), min_size=1)
    )
)
def test_what_wins_is_what_ansible_uses(chosen: dict[str, dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        inventory = written(Path(directory), chosen)
        fleet = resolve(inventory)
        for host, of in layers(inventory).items():
            for name in NAMES:
                found = history(of, name)
                value = fleet.hosts[host].get(name)
                assert [one.value for one in found[:1]] == ([] if value is None else [repr(value)])
                if found:
                    assert found[0].origin == fleet.origins[host, name] != ""
                    beside = [place for place in chosen if name in chosen[place]]
                    # The project's defaults are one layer more.
                    applies = [place for place in beside if host == "inf-01" or not place.endswith("inf-01")]
                    assert len(found) == len(applies) + (name == NAMES[0])


def test_every_setting_of_a_fleet_is_explained(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    fleet = resolve(inventory)
    for host, of in layers(inventory).items():
        assert set(names(of)) >= {name for name, file in _set_in_files(fleet, host)}
        for name, file in _set_in_files(fleet, host):
            assert history(of, name)[0].origin == file, name


def _set_in_files(fleet: Any, host: str) -> list[tuple[str, str]]:
    return [(name, file) for (of, name), file in fleet.origins.items() if of == host and file]


def test_secrets_are_named_and_hidden(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    (secret,) = history(layers(inventory)["gtw-01"], "vault_gateway_secret_keys")
    assert (secret.kind, secret.value) == (SECRETS, HIDDEN)
    key = history(layers(inventory)["gtw-01"], "gateway_secret_key")[0]
    assert key.value == HIDDEN


@pytest.mark.parametrize("on", [None, "inf-01"])
def test_a_value_may_be_tried_on_one_host(tmp_path: Path, on: str | None) -> None:
    inventory = make_inventory(tmp_path)
    value = {"reconciler_recheck_interval_s": 12.5}
    fleet = resolve(inventory, None if on else value, {on: value} if on else None)
    tried = {host: fleet.hosts[host]["reconciler_recheck_interval_s"] for host in ("inf-01", "inf-02")}
    assert (tried["inf-01"] == 12.5, tried["inf-02"] == 12.5) == (True, on is None)
