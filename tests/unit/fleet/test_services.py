"""The list of services, and what has to agree with it in programs that cannot import it."""

from __future__ import annotations

import pytest

from deploy.fleet.services import NAMES, SERVICES
from deploy.fleet.settings import PARTS
from deploy.fleet.vault_password import PROJECT
from deploy.rollout.batches import GROUP_OF, KINDS
from mt5crs_release.lifecycle.dependence import ORDER


def test_services_of_one_kind_are_on_the_same_hosts() -> None:
    assert {(service.kind, service.group) for service in SERVICES} == set(GROUP_OF.items())


def test_steps_activate_every_service_in_the_order_of_the_list() -> None:
    assert [name for names in KINDS.values() for name in names] == list(NAMES)


def test_the_host_tool_has_the_same_order() -> None:
    assert [name for name in NAMES if name in ORDER] == list(ORDER)


@pytest.mark.parametrize("name", NAMES)
def test_a_listed_service_has_all_that_both_engines_need(name: str) -> None:
    assert name in PARTS
    for path in (f"templates/release/{name}.json.j2", f"roles/{name}/tasks/main.yml"):
        assert (PROJECT / path).is_file(), path
