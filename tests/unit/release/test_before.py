"""Until it is confirmed, a generation's units can know what ran before it; afterwards it counts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.release_host.host import UNIT, FakeHost, knowing, specification

NOW = ("--confirm-timeout", "0")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost.create(tmp_path / "root")


def spec(text: str) -> dict[str, Any]:
    return specification(text, reload_on_confirm=[UNIT])


def before(host: FakeHost) -> tuple[str | None, str | None]:
    """What the pointer names, and what it named when the unit last looked."""
    link = host.service / "before"
    return link.readlink().name if link.is_symlink() else None, host.seen_before()


def activate(host: FakeHost, text: str, *confirm: str) -> str:
    _, staged = host.run("stage", "gateway", spec=spec(text))
    status, answer = host.run("activate", "gateway", *confirm)
    assert status == 0, answer
    return str(staged["generation"])


def deploy(host: FakeHost, text: str) -> str:
    return activate(host, text, *NOW)


def provisional(host: FakeHost, text: str) -> str:
    return activate(host, text, "--confirm-timeout", "60")


def test_it_names_what_ran_until_the_confirmation(host: FakeHost) -> None:
    one = deploy(host, "one")
    assert before(host) == (None, None)
    provisional(host, "two")
    assert before(host) == (one, one)
    assert host.run("confirm", "gateway")[0] == 0
    assert before(host) == (None, None)


def test_a_revert_forgets_it_before_the_other_one_starts(host: FakeHost) -> None:
    one = deploy(host, "one")
    provisional(host, "two")
    assert host.run("revert", "gateway")[1]["generation"] == one
    assert before(host) == (None, None)


def test_a_rollback_names_what_it_leaves_only_meanwhile(host: FakeHost) -> None:
    one = deploy(host, "one")
    deploy(host, "two")
    assert host.run("rollback", "gateway")[1]["generation"] == one
    assert before(host) == (None, None)


@pytest.mark.parametrize("at_once", [True, False])
def test_one_that_cannot_count_alone_is_not_confirmed(host: FakeHost, at_once: bool) -> None:
    one = deploy(host, "one")
    if at_once:
        host.run("stage", "gateway", spec=spec("two #stubborn"))
        status, answer = host.run("activate", "gateway", *NOW)
    else:
        provisional(host, "two #stubborn")
        status, answer = host.run("confirm", "gateway")
    assert status == 1
    assert "systemctl reload" in answer["error"]["message"]
    assert host.run("status")[1]["services"]["gateway"]["current"] == one
    assert before(host) == (None, None)


OLD = "IPAddressAllow=localhost 192.0.2.1\nIPAddressAllow=192.0.2.7"
NEW = "IPAddressAllow=localhost 192.0.2.1\nIPAddressAllow=2001:db8::7"
"""A peer moves from 192.0.2.7 to 2001:db8::7."""


def admitted_too(host: FakeHost) -> list[str]:
    """What is below /run for the unit: the drop-in's lines, if there is one."""
    found = sorted((host.root / "run/systemd/system").glob(f"{UNIT}.d/*"))
    assert len(found) <= 1
    return found[0].read_text().splitlines() if found else []


def unit(text: str) -> dict[str, Any]:
    return specification(text.replace("\n", " "), units={UNIT: text})


def stage(host: FakeHost, text: str) -> None:
    status, answer = host.run("stage", "gateway", spec=unit(text))
    assert status == 0, answer


def test_a_unit_admits_the_peers_of_before_until_the_confirmation(host: FakeHost) -> None:
    stage(host, OLD)
    assert host.run("activate", "gateway", *NOW)[0] == 0
    assert admitted_too(host) == []
    stage(host, NEW)
    assert host.run("activate", "gateway", "--confirm-timeout", "60")[0] == 0
    assert admitted_too(host) == ["[Service]", "IPAddressAllow=192.0.2.7"]
    assert host.run("confirm", "gateway")[0] == 0
    assert admitted_too(host) == []
    assert not (host.root / f"run/systemd/system/{UNIT}.d").exists()
    # Reading the units again does not touch the filter of what runs; this has it made anew.
    assert (host.systemd / "properties").read_text() == f"{UNIT} IPAccounting=no\n"


def test_a_revert_admits_the_peers_of_what_runs_again_alone(host: FakeHost) -> None:
    stage(host, OLD)
    host.run("activate", "gateway", *NOW)
    stage(host, NEW)
    host.run("activate", "gateway", "--confirm-timeout", "60")
    assert host.run("revert", "gateway")[0] == 0
    assert admitted_too(host) == []


@pytest.mark.parametrize(("before", "after"), [(OLD, OLD + " 192.0.2.8"), (OLD, "free"), ("free", NEW)])
def test_a_unit_that_leaves_nobody_out_needs_no_drop_in(host: FakeHost, before: str, after: str) -> None:
    stage(host, before)
    host.run("activate", "gateway", *NOW)
    stage(host, after)
    assert host.run("activate", "gateway", "--confirm-timeout", "60")[0] == 0
    assert admitted_too(host) == []


def test_a_drop_in_of_a_unit_counts_as_the_unit(host: FakeHost) -> None:
    def with_drop_in(peers: str) -> dict[str, Any]:
        return specification("one", units={UNIT: "one", f"{UNIT}.d/mt5crs.conf": peers})

    host.run("stage", "gateway", spec=with_drop_in(OLD))
    host.run("activate", "gateway", *NOW)
    host.run("stage", "gateway", spec=with_drop_in(NEW))
    assert host.run("activate", "gateway", "--confirm-timeout", "60")[0] == 0
    assert admitted_too(host) == ["[Service]", "IPAddressAllow=192.0.2.7"]


THERE = 'Environment="LISTENS_AT=requests:5555 events:5556"'
ELSEWHERE = 'Environment="LISTENS_AT=requests:5565 events:5556"'
FORMERLY = 'Environment="FORMERLY_AT=requests:5555 events:5556"'


def test_a_unit_is_told_the_ports_of_before_until_the_confirmation(host: FakeHost) -> None:
    stage(host, f"{OLD}\n{THERE}")
    assert host.run("activate", "gateway", *NOW)[0] == 0
    stage(host, f"{NEW}\n{ELSEWHERE}")
    assert host.run("activate", "gateway", "--confirm-timeout", "60")[0] == 0
    assert admitted_too(host) == ["[Service]", "IPAddressAllow=192.0.2.7", FORMERLY]
    assert host.run("confirm", "gateway")[0] == 0
    assert admitted_too(host) == []


@pytest.mark.parametrize(
    ("before", "after", "told"), [(THERE, THERE, []), (OLD, THERE, []), (THERE, "free", [FORMERLY])]
)
def test_ports_are_told_where_they_differ(host: FakeHost, before: str, after: str, told: list[str]) -> None:
    stage(host, before)
    host.run("activate", "gateway", *NOW)
    stage(host, after + "\n# another one")
    assert host.run("activate", "gateway", "--confirm-timeout", "60")[0] == 0
    assert admitted_too(host)[1:] == told


KEY, OTHER_KEY = "0" * 63 + "1", "0" * 63 + "2"


def test_a_service_is_told_the_gateways_former_key_until_the_confirmation(host: FakeHost) -> None:
    host.run("stage", "gateway", spec=knowing(specification("one"), KEY))
    assert host.run("activate", "gateway", *NOW)[0] == 0
    assert admitted_too(host) == []
    assert host.run("status")[1]["services"]["gateway"]["server_key"] == KEY
    host.run("stage", "gateway", spec=knowing(specification("one"), OTHER_KEY))
    assert host.run("activate", "gateway", "--confirm-timeout", "60", "--former-key")[0] == 0
    assert admitted_too(host) == ["[Service]", f'Environment="FORMER_GATEWAY_PUBLIC_KEY={KEY}"']
    assert host.run("status")[1]["services"]["gateway"]["server_key"] == OTHER_KEY
    assert host.run("confirm", "gateway")[0] == 0
    assert admitted_too(host) == []


@pytest.mark.parametrize(("before", "after"), [(KEY, KEY), ("", KEY), ('x" Nice=1', KEY), ("none", KEY)])
def test_only_another_key_is_told(host: FakeHost, before: str, after: str) -> None:
    made = specification("one")
    host.run("stage", "gateway", spec=made if before == "none" else knowing(made, before))
    host.run("activate", "gateway", *NOW)
    host.run("stage", "gateway", spec=knowing(specification("two"), after))
    assert host.run("activate", "gateway", "--confirm-timeout", "60", "--former-key")[0] == 0
    assert admitted_too(host) == []


def test_without_a_gateway_that_follows_no_former_key_is_told(host: FakeHost) -> None:
    for key in (KEY, OTHER_KEY):
        host.run("stage", "gateway", spec=knowing(specification("one"), key))
        assert host.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0
        assert admitted_too(host) == []
    assert host.run("rollback", "gateway")[0] == 0
    assert admitted_too(host) == []
