"""Each thing that stands against a move is said with its remedy, and unknown is never good."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from deploy.migration.decision import OnHost, Seen, refusals

NEW, OLD, PEER = "10.0.0.82", "10.0.0.22", "10.0.0.31"
ON_HOST = OnHost("m1", {"eth0": [ip_interface(f"{OLD}/24"), ip_interface(f"{NEW}/24")]}, {PEER: OLD})
GOOD = Seen(host="inf-02", old=OLD, new=NEW, of_old=ON_HOST, of_new="m1")


def test_a_host_that_has_both_addresses_may_move() -> None:
    assert list(refusals(GOOD)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of_old": "no answer within 30 s"}, f"inf-02 does not answer at {OLD} (no answer within 30 s)"),
        ({"of_new": "", "not_new": "timed out"}, f"{NEW} is not reached as inf-02 from here: timed out"),
        ({"of_new": "m2"}, f"at {NEW} another machine answers"),
        ({"known_otherwise": True}, f"`ssh-keygen -R {NEW} -f FILE`"),
        ({"deploying": "anna on ctl deploys now"}, "anna on ctl deploys now; wait for its end"),
        ({"undeployed": ("gtw-01: runs another one (G-SYS-05)",)}, "deploy first"),
    ],
)
def test_what_stands_against_it(change: dict[str, object], said: str) -> None:
    (found,) = refusals(replace(GOOD, **change))  # type: ignore[arg-type]
    assert said in found


@pytest.mark.parametrize(
    ("of", "new", "said"),
    [
        ({"eth0": [f"{OLD}/24"]}, NEW, f"`ip address add {NEW}/24 dev eth0`"),
        ({"eth0": [f"{OLD}/26", "10.0.0.63/26"]}, "10.0.0.63", "the broadcast address of the host's network"),
        ({"eth0": ["10.0.0.70/26", "10.0.0.64/24", f"{OLD}/24"]}, "10.0.0.64", "itself (RFC 922)"),
    ],
)
def test_the_network_of_the_host_itself_counts(of: dict[str, list[str]], new: str, said: str) -> None:
    interfaces = {device: [ip_interface(one) for one in ones] for device, ones in of.items()}
    seen = replace(GOOD, new=new, of_old=OnHost("m1", interfaces, {}))
    assert any(said in one for one in refusals(seen)), list(refusals(seen))


def test_a_peer_without_a_route_is_not_known() -> None:
    seen = replace(GOOD, of_old=replace(ON_HOST, sources={PEER: "it has no route"}))
    assert list(refusals(seen)) == [
        f"how inf-02 would reach {PEER} is not known: it has no route; mend its routes"
    ]
