"""Who may connect has a version of its own: deployments change it, no way back of code lowers it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt5crs_release.desired.access_list import AccessList, both, carried, changes, narrowed
from mt5crs_release.storage.lock import boot_clock
from tests.release_host.host import FakeHost, specification

NOW = ("--confirm-timeout", "0")
LATER = ("--confirm-timeout", "60")


def client(key: str, *magics: int, permissions: tuple[str, ...] = ("observe", "trade")) -> dict[str, Any]:
    return {"key": key, "permissions": list(permissions), "magics": list(magics)}


def listed(limits: dict[str, Any] | None = None, **clients: dict[str, Any]) -> AccessList:
    magics = {str(magic) for entry in clients.values() for magic in entry["magics"]}
    usual = {magic: {"dry_run": False, "symbols": ["EURUSD"], "max_order_volume": 1.0} for magic in magics}
    return {"clients": clients, "limits": usual if limits is None else limits, "legacy": {}}


ONE = listed(inf_01=client("a1", 1), inf_02=client("b1", 2))
REVOKED = listed(inf_01=client("a1", 1))
ROTATED = listed(inf_01=client("a2", 1), inf_02=client("b1", 2))
HERE = listed(inf_01={**client("a1", 1), "addresses": ["10.0.0.1"]}, inf_02=client("b1", 2))
THERE = listed(inf_01={**client("a1", 1), "addresses": ["10.0.0.2"]}, inf_02=client("b1", 2))
RENUMBERED = listed(inf_01=client("a1", 11), inf_02=client("b1", 2))
ADDED = listed(inf_01=client("a1", 1), inf_02=client("b1", 2), inf_03=client("c1", 3))


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost.create(tmp_path / "root")


def spec(text: str, access: AccessList) -> dict[str, Any]:
    made = specification(text, access="clients.json")
    file = {"mode": "0644", "owner": "root", "group": "root", "content": json.dumps(access)}
    made["files"]["clients.json"] = file
    return made


def deploy(host: FakeHost, text: str, access: AccessList, *how: str) -> tuple[int, dict[str, Any]]:
    status, staged = host.run("stage", "gateway", spec=spec(text, access))
    assert status == 0, host.last_output
    status, answer = host.run("activate", "gateway", *(how or NOW))
    return status, {**answer, "staged": staged}


def in_force(host: FakeHost) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((host.service / "access.json").read_text())
    return document


def keys(host: FakeHost) -> set[str]:
    found = in_force(host)["clients"].values()
    return {key for entry in found for key in (entry["key"], entry.get("former_key")) if key}


def told(host: FakeHost) -> dict[str, Any]:
    found: dict[str, Any] = host.run("status")[1]["services"]["gateway"]["access"]
    return found


def test_a_rollback_does_not_let_a_revoked_client_in_again(host: FakeHost) -> None:
    deploy(host, "one", ONE)
    deploy(host, "two", REVOKED)
    serial = in_force(host)["serial"]
    assert keys(host) == {"a1"}
    assert host.run("rollback", "gateway")[0] == 0
    assert host.running() == "one"
    assert (keys(host), in_force(host)["serial"], told(host)["own"]) == ({"a1"}, serial, False)


@pytest.mark.parametrize("ends", ["unhealthy", "deadline", "confirmed elsewhere"])
def test_a_revocation_outlives_the_deployment_that_brought_it(host: FakeHost, ends: str) -> None:
    deploy(host, "one", ONE)
    if ends == "unhealthy":
        assert deploy(host, "two #unhealthy", REVOKED)[0] == 1
    elif ends == "confirmed elsewhere":
        _, answer = deploy(host, "two", REVOKED)
        assert host.run("revert", "gateway", "--confirmed", answer["generation"])[0] == 0
    else:
        deploy(host, "two", REVOKED, "--confirm-timeout", "0.05")
        assert keys(host) == {"a1"}
        while boot_clock() < host.state()["transaction"]["deadline"]:
            pass
        host.run("recover", "--watch")
    assert host.running() == "one"
    assert keys(host) == {"a1"}
    assert "2" not in in_force(host)["limits"]


def test_a_replaced_key_counts_beside_the_old_one_until_it_is_confirmed(host: FakeHost) -> None:
    deploy(host, "one", ONE)
    deploy(host, "two", ROTATED, *LATER)
    assert keys(host) == {"a1", "a2", "b1"}
    assert host.run("confirm", "gateway")[0] == 0
    assert keys(host) == {"a2", "b1"}
    assert host.run("rollback", "gateway")[0] == 0
    assert keys(host) == {"a2", "b1"}


@pytest.mark.parametrize(("wanted", "confirmed"), [(ROTATED, True), (ADDED, False)])
def test_what_is_replaced_or_added_goes_with_a_deployment_that_fails(
    host: FakeHost, wanted: AccessList, confirmed: bool
) -> None:
    deploy(host, "one", ONE)
    before = in_force(host)["serial"]
    _, answer = deploy(host, "two", wanted, *(NOW if confirmed else LATER))
    left = ("--confirmed", answer["generation"]) if confirmed else ()
    assert host.run("revert", "gateway", *left)[0] == 0
    found = in_force(host)
    assert found.pop("serial") > before
    assert found == ONE


def test_a_fleet_goes_back_with_its_magic_numbers_but_lets_no_key_in_again(host: FakeHost) -> None:
    deploy(host, "one", ONE, *NOW, "--deployment", "d1")
    deploy(host, "two", RENUMBERED, *NOW, "--deployment", "d2")
    assert host.run("undo", "--hold", "60")[0] == 0
    assert in_force(host)["clients"]["inf_01"]["magics"] in ([1, 11], [11, 1])
    assert host.run("undo", "--deployment", "d2", "--judge")[0] == 0
    assert host.run("confirm", "gateway")[0] == 0
    found = in_force(host)
    assert found.pop("serial")
    assert found == ONE
    assert host.run("undo", "--deployment", "d2", "--back")[0] == 0
    assert in_force(host)["clients"] == RENUMBERED["clients"]

    deploy(host, "three", ROTATED, *NOW, "--deployment", "d3")
    for command in (("undo", "--dry-run"), ("undo",), ("undo", "--hold", "60")):
        status, refused = host.run(*command)
        assert status == 2
        assert "refusing the former keys of inf_01" in refused["error"]["message"]
        assert "--access" in refused["error"]["remedy"]
    status, asked = host.run("undo", "--dry-run", "--access")
    assert "inf_01 with another key" in asked["services"]["gateway"]["access"]["gains"]
    assert (host.running(), keys(host)) == ("three", {"a2", "b1"})
    assert host.run("undo", "--access")[0] == 0
    assert (host.running(), keys(host)) == ("two", {"a1", "b1"})


def test_a_fleet_goes_back_with_the_addresses_of_its_hosts(host: FakeHost) -> None:
    deploy(host, "one", HERE, *NOW, "--deployment", "d1")
    deploy(host, "two", THERE, *NOW, "--deployment", "d2")
    assert host.run("undo", "--hold", "60")[0] == 0
    assert set(in_force(host)["clients"]["inf_01"]["addresses"]) == {"10.0.0.1", "10.0.0.2"}
    assert host.run("undo", "--deployment", "d2", "--judge")[0] == 0
    assert host.run("confirm", "gateway")[0] == 0
    assert in_force(host)["clients"] == HERE["clients"]
    assert told(host)["own"] is True


@pytest.mark.parametrize("then", [[], ["10.0.0.1", "10.0.0.2"]])
def test_a_fleet_that_goes_back_accepts_no_key_from_more_places(then: list[str]) -> None:
    now = listed(inf_01={**client("a1", 1), "addresses": ["10.0.0.1"]})
    older = listed(inf_01={**client("a1", 1), "addresses": then})
    assert carried(now, older) == now
    assert carried(now, listed(inf_01=client("a1", 1))) == now


def test_an_access_list_is_taken_back_by_name_and_restarts_nothing(host: FakeHost) -> None:
    deploy(host, "one", ONE)
    deploy(host, "two", REVOKED)
    serial = in_force(host)["serial"]
    runs = (host.systemd / "runs" / "mt5crs-gateway.service").read_text()
    status, asked = host.run("access", "gateway", "--dry-run")
    assert (status, asked["changed"], in_force(host)["serial"]) == (0, True, serial)
    assert asked["access"]["gains"][0] == "inf_02 (may observe, trade; magic number 2)"
    status, answer = host.run("access", "gateway")
    assert "gets access: inf_02 (may observe, trade; magic number 2)" in answer["reason"]
    assert (keys(host), in_force(host)["serial"]) == ({"a1", "b1"}, serial + 1)
    assert (host.systemd / "runs" / "mt5crs-gateway.service").read_text() == runs
    assert told(host)["own"] is False
    # And there again: what runs brought another one.
    assert host.run("access", "gateway")[1]["access"]["loses"][0].startswith("inf_02")
    assert told(host)["own"] is True
    host.run("stage", "gateway", spec=spec("three", ONE))
    host.run("activate", "gateway", *LATER)
    assert host.run("access", "gateway")[0] == 2


def test_what_is_deployed_again_puts_its_list_in_force_again(host: FakeHost) -> None:
    deploy(host, "one", ONE)
    deploy(host, "two", REVOKED)
    host.run("rollback", "gateway")
    status, answer = deploy(host, "one", ONE)
    assert answer["staged"]["reason"].endswith("another access list is in force")
    assert (status, answer["changed"], keys(host), told(host)["own"]) == (0, True, {"a1", "b1"}, True)
    assert deploy(host, "one", ONE)[1]["changed"] is False


def test_a_release_that_reads_its_own_list_is_not_gone_back_to_if_it_lets_in_again(host: FakeHost) -> None:
    old = spec("one", ONE)
    del old["access"]
    assert host.run("stage", "gateway", spec=old)[0] == 0
    assert host.run("activate", "gateway", *NOW)[0] == 0
    deploy(host, "two", ONE, *LATER)
    assert host.run("revert", "gateway")[0] == 0, "an upgrade that fails goes back"
    deploy(host, "three", ROTATED)
    assert keys(host) == {"a2", "b1"}
    status, refused = host.run("rollback", "gateway")
    assert (status, host.running()) == (2, "three")
    assert "give access again: inf_01 with another key" in refused["error"]["message"]


def test_a_list_that_is_none_is_refused_and_named(host: FakeHost) -> None:
    made = spec("one", ONE)
    made["files"]["clients.json"]["content"] = '{"clients": {"x": {"key": "canary"}}, "limits": {}}'
    status, refused = host.run("stage", "gateway", spec=made)
    assert (status, "canary" in host.last_output) == (2, False)
    assert "files['clients.json'] lacks 'permissions' of 'x'" in refused["error"]["message"]
    status, refused = host.run("stage", "gateway", spec={**spec("one", ONE), "access": "other.json"})
    assert "access must name one of files" in refused["error"]["message"]


def test_a_damaged_list_in_force_is_no_empty_one(host: FakeHost) -> None:
    deploy(host, "one", ONE)
    (host.service / "access.json").write_text("{")
    status, failed = deploy(host, "two", REVOKED)
    assert (status, host.running()) == (1, "one")
    assert "who may connect is not known" in failed["error"]["message"]
    assert told(host) is None


NAMES = st.sampled_from(["a", "b", "c"])
CLIENTS = st.dictionaries(
    NAMES,
    st.builds(
        lambda key, magics, permissions, addresses: {
            "key": key,
            "permissions": permissions,
            "magics": magics,
            **({} if addresses is None else {"addresses": addresses}),
        },
        st.sampled_from(["k1", "k2", "k3", "k4"]),
        st.lists(st.integers(1, 4), unique=True, max_size=2),
        st.lists(st.sampled_from(["observe", "trade"]), unique=True),
        st.none() | st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2"]), unique=True),
    ),
).filter(lambda clients: len({one["key"] for one in clients.values()}) == len(clients))
LIMITS = st.dictionaries(
    st.sampled_from(["1", "2", "3", "4"]),
    st.builds(
        lambda dry, symbols, most: {"dry_run": dry, "symbols": symbols, "max_daily_loss": most},
        st.booleans(),
        st.lists(st.sampled_from(["X", "Y"]), unique=True),
        st.none() | st.integers(1, 3),
    ),
)
LISTS = st.builds(
    lambda clients, limits: {"clients": clients, "limits": limits, "legacy": {}}, CLIENTS, LIMITS
)


def comes_from(entry: dict[str, Any], address: str) -> bool:
    return not entry.get("addresses") or address in entry["addresses"]


@settings(max_examples=60)
@given(now=LISTS, wanted=LISTS)
def test_no_change_of_a_list_lets_anybody_do_more_than_one_of_the_two(
    now: AccessList, wanted: AccessList
) -> None:
    left = narrowed(now, wanted)
    assert not changes(now, left).gains
    assert narrowed(left, wanted) == left
    meanwhile = both(left, wanted)
    assert set(meanwhile["clients"]) == set(wanted["clients"]), "who is removed is shut out at once"
    for name, entry in meanwhile["clients"].items():
        may = [one["clients"][name] for one in (left, wanted) if name in one["clients"]]
        assert {entry["key"], entry.get("former_key", entry["key"])} <= {one["key"] for one in may}
        assert set(entry["permissions"]) == {each for one in may for each in one["permissions"]}
        assert set(entry["magics"]) == {each for one in may for each in one["magics"]}
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
            assert comes_from(entry, address) == any(comes_from(one, address) for one in may)
    held = [entry["key"] for entry in meanwhile["clients"].values()]
    held += [entry["former_key"] for entry in meanwhile["clients"].values() if "former_key" in entry]
    assert len(held) == len(set(held)), "a key belongs to one client"
    for magic, limits in meanwhile["limits"].items():
        for other in (left, wanted):
            if magic in other["limits"]:
                told = changes({**other, "clients": {}}, {**meanwhile, "clients": {}}).gains
                assert not [one for one in told if f"number {magic}:" in one and "symbols" not in one]
        assert limits
    back = carried(now, wanted)
    assert carried(back, wanted) == back
    for name, entry in now["clients"].items():
        places, then = entry.get("addresses"), back["clients"][name].get("addresses")
        assert not places or (then and (then == places or set(places) - set(then)))
    assert [entry["key"] for entry in back["clients"].values()] == [
        entry["key"] for entry in now["clients"].values()
    ]
    assert all(
        back["clients"][name]["permissions"] == entry["permissions"] for name, entry in now["clients"].items()
    )


def test_a_put_back_that_failed_once_does_not_forget_the_list_to_go_back_to(host: FakeHost) -> None:
    gone = host.root / "gone"
    made = spec("one", ONE)
    made["health"] |= {"command": ["sh", "-c", f"test ! -e {gone}"], "healthy_deadline_s": 1.0}
    host.run("stage", "gateway", spec=made)
    host.run("activate", "gateway", *NOW)
    _, answer = deploy(host, "two", ROTATED)
    back = ("revert", "gateway", "--confirmed", answer["generation"])
    gone.touch()
    assert host.run(*back)[0] == 1
    assert (host.running(), keys(host)) == ("two", {"a2", "b1"})
    gone.unlink()
    assert host.run(*back)[0] == 0
    assert (host.running(), keys(host)) == ("one", {"a1", "b1"})
