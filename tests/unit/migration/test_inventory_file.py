"""Another address is all that changes in an inventory file, and taking it back leaves the same bytes."""

from __future__ import annotations

import random

import pytest
import yaml

from deploy.migration.inventory_file import NotEditableError, moved

TEXT = """\
---
# who: 10.0.0.21 is the old one
production:
  children:
    inf:
      hosts:
        # Every Inf host trades a magic number of its own.
        inf-01:
          ansible_host:   "10.0.0.21"   # rack 4, 10.0.0.21
          fleet_magic_number: 202401
        inf-02: {ansible_host: 10.0.0.22, fleet_magic_number: 202402}
    spare:
      hosts:
        inf-01:
        inf-03: {ansible_host: 10.0.0.211}
  vars:
    baseline_ssh_sources: [10.0.0.21]
    secret: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      3132
"""


def test_only_the_address_of_the_host_changes() -> None:
    changed = moved(TEXT, ["inf-01"], "10.0.0.21", "10.0.0.121")
    before, after = TEXT.splitlines(), changed.splitlines()
    assert [line for line in after if line not in before] == [
        '          ansible_host:   "10.0.0.121"   # rack 4, 10.0.0.21'
    ]
    assert len(before) == len(after)
    assert moved(changed, ["inf-01"], "10.0.0.121", "10.0.0.21") == TEXT


def test_a_flow_entry_and_an_own_fleet_address() -> None:
    text = TEXT.replace("{ansible_host: 10.0.0.22,", "{ansible_host: gate.example, fleet_address: 10.0.0.22,")
    changed = moved(text, ["inf-02"], "10.0.0.22", "fd00::22")
    assert "fleet_address: fd00::22," in changed
    back = moved(changed, ["inf-02"], "fd00::22", "10.0.0.22")
    assert yaml.safe_load(back.replace("!vault", "")) is not None
    assert back == text


def test_what_runs_on_the_same_machine_goes_along() -> None:
    also = "        inf-01-trend: {ansible_host: 10.0.0.21, fleet_instance: trend}\n    spare:"
    text = TEXT.replace("    spare:", also)
    changed = moved(text, ["inf-01", "inf-01-trend"], "10.0.0.21", "10.0.0.121")
    assert changed.count("10.0.0.121") == 2
    assert moved(changed, ["inf-01", "inf-01-trend"], "10.0.0.121", "10.0.0.21") == text


def test_there_and_back_is_the_same_for_any_layout() -> None:
    chance = random.Random(7)  # noqa: S311
    for _ in range(200):
        hosts = [f"inf-{number:02}" for number in range(1, chance.randint(2, 6))]
        quote = chance.choice(["", "'", '"'])
        lines = ["fleet:", "  children:", "    inf:", "      hosts:"]
        for number, host in enumerate(hosts):
            lines += [f"        {host}:{' ' * chance.randint(0, 2)}", "          # 10.1.1.1"]
            lines += [
                f"          ansible_host: {quote}10.1.1.{number + 1}{quote}{' # x' * chance.randint(0, 1)}"
            ]
        text = "\n".join(lines) + "\n"
        number = chance.randrange(len(hosts))
        there = moved(text, [hosts[number]], f"10.1.1.{number + 1}", "10.1.2.200")
        assert there.count("10.1.2.200") == 1
        assert moved(there, [hosts[number]], "10.1.2.200", f"10.1.1.{number + 1}") == text


@pytest.mark.parametrize(
    ("text", "host", "why"),
    [
        (TEXT, "inf-09", "does not say that inf-09"),
        (TEXT.replace('"10.0.0.21"', '"{{ rack }}"'), "inf-01", "does not say that inf-01"),
        ("a: [", "inf-01", "no YAML"),
        ("x:\n  hosts:\n    a: &one {ansible_host: 10.0.0.21}\n    b: *one\n", "a", "shared"),
    ],
)
def test_what_cannot_be_edited_is_said(text: str, host: str, why: str) -> None:
    with pytest.raises(NotEditableError, match=why):
        moved(text, [host], "10.0.0.21", "10.0.0.9")
