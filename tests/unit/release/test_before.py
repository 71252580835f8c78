"""Until it is confirmed, a generation's units can know what ran before it; afterwards it counts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.release_host.host import UNIT, FakeHost, specification

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
