"""The list of services, and what has to agree with it in programs that cannot import it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.fleet import settings
from deploy.fleet.inventory import Fleet
from deploy.fleet.services import NAMES, SERVICES
from deploy.fleet.settings import PARTS
from deploy.fleet.vault_password import PROJECT
from deploy.rollout.batches import GROUP_OF, KINDS
from mt5crs.settings.services import endpoint_of, programs
from mt5crs_release.lifecycle.dependence import ORDER


def test_services_of_one_kind_are_on_the_same_hosts() -> None:
    assert {(service.kind, service.group) for service in SERVICES} == set(GROUP_OF.items())


def test_steps_activate_every_service_in_the_order_of_the_list() -> None:
    assert [name for names in KINDS.values() for name in names] == list(NAMES)


def test_every_program_is_listed_and_its_settings_say_where_it_serves_its_health() -> None:
    assert set(programs()) == set(NAMES) - {"baseline", "monitoring"}
    ports = [endpoint_of(name)[1].default for name in programs()]
    assert len(set(ports)) == len(ports)


def test_the_host_tool_has_the_same_order() -> None:
    assert [name for name in NAMES if name in ORDER] == list(ORDER)


@pytest.mark.parametrize("name", NAMES)
def test_a_listed_service_has_all_that_both_engines_need(name: str) -> None:
    assert name in PARTS
    for path in (f"templates/release/{name}.json.j2", f"roles/{name}/tasks/main.yml"):
        assert (PROJECT / path).is_file(), path


@pytest.mark.parametrize(
    ("endpoint", "networks", "wrong"),
    [
        ("https://api.example.org", [], True),
        ("https://api.example.org", ["203.0.113.0/28"], False),
        ("http://127.0.0.1:8443", [], False),
    ],
)
def test_a_reviewer_that_the_hub_cannot_reach_is_refused(
    endpoint: str, networks: list[str], wrong: bool
) -> None:
    """One on the Hub itself needs no network."""
    values = {"review_reviewer": {"endpoint": endpoint}, "review_provider_networks": networks}
    groups = {"hub": ("hub-01",), "review": ("hub-01",)}
    said = list(settings._check_reviews(Fleet(Path("x.yml"), "x", {"hub-01": values}, groups)))
    assert ["nobody could be reached" in line for line in said] == [True] * wrong
