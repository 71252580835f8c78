"""Bad settings of a fleet: each is one sentence with host, variable, cause and remedy, all at once."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from deploy import argument_specs
from deploy.fleet import settings
from deploy.fleet.inventory import Fleet, Unresolved
from deploy.fleet.settings import check, check_addresses, require
from mt5crs.settings.schema import SettingsError
from tests.unit.fleets import make_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = make_fleet(tmp_path_factory.mktemp("check"))
    assert check(made) == []
    return made


def with_value(fleet: Fleet, name: str, value: Any, host: str = "inf-01") -> Fleet:
    hosts = {key: dict(values) for key, values in fleet.hosts.items()}
    if value is ...:
        del hosts[host][name]
    else:
        hosts[host][name] = value
    return replace(fleet, hosts=hosts)


def test_a_client_listed_twice_is_told(fleet: Fleet) -> None:
    clients = fleet.hosts["gtw-01"]["gateway_clients"]
    (found,) = check(with_value(fleet, "gateway_clients", [*clients, clients[0]], "gtw-01"))
    assert f"gateway_clients: {clients[0]['name']} is listed 2 times, and only one would count" in found


def test_two_gateways_of_one_account_are_told(fleet: Fleet) -> None:
    mt5 = {"gateway_backend": "mt5", "gateway_mt5_login": 4711, "gateway_mt5_server": "Broker-Live"}
    one = {**fleet.hosts["gtw-01"], **mt5}
    second = {**one, "gateway_mt5_server": "broker-live", "fleet_address": "10.99.0.99"}
    both = replace(
        fleet,
        hosts={**fleet.hosts, "gtw-01": one, "gtw-02": second},
        groups={**fleet.groups, "gateway": (*fleet.groups["gateway"], "gtw-02")},
    )
    told = [each for each in check(both) if "is the account of" in each]
    assert len(told) == 1
    assert "gtw-02: gateway_mt5_login" in told[0]
    assert "is the account of gtw-01, too" in told[0]
    both.hosts["gtw-02"]["gateway_mt5_login"] = 4712
    assert not [each for each in check(both) if "is the account of" in each]


def test_wine_on_a_windows_host_is_told(fleet: Fleet) -> None:
    under_wine = with_value(fleet, "gateway_platform", "wine", "gtw-01")
    assert not check(under_wine)
    (found,) = check(replace(under_wine, groups={**fleet.groups, "windows": ("gtw-01",)}))
    assert "gtw-01: gateway_platform" in found
    assert "is wine on a Windows host" in found


def plain(address: str, *permissions: str) -> dict[str, Any]:
    return {"old": {"address": address, "permissions": ["observe", *permissions], "magics": [7]}}


@pytest.mark.parametrize(
    ("name", "value", "host", "expected"),
    [
        (
            "reconciler_sync_timout_s",
            3,
            "inf-01",
            r"reconciler_sync_timout_s.* did you mean reconciler_sync_timeout_s\?",
        ),
        ("gateway_zzz", "red", "gtw-01", r"gateway_zzz is unknown; remove it"),
        ("reconciler_sync_timeout_s", "3", "inf-01", r"is '3', expected a number from 0\.05 to 60"),
        (
            "reconciler_gateway_port",
            70000,
            "inf-01",
            r"reconciler_gateway_port .* is 70000, expected a whole number",
        ),
        ("gateway_backend", "mt4", "gtw-01", r"expected one of sim, mt5"),
        (
            "strategy_client_secret_key",
            ...,
            "inf-01",
            r"missing; create it with `python -m deploy.keys --inventory .*inventory\.yml`",
        ),
        ("strategy_strategy_options", {"a": "it's"}, "inf-01", r"single quote"),
        ("gateway_mt5_server", "a\nb", "gtw-01", r"cannot be written to \.env"),
        ("fleet_magic_number", 202402, "inf-01", None),
        ("strategy_magic_number", 202402, "inf-01", r"202402 is traded by inf-01 already.*one writer"),
        (
            "fleet_gateway",
            "gtw-09",
            "inf-01",
            r"fleet_gateway is 'gtw-09', which is no host of the group gateway \(gtw-01\)",
        ),
        (
            "fleet_bundle",
            "dist/none.tar",
            "inf-01",
            r"dist/none\.tar does not exist; build it with `make bundle`",
        ),
        (
            "fleet_address",
            "10.9.9.0",
            "inf-01",
            r"is the address of network 10\.9\.9\.0/24 itself \(RFC 922\)",
        ),
        ("fleet_address", "10.9.9.255", "inf-01", r"broadcast address of 10\.9\.9\.0/24 \(RFC 919\)"),
        ("fleet_address", "255.255.255.255", "inf-01", r"no address of a single host"),
        ("gateway_legacy", plain("10.9.9.255"), "gtw-01", r"old's address 10\.9\.9\.255 is the broadcast"),
        ("gateway_legacy", plain("10.9.9.0"), "gtw-01", r"old's address .* of network 10\.9\.9\.0/24 itself"),
        ("gateway_legacy", plain("192.0.2.7"), "gtw-01", r"old's address .* placeholder"),
        ("gateway_legacy", plain("old-inf"), "gtw-01", r"gateway_legacy: old in legacy: 'old-inf' is not an"),
        ("gateway_legacy", plain("10.9.9.77", "trade"), "gtw-01", r"trade magic number 7, .* no limits"),
        ("gateway_legacy", plain("10.9.9.77"), "gtw-01", None),
        ("fleet_address", "192.0.2.7", "inf-01", r"placeholder reserved for documentation"),
        ("fleet_address", "10.9.9.13", "inf-01", r"10\.9\.9\.13 is inf-01's already"),
        ("fleet_address", "10.8.8.8", "inf-01", r"in none of fleet_networks \(10\.9\.9\.0/24\)"),
        ("fleet_address", "gateway.example.org", "inf-01", r"expected an address"),
    ],
)
def test_one_bad_setting(fleet: Fleet, name: str, value: Any, host: str, expected: str | None) -> None:
    problems = check(with_value(fleet, name, value, host))
    if expected is None:
        assert problems == []
        return
    assert len(problems) == 1, problems
    assert re.search(expected, problems[0]), problems[0]


def test_all_problems_at_once_and_nothing_touched(fleet: Fleet) -> None:
    bad = with_value(with_value(fleet, "gateway_backend", "mt4", "gtw-01"), "strategy_volume", -1)
    with pytest.raises(SettingsError, match=r"nothing was touched\): 2 problems"):
        require(bad)


def test_a_bad_secret_is_not_repeated(fleet: Fleet) -> None:
    problems = check(with_value(fleet, "strategy_client_secret_key", "hunter2"))
    assert len(problems) == 1
    assert "hunter2" not in problems[0]


def test_the_same_problem_of_all_hosts_is_said_once(fleet: Fleet) -> None:
    bad = fleet
    for host in fleet.hosts:
        bad = with_value(bad, "baseline_ssh_port", 0, host)
    problems = check(bad)
    assert len(problems) == 1
    assert problems[0].startswith("all hosts: ")


def test_what_follows_from_a_missing_variable_is_not_said_again(fleet: Fleet) -> None:
    bad = with_value(fleet, "fleet_client_public_keys", ...)
    bad = with_value(bad, "fleet_clients", ...)
    item = Unresolved("inf-01", "fleet_clients", "'fleet_client_public_keys' is undefined")
    problems = check(replace(bad, unresolved=(item,)))
    assert len(problems) == 1, problems
    assert problems[0].startswith("inf-01: fleet_client_public_keys")


def test_a_fleet_without_gateway_or_hosts(fleet: Fleet) -> None:
    groups = {**fleet.groups, "gateway": ()}
    assert any("no host in the group gateway" in text for text in check(replace(fleet, groups=groups)))
    assert any("has no hosts" in text for text in check(replace(fleet, hosts={}, groups={})))


def test_host_outside_every_group(fleet: Fleet) -> None:
    groups = {**fleet.groups, "hub": ()}
    assert any(
        "none of the groups hub, inf, gateway" in text for text in check(replace(fleet, groups=groups))
    )


def test_point_to_point_networks_have_no_network_address() -> None:
    networks = {"a": ["10.0.0.0/31"], "b": ["10.0.0.0/31"]}
    assert list(check_addresses({"a": "10.0.0.0", "b": "10.0.0.1"}, networks)) == []


@pytest.mark.parametrize("path", argument_specs.rendered(), ids=lambda path: "/".join(path.parts[-3:]))
def test_generated_files_are_current(path: Any) -> None:
    rendered: Callable[[], dict[Any, str]] = argument_specs.rendered
    assert path.read_text(encoding="utf-8") == rendered()[path], "run `python -m deploy.argument_specs`"


def test_a_host_over_which_others_are_reached_must_forward(fleet: Fleet) -> None:
    over = with_value(fleet, "ansible_ssh_extra_args", "-J ops@hub-01", "inf-01")
    assert [line for line in check(over) if "ProxyJump" in line] == [
        (
            "hub-01: inf-01 is reached over it (ProxyJump), but its sshd would not forward connections; set "
            "baseline_ssh_tcp_forwarding: true for it"
        )
    ]
    open_one = with_value(over, "baseline_ssh_tcp_forwarding", True, "hub-01")
    assert not [line for line in check(open_one) if "ProxyJump" in line]


@pytest.mark.parametrize(
    ("strategy", "environment", "built", "expected"),
    [
        ("mine", "lab", {}, None),
        ("mine", "production", {}, None),
        (
            "other",
            "lab",
            {},
            r"strategy_strategy is 'other', but the bundle mine offers mine; name one of them",
        ),
        ("mine:Class", "lab", {}, None),
        ("mine", "lab", {"unlocked": ["it has no lock file"]}, None),
        (
            "mine",
            "production",
            {"unlocked": ["it has no lock file"]},
            r"not all locked, .*lab, dev, test take",
        ),
        (
            "mine",
            "lab",
            {"file": "none.tar"},
            r"strategy_bundle mine is not built; build it with `make strategy-",
        ),
    ],
)
def test_a_strategy_s_own_bundle(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    environment: str,
    built: dict[str, Any],
    expected: str | None,
) -> None:
    monkeypatch.setattr(settings, "STRATEGIES", "docs")
    given = {"file": "strategy.md", "strategies": ["mine"], "unlocked": [], **built}
    values = {"strategy_bundle": "mine", "strategy_built": given, "strategy_strategy": strategy}
    hosts = {name: {**of, **values} if name.startswith("inf") else of for name, of in fleet.hosts.items()}
    problems = check(replace(fleet, hosts=hosts, environment=environment))
    if expected is None:
        assert problems == []
        return
    (found,) = problems
    assert found.startswith("inf-01, inf-02: ")
    assert re.search(expected, found)


_LEVEL = {"level": {"kind": "number", "description": "Price.", "ge": 1}}
KNOWN = {
    "file": "strategy.md",
    "strategies": ["mine"],
    "unlocked": [],
    "options": {"mine": _LEVEL, "mine:Mine": _LEVEL},
}


@pytest.mark.parametrize(
    ("built", "strategy", "given", "expected"),
    [
        ({}, "example", {"hold_s": 5}, None),
        ({}, "example", {"hold": 5}, r"there is no option hold; did you mean hold_s\?"),
        ({}, "example", {"hold_s": -1}, r"option hold_s is -1, expected a number from 0"),
        (KNOWN, "mine", {"level": 2}, None),
        (KNOWN, "mine", {}, r"option level is missing, expected a number from 1.*Price\."),
        (KNOWN, "mine:Mine", {"level": 0}, r"option level is 0, expected a number from 1"),
        (KNOWN, "mine:Another", {"anything": 0}, None),
        ({**KNOWN, "options": {}}, "mine", {"anything": 0}, None),
    ],
)
def test_a_strategy_s_options_are_checked_without_its_code(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    built: dict[str, Any],
    strategy: str,
    given: dict[str, Any],
    expected: str | None,
) -> None:
    monkeypatch.setattr(settings, "STRATEGIES", "docs")
    values = {"strategy_built": built, "strategy_strategy": strategy, "strategy_strategy_options": given}
    values |= {"strategy_bundle": "mine"} if built else {}
    hosts = {name: {**of, **values} if name.startswith("inf") else of for name, of in fleet.hosts.items()}
    problems = check(replace(fleet, hosts=hosts, environment="lab"))
    assert len(problems) == (0 if expected is None else 1), problems
    if expected is not None:
        assert "strategy_strategy_options" in problems[0]
        assert re.search(expected, problems[0])
