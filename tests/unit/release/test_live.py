"""A generation that changes only what services read again is taken over without a restart, or taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt5crs_release.desired.digest import fixed_digest
from mt5crs_release.desired.spec import parse_spec
from mt5crs_release.errors import SpecError
from tests.release_host.host import CHECK_LIVE, UNIT, FakeHost, beside, specification, with_live


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost.create(tmp_path)


def spec(level: str = "INFO", text: str = "one", **changes: Any) -> dict[str, Any]:
    made = specification(text, **changes)
    # The same whether it is taken or not: another policy is another generation, and a restart.
    made["health"] |= {"healthy_deadline_s": 1.0, "progress_deadline_s": 10.0}
    return with_live(made, level)


def deploy(host: FakeHost, made: dict[str, Any], *words: str) -> tuple[int, dict[str, Any]]:
    status, _ = host.run("stage", "gateway", spec=made)
    assert status == 0, host.last_output
    return host.run("activate", "gateway", "--confirm-timeout", "0", *words)


def starts(host: FakeHost) -> int:
    return int((host.systemd / "runs" / UNIT).read_text())


def in_force(host: FakeHost) -> str:
    return (host.systemd / "live").read_text().strip().removeprefix("LEVEL=")


def test_a_live_change_restarts_nothing_and_is_in_force(host: FakeHost) -> None:
    assert deploy(host, spec())[1]["live"] is False
    status, answer = deploy(host, spec("DEBUG"))
    assert (status, answer["live"], answer["changes"]) == (0, True, ["live.env LEVEL"]), host.last_output
    assert answer["reason"] == "healthy and confirmed, without a restart"
    assert (starts(host), in_force(host), host.pointer()) == (1, "DEBUG", answer["generation"])
    status, answer = host.run("rollback", "gateway")
    assert (status, answer["live"]) == (0, True), host.last_output
    assert (starts(host), in_force(host)) == (1, "INFO")


def test_it_equals_what_a_restart_with_it_makes(host: FakeHost, tmp_path: Path) -> None:
    other = FakeHost.create(tmp_path / "other")
    deploy(host, spec())
    deploy(host, spec("DEBUG"))
    deploy(other, spec("DEBUG"))
    files = [
        {path.name: path.read_text() for path in (one.service / "current").iterdir() if path.is_file()}
        for one in (host, other)
    ]
    for each in files:
        del each["manifest.json"]  # it has the generation's number
    assert files[0] == files[1]
    assert in_force(host) == in_force(other)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (spec("DEBUG", "two"), "the unit changes as well"),
        (
            spec("DEBUG", health={**specification()["health"], "min_healthy_s": 0.02}),
            "the health policy does",
        ),
        (spec(), "nothing live changes"),
    ],
)
def test_whatever_else_changes_is_a_restart(host: FakeHost, made: dict[str, Any], why: str) -> None:
    deploy(host, spec())
    if why == "nothing live changes":
        (host.service / "current/check").write_text(CHECK_LIVE + "# by hand\n")
    status, answer = deploy(host, made)
    assert (status, answer["live"], starts(host)) == (0, False, 2), why


def test_what_runs_from_changed_files_is_restarted(host: FakeHost) -> None:
    deploy(host, spec())
    (host.service / "current/.env").write_text("SECRET=another\n")
    assert deploy(host, spec("DEBUG"))[1]["live"] is False
    assert starts(host) == 2


def test_a_service_that_is_down_is_started(host: FakeHost) -> None:
    deploy(host, spec())
    (host.systemd / "active" / UNIT).unlink()
    status, answer = deploy(host, spec("DEBUG"))
    assert (status, answer["live"], starts(host), in_force(host)) == (0, False, 2, "DEBUG")


@pytest.mark.parametrize("how", ["#deaf", "#gone"])
def test_a_service_that_does_not_take_it_keeps_what_it_had(host: FakeHost, how: str) -> None:
    _, first = deploy(host, spec())
    status, answer = deploy(host, spec(f"DEBUG {how}"))
    assert (status, answer["restored_healthy"]) == (1, True), host.last_output
    assert (host.pointer(), in_force(host), starts(host)) == (first["generation"], "INFO", 1)
    assert ("the former settings" if how == "#deaf" else "No main process") in answer["error"]["message"]


def test_nobody_confirms_it_so_it_goes_back_without_a_restart(host: FakeHost) -> None:
    deploy(host, spec())
    host.run("stage", "gateway", spec=spec("DEBUG"))
    assert host.run("activate", "gateway", "--confirm-timeout", "0.01")[0] == 0
    host.run("recover", "gateway")
    assert (in_force(host), starts(host)) == ("INFO", 1)


def test_it_stands_by_nowhere(host: FakeHost) -> None:
    deploy(host, spec(standby=beside()))
    status, answer = deploy(host, spec("DEBUG", standby=beside("#differs")), "--standby")
    assert (status, answer["live"]) == (1, False), "its standby unit is another one"
    status, answer = deploy(host, spec("DEBUG", standby=beside()), "--standby")
    assert (status, answer["live"], answer["standby"]["equal"]) == (0, True, None), host.last_output
    assert "takes the change over" in answer["standby"]["reason"]


def test_an_undo_takes_it_back_without_a_restart(host: FakeHost) -> None:
    deploy(host, spec())
    deploy(host, spec("DEBUG"), "--deployment", "d1")
    status, answer = host.run("undo", "--deployment", "d1")
    assert (status, answer["services"]["gateway"]["live"]) == (0, True), host.last_output
    assert (in_force(host), starts(host)) == ("INFO", 1)


def test_only_live_files_are_left_out_of_what_is_fixed() -> None:
    one, same = fixed_digest(spec(), None), fixed_digest(spec("DEBUG"), None)
    assert one == same is not None
    other = spec()
    other["files"][".env"]["content"] += "A=b\n"
    private = spec()
    private["files"]["live.env"]["mode"] = "0600"
    assert one not in (fixed_digest(other, None), fixed_digest(private, None), fixed_digest(spec(), "a" * 64))
    assert fixed_digest(specification(), None) is None


@pytest.mark.parametrize(
    ("live", "problem"),
    [
        ({"gone": [UNIT]}, "must name one of files"),
        ({".env": [UNIT]}, "is read at the start alone"),
        ({"live.env": ["other.service"]}, "which is not in start"),
        ({"live.env": []}, "at least one unit"),
        ([], "must be an object"),
    ],
)
def test_a_wrong_live_is_refused(live: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({**spec(), "live": live})
    assert problem in "; ".join(caught.value.problems)
