"""Another machine is a gateway in the files of a fleet, and every other byte stays as somebody wrote it."""

from __future__ import annotations

import pytest

from deploy.decommission.inventory_file import NotEditableError
from deploy.decommission.renaming import Renaming

RENAMING = Renaming("gtw-01", "gtw-02", "10.9.9.14", "10.9.9.15")
TEXT = """\
---
# gtw-01 is ours.
lab:
  children:
    inf:
      hosts:
        inf-01: {ansible_host: 10.9.9.12, fleet_gateway: "gtw-01"}  # trades at gtw-01
        inf-02:
          ansible_host: 10.9.9.13
          fleet_gateway: gtw-09
    gateway:
      hosts:
        gtw-01:  # the first
          ansible_host: '10.9.9.14'
          note: gtw-01
        gtw-09:
          ansible_host: 10.9.9.19
    wine:
      hosts:
        gtw-01:
  vars:
    fleet_gateway: gtw-01
    secret: !vault |
      $ANSIBLE_VAULT;1.1;AES256
"""
THEN = """\
---
# gtw-01 is ours.
lab:
  children:
    inf:
      hosts:
        inf-01: {ansible_host: 10.9.9.12, fleet_gateway: "gtw-02"}  # trades at gtw-01
        inf-02:
          ansible_host: 10.9.9.13
          fleet_gateway: gtw-09
    gateway:
      hosts:
        gtw-02:  # the first
          ansible_host: '10.9.9.15'
          note: gtw-01
        gtw-09:
          ansible_host: 10.9.9.19
    wine:
      hosts:
        gtw-02:
  vars:
    fleet_gateway: gtw-02
    secret: !vault |
      $ANSIBLE_VAULT;1.1;AES256
"""


def test_the_host_its_address_and_what_refers_to_it_change_and_nothing_else() -> None:
    assert RENAMING.in_inventory(TEXT) == THEN
    assert RENAMING.in_inventory(THEN) == THEN  # called again after a kill


def test_variables_beside_it_name_the_new_one() -> None:
    assert RENAMING.in_variables("a: gtw-01\nfleet_gateway: gtw-01  # now\n") == (
        "a: gtw-01\nfleet_gateway: gtw-02  # now\n"
    )
    assert RENAMING.in_variables("") == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "no YAML"),
        ("lab: {hosts: {inf-01: {}}}", "does not list gtw-01"),
        ("lab: {hosts: {gtw-01: {ansible_host: 10.9.9.99}}}", "its address 10.9.9.14"),
        (
            "x: &of {ansible_host: 10.9.9.14}\nlab: {hosts: {gtw-01: *of}}\nother: {hosts: {a: *of}}\n",
            "an anchor",
        ),
    ],
)
def test_what_is_not_written_there_is_left_to_a_person(text: str, why: str) -> None:
    with pytest.raises(NotEditableError, match=why):
        RENAMING.in_inventory(text)
