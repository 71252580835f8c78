"""A host leaves while nobody deploys: under the fleet's lock, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.commands import decommission
from deploy.coordination.alone import alone
from deploy.coordination.fleet_lock import LockError
from deploy.decommission import on_host, record
from deploy.decommission.decision import Held, Leaving
from deploy.fleet.inventory import Fleet
from mt5crs.operate.chosen import Chosen
from tests.unit.stand_in import Hub, closed, hub_that_answers

BUSY = {
    "error": {"message": "another deployment holds the fleet's lock: anna on ctl", "remedy": "wait for it"}
}
INVENTORY = "x:\n  children:\n    inf:\n      hosts:\n        inf-02:\n          ansible_host: 10.9.9.2\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return hub_that_answers(tmp_path, monkeypatch)


def fleet(inventory: Path) -> Fleet:
    hosts = {"hub-01": {"ansible_host": "10.9.9.1"}, "inf-02": {"ansible_host": "10.9.9.2"}}
    return Fleet(inventory, "x", hosts, {"hub": ("hub-01",), "inf": ("inf-02",)})


def test_the_body_runs_under_the_lock_and_is_on_record(hub: Hub, tmp_path: Path) -> None:
    hub(0, {"changed": True})
    said: list[str] = []
    with alone(fleet(tmp_path / "x.yml"), "decommission", "inf-02 leaves", said.append) as held:
        held.require()
    record = closed(hub(0, {}))
    assert (record["action"], record["outcome"]) == ("decommission", "changed")
    assert "inf-02 leaves" in record["sentence"]


@pytest.mark.parametrize(("error", "outcome"), [(OSError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_what_comes_to_nothing_gives_the_lock_back(
    hub: Hub, tmp_path: Path, error: type[BaseException], outcome: str
) -> None:
    hub(0, {"changed": True})
    with pytest.raises(error), alone(fleet(tmp_path / "x.yml"), "decommission", "", lambda _text: None):
        raise error
    assert closed(hub(0, {}))["outcome"] == outcome


def test_what_changed_nothing_may_say_so(hub: Hub, tmp_path: Path) -> None:
    hub(0, {"changed": True})
    with alone(fleet(tmp_path / "x.yml"), "start", "", lambda _text: None) as held:
        held.outcome = "unchanged"
    assert closed(hub(0, {}))["outcome"] == "unchanged"


def test_who_deploys_is_named_and_the_body_is_not_run(hub: Hub, tmp_path: Path) -> None:
    hub(2, BUSY)
    with (
        pytest.raises(LockError, match="anna on ctl"),
        alone(fleet(tmp_path / "x.yml"), "decommission", "", lambda _text: None),
    ):
        raise AssertionError


def test_a_host_does_not_leave_while_somebody_deploys(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployment began after it was looked whether there is one."""
    hub(2, BUSY)
    inventory = tmp_path / "x.yml"
    inventory.write_text(INVENTORY)
    touched: list[str] = []
    monkeypatch.setattr(decommission, "fleet_of", fleet)
    seen = Leaving("inf-02", "gtw-01", 202402, Held((), (), ()), answers=None, deploying=None)
    monkeypatch.setattr(decommission, "_look", lambda *_of: seen)
    monkeypatch.setattr(record, "DIRECTORY", tmp_path / "decommissioned")
    for name in ("stop", "fetch", "remove"):
        monkeypatch.setattr(on_host, name, lambda _of, name=name: touched.append(name))
    words = ["inf-02", "--reason", "drill", "--yes"]
    ran = CliRunner().invoke(decommission.decommission, words, obj=Chosen(inventory))
    assert ran.exit_code == 1
    assert "anna on ctl" in ran.output
    assert (touched, inventory.read_text()) == ([], INVENTORY)
    assert not (tmp_path / "decommissioned").exists()
