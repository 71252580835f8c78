"""A host goes out of the inventory, and every other line stays as somebody wrote it."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy.decommission.inventory_file import NotEditableError, without

TEXT = """\
---
# Ours.
lab:
  children:
    inf:
      hosts:
        inf-01:  # the first
          ansible_host: 192.0.2.1
        inf-02:
          ansible_host: 192.0.2.2
          baseline_ssh_sources:
            - 192.0.2.9
            - 192.0.2.8
          note: |
            two
            lines
        # of the third, with a secret
        inf-03: {ansible_host: 192.0.2.3}
    windows:
      hosts:
        inf-02:
  vars:
    hosts_are: !vault |
      $ANSIBLE_VAULT;1.1;AES256
"""
LEFT = """\
---
# Ours.
lab:
  children:
    inf:
      hosts:
        inf-01:  # the first
          ansible_host: 192.0.2.1
        # of the third, with a secret
        inf-03: {ansible_host: 192.0.2.3}
    windows:
      hosts:
  vars:
    hosts_are: !vault |
      $ANSIBLE_VAULT;1.1;AES256
"""


def test_all_its_lines_go_and_no_other() -> None:
    assert without(TEXT, "inf-02") == LEFT
    assert without(LEFT, "inf-03").count("inf-03") == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("all: {hosts: {a: {}, b: {}}}\n", "does not stand on lines of its own"),
        ("all:\n  hosts:\n    b:\n", "does not list a by its own name"),
        ("all:\n  hosts:\n    h[1:3]:\n", "does not list a"),
        ("all: [\n", "is no YAML"),
        ("", "does not list a"),
    ],
)
def test_what_cannot_be_edited_is_left_to_people(text: str, why: str) -> None:
    with pytest.raises(NotEditableError, match=f"{why}.*by hand|{why}.*yourself"):
        without(text, "a")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab:#- \n'\"", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=5,
)
HOSTS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3), min_size=1
)


@given(HOSTS, st.booleans())
def test_however_it_is_written_the_rest_means_what_it_meant(
    hosts: dict[str, dict[str, object]], wide: bool
) -> None:
    name = sorted(hosts)[0]
    tree = {"all": {"children": {"inf": {"hosts": hosts}}, "vars": {"v": 1}}}
    text = yaml.safe_dump(tree, sort_keys=wide, width=1000 if wide else 20)
    try:
        changed = without(text, name)
    except NotEditableError:
        return
    left = yaml.safe_load(changed)["all"]
    assert left["vars"] == {"v": 1}
    rest = left["children"]["inf"]["hosts"] or {}
    assert {key: value or {} for key, value in rest.items()} == {
        key: value for key, value in hosts.items() if key != name
    }
