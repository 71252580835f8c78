"""Life-cycle changes do to a description what they say, without hosts; what the matrix measures with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import keys
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.services import SERVICES
from deploy.rollout import generation
from deploy.rollout.generation import Bundle
from deploy.rollout.impact import impact
from lab import inventory
from lab.plan import make_plan
from lab.state import PROJECT, LabDirectory
from tests.lab.lifecycle.changes import CHANGES, GATEWAY, HUB, SPARE, TRADING, Change
from tests.lab.lifecycle.description import Description
from tests.lab.lifecycle.told import live, nothing_to_do, restarts
from tests.lab.lifecycle.trading import longest_pause_s
from tests.lab.lifecycle.walks import WALKS, fits
from tests.unit.fleets import SIGNER


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Description, Fleet]]:
    """The fleet of the matrix, in a directory of its own, and what it resolves to."""
    directory = LabDirectory("unit", tmp_path_factory.mktemp("lab"))
    plan = make_plan("unit", "10.203.77.0/24", 5)
    directory.save(plan)
    directory.inventory.write_text(inventory.render(plan))
    members = replace(plan, hosts=tuple(host for host in plan.hosts if host.name != SPARE))
    settings = {"fleet_bundle": "README.md", "baseline_release_signers": [SIGNER]}
    made = Description(directory, members, settings)
    made.write()
    keys.make(made.inventory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            generation,
            "find_bundle",
            lambda name: Bundle(Path(name), ("1" if "dependency" in name else "0") * 64),
        )
        yield made, resolve(made.inventory)


MEMBERSHIP = ("add an Inf", "add an Inf on a machine", "remove an Inf", "move an Inf")


def files(description: Description) -> dict[str, bytes]:
    """Everything beside an inventory."""
    root = description.directory.root
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_change_restarts_what_it_says_and_is_taken_out_again(
    described: tuple[Description, Fleet], change: Change
) -> None:
    description, before = described
    saved, kept = description.saved(), files(description)
    change.make(description)
    after = resolve(description.inventory)
    description.restore(saved)
    assert files(description).items() >= kept.items()
    assert not after.unresolved
    members = {name: values for name, values in after.hosts.items() if name in before.hosts}
    found = impact(before, replace(after, hosts=members))
    assert found.services or found.hosts
    if change.name in MEMBERSHIP:
        concerned = {HUB, *(host for host, _ in change.restarts | change.live)}
        assert {host for host, _ in found.services} <= concerned, "the rest of the fleet is left alone"
    assert {member for member in found.live if member[1] in TRADING} == change.live
    activated = {member for member in found.restarts if member[1] in TRADING}
    bound = {(host, one.name) for host, service in activated for one in SERVICES if one.bound_to == service}
    assert activated | bound == change.restarts


def test_every_change_has_walks_and_no_part_goes_back_that_it_leaves_alone() -> None:
    fitting = {change.name: {walk for walk in WALKS if fits(change, walk)} for change in CHANGES}
    assert all("deployed" in walks and "rolled back" in walks for walks in fitting.values())
    assert "strategy rolled back" not in fitting["add an Inf"]
    assert "gateway rolled back" in fitting["gateway ports"]
    assert {walk for walks in fitting.values() for walk in walks} == set(WALKS)


def test_the_documentation_says_what_each_change_restarts_and_what_goes_back() -> None:
    lines = (PROJECT / "docs" / "rollout.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    told = {row[0].strip(): (row[1].strip(), row[2].strip()) for row in rows if len(row) == 3}
    for change in CHANGES:
        restarts, back = told[change.name]
        assert re.split("[:;.]", back)[0] == change.back.value, change.name
        assert (restarts == "nothing") is not bool(change.restarts), change.name
        assert ("gateways" in restarts) is ((GATEWAY, "gateway") in change.restarts), change.name


def test_the_longest_pause_counts_from_the_beginning_to_the_end() -> None:
    assert longest_pause_s([1500, 2000, 9000], (1000, 4000)) == 2.0
    assert longest_pause_s([1500], (1000, 9000)) == 7.5
    assert longest_pause_s([], (1000, 4000)) == 3.0
    # The test's own doing does not count, what was missing before it and is after it does.
    assert longest_pause_s([1500, 6000, 7000], (1000, 8000), [(1600, 5000)]) == 1.0
    assert longest_pause_s([1500, 9000], (1000, 9500), [(4000, 5000)]) == 4.0
    assert longest_pause_s([1500], (1000, 9500), [(8000, 8500), (4000, 5000)]) == 3.0


def test_what_a_run_says_beforehand_is_read() -> None:
    said = (
        "consequences:\n  restarts   gateway on gtw-01\n  restarts   reconciler, strategy on inf-01, inf-02\n"
    )
    assert restarts(said) == {
        ("gtw-01", "gateway"),
        *((host, service) for host in ("inf-01", "inf-02") for service in ("reconciler", "strategy")),
    }
    assert restarts(f"ok: [hub-01] => {{'msg': '{said}'}}") == restarts(said)
    assert live("  live       gateway on gtw-01: no restart\n") == {("gtw-01", "gateway")}
    assert nothing_to_do("plan 0123456789ab: no service has anything to do\n")
