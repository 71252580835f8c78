"""The whole tool against a host in a directory: what each command answers, and what it never shows."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mt5crs_release.cli import answers
from tests.release_host.host import UNIT, FakeHost, specification

NOW = ("--confirm-timeout", "0")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost.create(tmp_path / "root")


def test_generation_is_complete_private_and_linked(host: FakeHost) -> None:
    name = host.deploy("one")
    directory = host.service / "generations" / name
    modes = {
        path: stat.S_IMODE((directory / path).stat().st_mode) for path in (".env", "manifest.json", "check")
    }
    assert modes == {".env": 0o600, "manifest.json": 0o600, "check": 0o755}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert (host.service / "current").readlink() == Path("generations") / name
    link = host.root / "etc/systemd/system" / UNIT
    assert str(link.readlink()) == str(host.service / "current/units" / UNIT)


def test_same_inputs_change_nothing(host: FakeHost) -> None:
    name = host.deploy("one")
    calls = (host.systemd / "log").read_text().count("restart")
    assert host.run("stage", "gateway", spec=specification("one"))[1]["changed"] is False
    assert host.run("activate", "gateway", *NOW)[1]["changed"] is False
    assert (host.systemd / "log").read_text().count("restart") == calls
    _, answer = host.run("status")
    entry = answer["services"]["gateway"]
    assert (entry["current"], entry["state"], entry["intact"], entry["pending"]) == (
        name,
        "confirmed",
        True,
        None,
    )


def test_what_runs_is_not_changed_by_staging_it_after_another(host: FakeHost) -> None:
    name = host.deploy("one")
    host.run("stage", "gateway", spec=specification("two"))
    status, staged = host.run("stage", "gateway", spec=specification("one"))
    assert (status, staged["changed"], staged["generation"]) == (0, False, name)
    assert host.run("activate", "gateway", *NOW)[1]["changed"] is False


def test_dry_runs_tell_and_change_nothing(host: FakeHost) -> None:
    host.deploy("one")
    before = _tree(host.base)
    status, staged = host.run("stage", "gateway", "--dry-run", spec=specification("two"))
    assert (status, staged["changed"]) == (0, True)
    assert host.run("stage", "gateway", "--dry-run", spec=specification("one"))[1]["changed"] is False
    assert host.run("prune", "--dry-run")[1]["changed"] is False
    assert _tree(host.base) == before


def test_dry_run_on_a_fresh_host_leaves_it_fresh(host: FakeHost) -> None:
    status, staged = host.run("stage", "gateway", "--dry-run", spec=specification("one"))
    assert (status, staged["changed"]) == (0, True)
    assert not host.base.exists()


def test_change_by_hand_is_seen_and_staged_anew(host: FakeHost) -> None:
    name = host.deploy("one")
    (host.service / "current/.env").write_text("SECRET=edited\n")
    told = host.run("status")[1]
    assert told["services"]["gateway"]["intact"] is False
    assert told["services"]["gateway"]["problems"] == [".env was changed"]
    assert "NOT AS STAGED: .env was changed; deploy again" in answers.sentences("status", told)
    status, staged = host.run("stage", "gateway", spec=specification("one"))
    assert (status, staged["changed"]) == (0, True)
    assert staged["generation"] != name
    assert ".env was changed" in staged["reason"]


def mask(units: Path, unit: str) -> None:
    (units / unit).unlink()
    (units / unit).symlink_to("/dev/null")


def unlink(units: Path, unit: str) -> None:
    (units / unit).unlink()


def replace(units: Path, unit: str) -> None:
    (units / unit).unlink()
    (units / unit).write_text("[Service]\nExecStart=/bin/true\n")


def disable(units: Path, unit: str) -> None:
    (units / "multi-user.target.wants" / unit).unlink()


@pytest.mark.parametrize(
    ("change", "says", "refused"),
    [
        (mask, "is masked", f"`systemctl unmask {UNIT}` once it may"),
        (unlink, "is not linked to what was staged", None),
        (replace, "is not linked to what was staged", "move it away"),
        (disable, "is disabled: it is not in multi-user.target.wants", None),
    ],
)
def test_a_unit_that_would_not_start_again_is_seen_and_activated_anew(
    host: FakeHost, change: Callable[[Path, str], None], says: str, refused: str | None
) -> None:
    """What runs runs on, and is gone with the next boot. What somebody put in its place is not overridden."""
    units, install = host.root / "etc/systemd/system", "[Install]\nWantedBy=multi-user.target\n"
    bring = specification(units={UNIT: install})
    assert host.run("stage", "gateway", spec=bring)[1]["changed"]
    assert host.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0
    assert host.run("status")[1]["services"]["gateway"]["problems"] == []
    change(units, UNIT)
    told = host.run("status")[1]["services"]["gateway"]
    assert (told["intact"], told["problems"]) == (False, [f"{UNIT} {says}"])
    assert host.run("intact")[0] == 1
    staged = host.run("stage", "gateway", spec=bring)[1]
    assert (staged["changed"], f"{UNIT} {says}" in staged["reason"]) == (True, True)
    if refused is not None:
        status, answer = host.run("activate", "gateway", "--confirm-timeout", "0")
        assert (status, refused in answer["error"]["remedy"]) == (2, True)
        (units / UNIT).unlink()
    assert host.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0
    assert host.run("status")[1]["services"]["gateway"]["problems"] == []
    assert host.run("intact")[0] == 0


@pytest.mark.parametrize("place", ["etc/systemd/system", "etc/systemd/system.control", "run/systemd/system"])
def test_drop_ins_of_others_are_told_and_stay(host: FakeHost, place: str) -> None:
    """`systemctl edit` and `set-property` change how a service runs; the tool's own ones are not told of."""
    own = f"{UNIT}.d/50-own.conf"
    bring = specification(units={UNIT: "one", own: "[Service]\n"})
    assert host.run("stage", "gateway", spec=bring)[0] == 0
    assert host.run("activate", "gateway", "--confirm-timeout", "0")[0] == 0
    assert host.run("status")[1]["services"]["gateway"]["drop_ins"] == []
    path = host.root / place / f"{UNIT}.d/override.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[Service]\nEnvironment=LD_PRELOAD=/tmp/x.so\n")
    told = host.run("status")[1]
    assert told["services"]["gateway"]["drop_ins"] == [f"/{place}/{UNIT}.d/override.conf"]
    assert "DROP-INS OF OTHERS: /" in answers.sentences("status", told)
    assert host.run("stage", "gateway", spec=bring)[1]["changed"] is False
    assert path.exists()


def test_what_may_not_be_read_is_not_called_changed(host: FakeHost) -> None:
    name = host.deploy("one")
    (host.service / "generations" / name / "manifest.json").chmod(0)
    (host.root / "var/lib/mt5crs/deployments").mkdir(parents=True)
    (host.root / "var/lib/mt5crs/deployments").chmod(0)
    mere_user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    status, answer = host.run("status", prefix=mere_user)
    entry = answer["services"]["gateway"]
    assert (status, entry["current"], entry["intact"], entry["units"]) == (0, name, None, {})
    assert answer["unread"] == ["gateway", "deployment"]
    text = answers.sentences("status", answer)
    assert entry["problems"] is None
    assert "NOT AS STAGED" not in text
    assert "units not known" in text
    assert "use sudo" in text


def test_a_pointer_that_cannot_be_read_is_not_taken_for_none(host: FakeHost) -> None:
    host.deploy("one")
    host.service.chmod(0)
    mere_user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    status, answer = host.run("status", "gateway", prefix=mere_user)
    host.service.chmod(0o755)
    assert status == 1
    assert "Permission denied" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("two #unhealthy", "ledger does not match"),
        ("two #crashloop", "restarted 3 times"),
        ("two #fail", "failed"),
        ("two #broken", "health command itself broke"),
        ("two #starting", "progress_deadline_s"),
    ],
)
def test_bad_generation_goes_back_and_says_why(host: FakeHost, text: str, reason: str) -> None:
    name = host.deploy("one")
    host.run("stage", "gateway", spec=specification(text))
    status, answer = host.run("activate", "gateway", *NOW)
    assert (status, answer["generation"], answer["state"]) == (1, name, "failed")
    assert reason in answer["error"]["message"]
    assert (host.running(), host.pointer(), answer["restored_healthy"]) == ("one", name, True)
    assert answer["journal"] == ["2026-01-01T00:00:00+0000 host unit: last words"]
    assert host.timers() == []


def test_status_says_what_went_back_and_why(host: FakeHost) -> None:
    first = host.deploy("one")
    assert host.run("status")[1]["services"]["gateway"]["left"] is None
    second = host.run("stage", "gateway", spec=specification("two"))[1]["generation"]
    host.run("activate", "gateway")
    host.run("revert", "gateway")
    now = host.run("status")[1]["services"]["gateway"]
    assert now["current"] == first
    assert now["left"]["generation"] == second
    assert now["left"]["reason"]


def test_failed_generation_is_refused_but_can_be_staged_again(host: FakeHost) -> None:
    host.deploy("one")
    bad = specification("two #unhealthy")
    _, staged = host.run("stage", "gateway", spec=bad)
    host.run("activate", "gateway", *NOW)
    status, answer = host.run("activate", "gateway", "--generation", staged["generation"])
    assert status == 2
    assert "has failed before" in answer["error"]["message"]
    _, again = host.run("stage", "gateway", spec=bad)
    assert again["generation"] == staged["generation"].replace("0002", "0003")


def test_first_generation_that_fails_leaves_nothing(host: FakeHost) -> None:
    host.run("stage", "gateway", spec=specification("one #unhealthy"))
    status, answer = host.run("activate", "gateway", *NOW)
    assert (status, answer["generation"]) == (1, None)
    assert (host.pointer(), host.running()) == (None, None)
    assert not (host.root / "etc/systemd/system" / UNIT).is_symlink()


def test_rollback_goes_back_in_history_and_lists_what_there_is(host: FakeHost) -> None:
    names = [host.deploy(text) for text in ("one", "two", "three")]
    assert host.run("rollback", "gateway")[1]["generation"] == names[1]
    assert host.run("rollback", "gateway")[1]["generation"] == names[0]
    status, answer = host.run("rollback", "gateway")
    assert status == 2
    assert names[2] in answer["error"]["remedy"]
    status, answer = host.run("rollback", "gateway", "--to", names[2])
    assert (status, host.running()) == (0, "three")


def test_rollback_to_what_was_never_confirmed_is_refused(host: FakeHost) -> None:
    host.deploy("one")
    _, staged = host.run("stage", "gateway", spec=specification("two"))
    status, answer = host.run("rollback", "gateway", "--to", staged["generation"])
    assert status == 2
    assert "never confirmed" in answer["error"]["message"]


def test_rollback_that_fails_returns_to_where_it_was(host: FakeHost) -> None:
    first = host.deploy("one")
    second = host.deploy("two")
    # What "one" needs has gone meanwhile: its own health command says so.
    check = host.service / "generations" / first / "check"
    marker = host.root / "gone"
    spec = specification("three")
    spec["health"] |= {"command": ["sh", "-c", f"test ! -e {marker}"], "healthy_deadline_s": 3.0}
    host.run("stage", "gateway", spec=spec)
    assert host.run("activate", "gateway", *NOW)[0] == 0
    assert host.run("rollback", "gateway", "--to", second)[0] == 0
    marker.touch()
    third = next(name for name in host.state()["generations"] if name.startswith("0003"))
    status, answer = host.run("rollback", "gateway", "--to", third)
    assert (status, answer["generation"], host.running()) == (1, second, "two")
    assert check.exists()


def test_a_good_generation_outlives_a_bad_moment(host: FakeHost, tmp_path: Path) -> None:
    """What it depends on is away while it is rolled back to, and while it is deployed again."""
    gone = tmp_path / "gone"
    needy = specification("one")
    needy["health"] |= {"command": ["sh", "-c", f"test ! -e {gone}"], "healthy_deadline_s": 0.5}

    def deploy_needy(*more: str) -> tuple[int, str]:
        _, staged = host.run("stage", "gateway", spec=needy)
        status, answer = host.run("activate", "gateway", *NOW, *more)
        return status, str(answer.get("state") or staged)

    assert deploy_needy("--deployment", "d1") == (0, "confirmed")
    first, second = str(host.pointer()), host.deploy("two")
    gone.touch()
    status, answer = host.run("rollback", "gateway")
    assert (status, answer["generation"], answer["state"]) == (1, second, "confirmed")
    assert deploy_needy("--deployment", "d2") == (1, "confirmed")
    entry = host.state()["generations"][first]
    assert len(host.state()["generations"]) == 2, "the same content needs no new generation"
    assert (entry["state"], entry["deployment"]) == ("confirmed", "d1"), "d2 brought nothing"
    why = "not healthy" if "not healthy" in entry["left_because"] else "unhealthy"
    listed = host.run("list", "gateway")[1]["generations"][0]
    assert (listed["rollback"], listed["reason"]) == (True, entry["left_because"])
    left = host.run("status")[1]["services"]["gateway"]["left"]
    assert left == {"generation": first, "state": "confirmed", "reason": entry["left_because"]}
    status, refused = host.run("rollback", "gateway", "--to", "0009-x")
    assert f"{first} (configuration, confirmed; left last time: {why}" in refused["error"]["remedy"]
    gone.unlink()
    status, answer = host.run("rollback", "gateway")
    assert (status, answer["generation"]) == (0, first)
    assert host.state()["generations"][first]["left_because"] is None
    assert host.run("rollback", "gateway", "--to", second)[0] == 0
    assert deploy_needy() == (0, "confirmed")


def test_what_an_older_tool_has_burned_can_be_chosen_again(host: FakeHost) -> None:
    first = host.deploy("one")
    host.deploy("two")
    path = host.service / "state.json"
    document = host.state()
    document["generations"][first] |= {"state": "failed", "left_because": "unhealthy: no gateway"}
    path.write_text(json.dumps(document))
    assert host.run("rollback", "gateway")[1]["generation"] == first


def test_older_state_format_is_refused_with_the_way_out(host: FakeHost) -> None:
    host.deploy("one", state_format=1)
    host.deploy("two", state_format=2)
    status, answer = host.run("rollback", "gateway")
    assert status == 2
    assert "--accept-state-format 1" in answer["error"]["remedy"]
    status, _ = host.run("stage", "gateway", spec=specification("three", state_format=1))
    assert status == 2
    assert host.run("rollback", "gateway", "--accept-state-format", "1")[0] == 0


def test_units_dropped_are_stopped_and_come_back_with_a_rollback(host: FakeHost) -> None:
    side = "mt5crs-side.service"
    units = {UNIT: "one", side: "side\n[Install]\nWantedBy=multi-user.target"}
    host.deploy("one", units=units, start=[side, UNIT])
    system = host.root / "etc/systemd/system"
    assert (system / "multi-user.target.wants" / side).is_symlink()
    host.deploy("two", units={UNIT: "two", f"{UNIT}.d/50-x.conf": "x"})
    assert host.running(side) is None
    assert not (system / side).is_symlink()
    assert not (system / "multi-user.target.wants" / side).is_symlink()
    assert (system / f"{UNIT}.d/50-x.conf").read_text() == "x"
    assert host.run("rollback", "gateway")[0] == 0
    assert host.running(side) == "side"
    assert not (system / f"{UNIT}.d").exists()


def test_a_unit_that_another_wants_is_started_anew_when_it_changed_and_only_then(host: FakeHost) -> None:
    side = "mt5crs-side.service"

    def deploy(own: str, others: str) -> str:
        host.deploy(own, units={UNIT: f"{own} Wants={side}", side: others}, start=[UNIT])
        return (host.systemd / "runs" / side).read_text().strip()

    assert deploy("one", "side") == "1"
    assert deploy("two", "side") == "1", "the other unit is restarted with every release"
    assert deploy("three", "other side") == "2"
    assert host.running(side) == "other side"
    assert host.run("rollback", "gateway")[0] == 0
    assert host.running(side) == "side"
    host.deploy("four")
    assert host.running(side) is None


def test_unit_of_someone_else_is_not_replaced(host: FakeHost) -> None:
    (host.root / "etc/systemd/system" / UNIT).write_text("by hand")
    host.run("stage", "gateway", spec=specification("one"))
    status, answer = host.run("activate", "gateway")
    assert status == 2
    assert "does not belong to gateway" in answer["error"]["message"]
    assert (host.root / "etc/systemd/system" / UNIT).read_text() == "by hand"


def test_prune_keeps_what_a_rollback_needs(host: FakeHost) -> None:
    names = [host.deploy(text) for text in ("one", "two", "three", "four")]
    _, answer = host.run("prune", "gateway", "--keep", "0")
    assert answer["removed"]["generations"] == {"gateway": names[:2]}
    assert {path.name for path in (host.service / "generations").iterdir()} == set(names[2:])
    assert host.run("rollback", "gateway")[1]["generation"] == names[2]


def test_another_change_waits_for_the_pending_one(host: FakeHost) -> None:
    host.deploy("one")
    host.run("stage", "gateway", spec=specification("two"))
    _, pending = host.run("activate", "gateway", "--confirm-timeout", "600")
    host.run("stage", "gateway", spec=specification("three"))
    status, answer = host.run("activate", "gateway")
    assert status == 2
    assert f"{pending['generation']} is provisional" in answer["error"]["message"]
    assert host.run("confirm", "gateway", "--generation", "0009-x")[0] == 2
    assert host.run("revert", "gateway")[1]["generation"].startswith("0001")
    assert host.timers() == []


def test_what_a_failed_deployment_had_confirmed_is_left_by_its_name_only(host: FakeHost) -> None:
    first = host.deploy("one")
    second = host.deploy("two")
    assert host.run("revert", "gateway")[1]["generation"] == second
    assert host.run("revert", "gateway", "--confirmed", first)[1]["changed"] is False
    status, answer = host.run("revert", "gateway", "--confirmed", second)
    assert (status, answer["changed"], answer["generation"]) == (0, True, first)
    assert host.run("revert", "gateway", "--confirmed", second)[1]["changed"] is False


def test_the_first_generation_stays_once_it_was_confirmed(host: FakeHost) -> None:
    first = host.deploy("one")
    status, answer = host.run("revert", "gateway", "--confirmed", first)
    assert status == 2
    assert "no earlier confirmed generation" in answer["error"]["message"]


def test_service_that_restarted_meanwhile_is_not_confirmed(host: FakeHost) -> None:
    host.deploy("one")
    host.run("stage", "gateway", spec=specification("two"))
    host.run("activate", "gateway", "--confirm-timeout", "600")
    (host.systemd / "active" / UNIT).write_text("active 1 two\n")
    status, answer = host.run("confirm", "gateway")
    assert (status, host.running()) == (1, "one")
    assert "restarted 1 times" in answer["error"]["message"]


def test_full_disk_is_one_clear_error_and_the_old_generation_stays(host: FakeHost, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    name = host.deploy("one")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["cp", "-a", str(host.base), str(tmp_path / "saved")], check=True)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(host.base)], check=False)
    if mount.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        subprocess.run(["cp", "-a", f"{tmp_path / 'saved'}/.", str(host.base)], check=True)
        spec = specification("two")
        spec["files"]["large"] = {"mode": "0644", "owner": "root", "group": "root", "content": "x" * 500_000}
        status, answer = host.run("stage", "gateway", spec=spec)
        assert status == 1
        assert "No space left on device" in answer["error"]["message"]
        assert "free disk space" in answer["error"]["remedy"]
        assert (host.pointer(), host.running()) == (name, "one")
        assert not list(host.base.rglob(".mt5crs-tmp-*"))
        assert host.run("status")[1]["services"]["gateway"]["intact"] is True
    finally:
        subprocess.run(["umount", str(host.base)], check=True)


def test_secrets_are_shown_nowhere(host: FakeHost) -> None:
    outputs = []
    for text in ("one", "two #unhealthy"):
        host.run("stage", "gateway", spec=specification(text))
        outputs.append(host.last_output)
        host.run("activate", "gateway", *NOW)
        outputs.append(host.last_output)
    for command in (("status",), ("list", "gateway"), ("rollback", "gateway"), ("prune",), ("recover",)):
        host.run(*command)
        outputs.append(host.last_output)
    for name in ("journal.jsonl", "state.json", "lock"):
        outputs.append((host.service / name).read_text())
    outputs.append((host.systemd / "log").read_text())
    assert (host.service / "current/.env").read_text() == "SECRET=canary-one\n"
    assert not [output for output in outputs if "canary" in output]


def test_unknown_service_and_owner_are_refused(host: FakeHost) -> None:
    assert host.run("activate", "nosuch")[0] == 2
    spec = specification("one")
    spec["files"]["check"]["owner"] = "nobody-like-this"
    status, answer = host.run("stage", "gateway", spec=spec)
    assert status == 2
    assert "nobody-like-this:root" in answer["error"]["message"]


def _tree(base: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(base)): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in base.rglob("*")
        if path.name != "lock"
    }
