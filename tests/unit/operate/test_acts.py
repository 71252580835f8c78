"""An act of an operator goes to the audit log afterwards, and never waits or fails because of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from deploy.commands import named_fleet
from deploy.coordination import audit_log
from deploy.fleet.inventory import Fleet
from mt5crs.operate import acting as operate
from mt5crs.operate import acts
from mt5crs.operate.chosen import Chosen
from mt5crs.operate.gateways import Answer


def fleet(_: Path) -> Fleet:
    of = {"hub": {"inventory_hostname": "hub", "fleet_operators": [{"name": "ops"}]}}
    return Fleet(Path("x.yml"), "x", of, {"hub": ("hub",)})


def run(obj: object, **told: Any) -> str:
    @click.command()
    def command() -> None:
        acts.acted("halt", **told)

    result = CliRunner().invoke(command, obj=obj)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_who_with_which_key_and_what_each_gateway_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(named_fleet, "fleet_of", fleet)
    monkeypatch.setattr(audit_log, "add", lambda _, acts: sent.extend(acts) or "")
    said = [Answer("gtw-01", object()), Answer("gtw-02", None, "no answer")]
    assert run(Chosen(Path("x.yml")), answers=said, magic=None, reason="drill") == ""
    (act,) = sent
    assert act["gateways"] == {"gtw-01": "done", "gtw-02": "no answer"}
    assert (act["what"], act["operator"], act["reason"], "magic" in act) == ("halt", "ops", "drill", False)
    assert act["by"]
    assert act["id"]
    assert act["at"].endswith("Z")


def test_without_an_inventory_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_fleet, "fleet_of", lambda _: pytest.fail("no fleet is known"))
    assert run(None) == ""


def test_nothing_that_goes_wrong_keeps_the_act_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> Fleet:
        raise RuntimeError("anything")

    monkeypatch.setattr(named_fleet, "fleet_of", broken)
    assert "this is not in the fleet's audit log: RuntimeError: anything" in run(Chosen(Path("x.yml")))


def test_a_halt_is_in_force_and_shown_before_the_log_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    said = [Answer("gtw-01", object())]

    def log(*_: object, **__: object) -> None:
        order.append("log")

    monkeypatch.setattr(operate, "_order_flow", lambda *_: order.append("halt") or said)
    monkeypatch.setattr(operate, "show", lambda *_, **__: order.append("shown") or 0)
    monkeypatch.setattr(operate, "acted", log)
    CliRunner().invoke(operate.halt, ["--reason", "drill"])
    assert order == ["halt", "shown", "log"]
