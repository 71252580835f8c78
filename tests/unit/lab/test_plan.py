import ipaddress

import pytest

from lab.errors import LabError
from lab.plan import MAX_HOSTS, MIN_HOSTS, Host, check_name, choose_network, make_plan, plan_from_json


def test_default_fleet_has_the_addresses_that_the_committed_inventory_states() -> None:
    plan = make_plan("default", "10.203.0.0/24")

    assert plan.hosts == (
        Host("hub-01", "hub", "10.203.0.11", "13"),
        Host("inf-01", "inf", "10.203.0.21", "13"),
        Host("inf-02", "inf", "10.203.0.22", "13"),
        Host("gtw-01", "gateway", "10.203.0.31", "13"),
    )


@pytest.mark.parametrize("count", range(MIN_HOSTS, MAX_HOSTS + 1))
def test_every_size_has_distinct_usable_addresses_and_names(count: int) -> None:
    plan = make_plan("x", "10.203.7.0/24", count)

    network = ipaddress.IPv4Network(plan.network)
    addresses = {host.address for host in plan.hosts}
    usable = {str(address) for address in network.hosts()} - {plan.controller_address}
    assert len(plan.hosts) == len(addresses) == len({host.name for host in plan.hosts}) == count
    assert addresses <= usable
    groups = [host.group for host in plan.hosts]
    assert (groups.count("hub"), groups.count("gateway"), groups.count("inf")) == (1, 1, count - 2)


def test_inf_addresses_step_over_the_gateway() -> None:
    addresses = {host.name: host.address for host in make_plan("x", "10.203.7.0/24", 14).hosts}

    assert addresses["inf-10"] == "10.203.7.30"
    assert addresses["gtw-01"] == "10.203.7.31"
    assert addresses["inf-11"] == "10.203.7.41"


def test_mixed_has_both_releases_among_any_three_hosts() -> None:
    assert [host.debian for host in make_plan("x", "10.203.7.0/24", 3, "mixed").hosts] == ["13", "12", "13"]


@pytest.mark.parametrize(
    ("count", "debian", "said"), [(2, "13", "3 to 40"), (41, "13", "3 to 40"), (4, "11", "12, 13")]
)
def test_impossible_shapes_are_refused_with_what_is_possible(count: int, debian: str, said: str) -> None:
    with pytest.raises(LabError, match=said):
        make_plan("x", "10.203.7.0/24", count, debian)


@pytest.mark.parametrize("name", ["", "Default", "9lives", "a" * 21, "a/b", "..", "a b", "a_b", "x\n"])
def test_names_that_could_not_name_a_network_or_directory_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot name a lab"):
        check_name(name)


@pytest.mark.parametrize("name", ["default", "x", "a-1", "a" * 20])
def test_good_names_are_returned(name: str) -> None:
    assert check_name(name) == name


def test_default_lab_has_its_network_or_none() -> None:
    assert choose_network("default", ["10.88.0.0/16"]) == "10.203.0.0/24"
    with pytest.raises(LabError, match=r"10\.203\.0\.0/24 is in use"):
        choose_network("default", ["10.203.0.128/25"])


def test_other_labs_keep_their_network_while_it_is_free_and_take_the_next_one_otherwise() -> None:
    first = choose_network("molecule", [])

    assert choose_network("molecule", ["10.203.0.0/24"]) == first
    second = choose_network("molecule", [first])
    assert second != first
    assert ipaddress.IPv4Network(second).subnet_of(ipaddress.IPv4Network("10.203.0.0/16"))
    assert second != "10.203.0.0/24"


def test_full_supernet_is_said() -> None:
    with pytest.raises(LabError, match="no free /24"):
        choose_network("x", ["10.203.0.0/16"])


def test_plan_survives_its_record() -> None:
    plan = make_plan("x", "10.203.7.0/24", 12, "mixed")

    assert plan_from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 2, "name": "x"}', "null"])
def test_damaged_or_foreign_record_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(LabError, match="down"):
        plan_from_json(text)


def test_unknown_host_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(LabError, match="hub-01, inf-01, gtw-01"):
        make_plan("x", "10.203.7.0/24", 3).host("inf-9")


def test_only_the_gateway_of_a_lab_of_its_own_has_wine_and_debian_13() -> None:
    plan = make_plan("x", "10.203.7.0/24", wine=True)
    assert [host.name for host in plan.hosts if host.wine] == ["gtw-01"]
    assert plan_from_json(plan.to_json()) == plan
    older = (
        plan.to_json().replace('"wine": false', '"debian": "13"').replace('"wine": true', '"debian": "13"')
    )
    assert not any(host.wine for host in plan_from_json(older).hosts)  # written before there was a choice
    with pytest.raises(LabError, match="give this one a --name"):
        make_plan("default", "10.203.0.0/24", wine=True)
    with pytest.raises(LabError, match=r"only Debian 13 has a Wine.*--debian 13"):
        make_plan("x", "10.203.7.0/24", 3, "12", wine=True)
