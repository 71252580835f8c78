"""Dates of secrets: the earliest counts, one is warned in time; each kind has its own greatest age."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import resolve
from deploy.fleet.settings import check
from deploy.policy.expiry import dates, due, max_age
from mt5crs.settings.fleet import FleetSettings
from mt5crs.settings.schema import check_value, fields
from tests.unit.fleets import EXTRA, make_inventory

TODAY = date(2026, 11, 30)


@pytest.mark.parametrize(("days", "passed"), [(-1, True), (0, True), (1, False), (30, False), (31, None)])
def test_a_date_is_warned_of_and_then_past(days: int, passed: bool | None) -> None:
    of: dict[str, Any] = {"fleet_secret_expiry": {"vault_broker": str(TODAY + timedelta(days=days))}}
    assert [one.passed for one in due([of, {}], TODAY)] == ([] if passed is None else [passed])


def test_the_earliest_date_and_the_longest_warning_count() -> None:
    late, early = ({"fleet_secret_expiry": {"a": day}} for day in ("2027-05-01", "2027-01-20"))
    assert due([late, early], TODAY) == []
    (found,) = due([late, {**early, "fleet_secret_warn_days": 60}], TODAY)
    assert found.text == "a is to be replaced by 2027-01-20, in 51 days"
    assert due([{"fleet_secret_expiry": {"a": "nonsense"}}], TODAY) == []


@pytest.mark.parametrize(
    ("variable", "days"),
    [
        ("vault_client_secret_keys.ops", 90),
        ("vault_gateway_secret_keys.gtw-01", 365),
        ("gateway_mt5_password", 60),
        ("vault password", 30),
        ("something", 365),
    ],
)
def test_each_kind_has_its_age(variable: str, days: int) -> None:
    of = {"fleet_secret_max_age_days": {"client": 90, "broker": 60, "vault": 30}}
    assert max_age([of, {}], variable) == days


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fleet_secret_max_age_days", {"clients": 3}),
        ("fleet_secret_max_age_days", {"client": 0}),
        ("fleet_secret_expiry", {"a": "31.1.2027"}),
        ("fleet_secret_expiry", {"a": "2027-02-30"}),
        ("fleet_secret_warn_days", -1),
    ],
)
def test_wrong_settings_are_told(name: str, value: object) -> None:
    field = next(each for each in fields(FleetSettings) if each.variable == name)
    assert check_value(field, value, name)[1]


def test_a_day_may_stand_without_quotes(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    (inventory.parent / "group_vars/lab/main.yml").write_text("fleet_secret_expiry: {vault_a: 2027-01-31}\n")
    fleet = resolve(inventory, EXTRA)
    assert check(fleet) == []
    assert dates(fleet.hosts.values()) == {"vault_a": date(2027, 1, 31)}
