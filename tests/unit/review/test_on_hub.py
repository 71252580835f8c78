"""`mt5crs --inventory … review submit|show`: from the controller to the queue and back, without SSH."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.commands import review_on_hub as on_hub
from deploy.fleet.inventory import resolve
from deploy.remote import script
from deploy.reviewing import on_host
from mt5crs.__main__ import main
from mt5crs.review import verdict
from mt5crs.review.binding import content_of
from mt5crs.review.queue import Queue
from mt5crs.review.service import Reviews
from mt5crs.review.tree import tree_of
from mt5crs.service.logs import Log
from mt5crs.settings.review import ReviewSettings
from mt5crs_release.bundles import verdict as reading
from tests.unit.fleets import HOSTS, make_inventory
from tests.unit.review.conftest import Commit
from tests.unit.review.test_binding import bundle as packed
from tests.unit.review.test_binding import wheel

WITH_QUEUE = {**HOSTS, "review": ["hub-01"]}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's directory; what would go over SSH is done here."""
    directory = tmp_path / "state"
    monkeypatch.setattr(on_host, "STATE", directory)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def ask(
        variables: Mapping[str, Any], module: ModuleType, *arguments: str, stdin: str, timeout_s: float
    ) -> dict[str, Any]:
        assert (module, timeout_s > 0) == (on_host, True)
        assert variables["inventory_hostname"] == "hub-01"
        verb, *rest = arguments
        try:
            told = (
                on_host.put(rest[0], int(rest[1]), base64.b64decode(stdin))
                if verb == "put"
                else on_host.look(rest[0])
            )
        except on_host.RefusedError as error:
            raise script.ScriptError(str(error)) from None
        answered: dict[str, Any] = json.loads(json.dumps(told))
        return answered

    monkeypatch.setattr(script, "ask", ask)
    monkeypatch.setattr(on_hub, "fleet_of", resolved)
    return directory


resolved = cache(resolve)
"""Ansible takes a second to read an inventory."""


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inventory(tmp_path_factory.mktemp("fleet"), WITH_QUEUE)


def core_bundle(repository: Path, commit: Commit, directory: Path) -> Path:
    """A bundle that was made of the repository."""
    assert repository.is_dir()
    commit({"src/mt5crs/a.md": "Text.\n", "uv.lock": "\n"})
    files = {"wheels/mt5crs-1-py3-none-any.whl": wheel({"mt5crs/a.md": "Text.\n"}), "requirements.txt": b""}
    return packed(directory / "core.tar", files)


def invoke(inventory: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["--inventory", str(inventory), "review", *words])


def work_off(state: Path, **settings: Any) -> None:
    made = Reviews(ReviewSettings(state_dir=str(state), metrics_port=0, **settings), Log("review", "ERROR"))
    try:
        for name in Queue(state, 9).ids():
            made._next(name)
    finally:
        made.close()


def test_a_tree_and_its_bundle_go_there_and_a_verdict_that_hosts_take_comes_back(
    inventory: Path, state: Path, repository: Path, commit: Commit, tmp_path: Path
) -> None:
    bundle = core_bundle(repository, commit, tmp_path)
    key = verdict.signing_key(tmp_path)
    words = ["--tree", str(repository), "--no-external", "--bundle", str(bundle)]
    out = ["--out", str(tmp_path / "out")]
    told = invoke(inventory, "submit", *words, *out)
    assert (told.exit_code, "not there; deploy the review" in told.output) == (1, True)

    Queue(state, 9)
    told = invoke(inventory, "submit", *words, *out)
    assert told.exit_code == 0, told.output
    name = told.output.split()[1].rstrip(":")
    told = invoke(inventory, "show", name, *out)
    assert (told.exit_code, "0 before it" in told.output) == (1, True)
    work_off(state, signing_key=base64.b64encode(key.read_bytes()).decode())

    told = invoke(inventory, "show", name[:5], "--bundle", str(bundle), *out)
    assert told.exit_code == 0, told.output
    assert "PASSED" in told.output
    assert "the programs of gate 1 were run by" in told.output
    envelope = json.loads(bundle.with_name(bundle.name + reading.SUFFIX).read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicate"]["verificationResult"] == "PASSED"
    content = content_of(bundle, tree_of(repository, "HEAD"))
    assert statement["subject"][0]["digest"]["sha256"] == content
    assert envelope["signatures"]
    assert "was answered before" in invoke(inventory, "submit", *words, *out).output


def test_without_a_key_of_verdicts_none_is_signed_and_that_is_said(
    inventory: Path, state: Path, repository: Path, commit: Commit, tmp_path: Path
) -> None:
    bundle = core_bundle(repository, commit, tmp_path)
    Queue(state, 9)
    out = ["--out", str(tmp_path / "out")]
    invoke(inventory, "submit", "--tree", str(repository), "--no-external", "--bundle", str(bundle), *out)
    work_off(state)
    told = invoke(inventory, "show", *out)
    assert (told.exit_code, "review_signing_key is not set" in told.output) == (0, True)
    told = invoke(inventory, "show", "--bundle", str(bundle), *out)
    assert (told.exit_code, "the Hub signed no verdict on" in told.output) == (1, True)


def test_what_has_no_meaning_is_one_error(inventory: Path, state: Path, tmp_path: Path) -> None:
    told = invoke(inventory, "run")
    assert (told.exit_code, "--inventory goes with" in told.output) == (2, True)
    told = CliRunner().invoke(main, ["review", "submit"])
    assert (told.exit_code, "name the fleet" in told.output) == (2, True)
    Queue(state, 9)
    told = invoke(inventory, "show")
    assert (told.exit_code, "the Hub knows no review" in told.output) == (1, True)
    told = invoke(inventory, "show", "../../etc")
    assert (told.exit_code, "no id of a review" in told.output) == (1, True)
    without = make_inventory(tmp_path / "without")
    told = invoke(without, "show")
    assert (told.exit_code, "no host in the group review" in told.output) == (1, True)
    # Told before the programs of gate 1 have run, or the tree was looked at.
    told = invoke(without, "submit", "--tree", str(tmp_path))
    assert (told.exit_code, "no host in the group review" in told.output) == (1, True)
