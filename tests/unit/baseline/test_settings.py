"""Baseline settings that would lock people out or leave a host without time are refused."""

from pathlib import Path
from typing import Any

import pytest

from deploy.baseline.plan import packages_of_baseline
from deploy.fleet.inventory import resolve
from mt5crs.settings.baseline import BaselineSettings
from tests.unit.fleets import EXTRA, make_inventory

GOOD: dict[str, Any] = {
    "release_signers": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAA release"],
    "ssh_sources": ["192.0.2.1", "2001:db8::/64"],
}


def test_good_settings_have_no_problem() -> None:
    assert list(BaselineSettings(**GOOD).problems()) == []


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"ssh_sources": ["0.0.0.0/0"]}, "everyone"),
        ({"ssh_sources": ["192.0.2.1/24"]}, "host bits"),
        ({"ssh_sources": ["controller"]}, "baseline_ssh_sources"),
        ({"release_signers": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "public key"),
        ({"ntp_pools": [], "ntp_servers": []}, "time source"),
        ({"ntp_servers": ["bad name"]}, "baseline_ntp_servers"),
        ({"sysctl": {"kernel.panic": "1"}}, "kernel.panic"),
        ({"packages": ["chrony", "-oAPT::Update::Pre-Invoke::=touch /tmp/x"]}, "no name of a Debian package"),
        ({"packages": ["--allow-unauthenticated"]}, "baseline_packages"),
        ({"packages": ["chrony-"]}, "chrony-"),  # apt-get would remove it
        ({"packages": ["./here.deb"]}, "here.deb"),
        ({"packages": ["chrony\nnftables"]}, "baseline_packages"),
        ({"role_packages": ["wine64=8.0"]}, "baseline_role_packages"),
    ],
)
def test_bad_settings_are_named(changed: dict[str, Any], word: str) -> None:
    problems = list(BaselineSettings(**{**GOOD, **changed}).problems())
    assert len(problems) == 1
    assert word in problems[0]


def test_names_of_packages_as_debian_has_them() -> None:
    names = ["g++", "libstdc++6", "python3.11", "prometheus-node-exporter", "0ad"]
    assert list(BaselineSettings(**GOOD, packages=names).problems()) == []


def test_a_private_key_is_not_repeated() -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----"
    assert key not in "".join(BaselineSettings(**{**GOOD, "release_signers": [key]}).problems())


def test_wine_is_wanted_by_a_gateway_under_it_and_by_nobody_else(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    for platform, wanted in (("native", []), ("wine", ["wine64"])):
        hosts = resolve(inventory, {**EXTRA, "gateway_platform": platform}).hosts
        found = {name: packages_of_baseline(variables) for name, variables in hosts.items()}
        assert [each for each in found["gtw-01"] if each == "wine64"] == wanted
        assert not [name for name in ("hub-01", "inf-01") if "wine64" in found[name]]
