import ast
from pathlib import Path

import yaml

from lab.inventory import PYINFRA, render
from lab.plan import make_plan
from lab.state import PROJECT


def test_rendered_inventory_of_the_default_fleet_equals_the_committed_one() -> None:
    committed = yaml.safe_load((PROJECT / "inventory/lab.yml").read_text())
    rendered = yaml.safe_load(render(make_plan("default", "10.203.0.0/24")))

    # Only where the lab's directory is differs: the inventory of other labs lies in it.
    assert {"fleet_ssh_key", "fleet_ssh_known_hosts"} <= committed["lab"]["vars"].keys()
    for tree in (committed, rendered):
        for variable in ("fleet_ssh_key", "fleet_ssh_known_hosts"):
            tree["lab"]["vars"][variable] = Path(tree["lab"]["vars"][variable]).name
    assert rendered == committed


def test_every_host_is_in_its_group() -> None:
    plan = make_plan("x", "10.203.7.0/24", 40)

    groups = yaml.safe_load(render(plan))["lab"]["children"]

    found = {
        (group, name, values["ansible_host"])
        for group, members in groups.items()
        for name, values in members["hosts"].items()
    }
    assert found == {(host.group, host.name, host.address) for host in plan.hosts}


def test_pyinfra_side_is_the_one_of_the_committed_inventory() -> None:
    def statements(text: str) -> list[str]:
        return [ast.dump(node) for node in ast.parse(text).body[1:]]  # without the docstring

    assert statements(PYINFRA) == statements((PROJECT / "inventory/lab.py").read_text())


def test_a_gateway_with_wine_is_deployed_as_such() -> None:
    rendered = yaml.safe_load(render(make_plan("x", "10.203.7.0/24", wine=True)))
    hosts = {
        name: values
        for group in rendered["lab"]["children"].values()
        for name, values in group["hosts"].items()
    }
    assert [name for name, values in hosts.items() if values.get("gateway_platform") == "wine"] == ["gtw-01"]
