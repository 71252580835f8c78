"""The broker's state is accepted on a host of the fleet from the controller, in the operator's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.commands import named_fleet
from deploy.fleet.inventory import Fleet
from mt5crs.operate.accept import accept
from mt5crs.operate.chosen import Chosen
from tests.unit.stand_in import SSH

REASON = ("--reason", "closed by hand in the terminal")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What inf-01 was asked; its reconciler does not start once `broken` is there."""
    calls = tmp_path / "calls"
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    fails = f"[ -e {tmp_path}/broken ] && echo 'Job failed' >&2 && exit 1"
    ssh.write_text(f"""{SSH}echo "$command" >> {calls}
case $command in
*is-active*) [ -e {tmp_path}/runs ]; exit $?;;
*restart*) {fails};;
*journalctl*) cat {tmp_path}/journal 2>/dev/null;;
esac
exit 0
""")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:/usr/bin:/bin")
    hosts = {"inf-01": {"ansible_host": "10.9.9.2"}, "gtw-01": {"ansible_host": "10.9.9.3"}}
    fleet = Fleet(tmp_path / "x.yml", "x", hosts, {"inf": ("inf-01",), "gateway": ("gtw-01",)})
    monkeypatch.setattr(named_fleet, "fleet_of", lambda _inventory: fleet)
    return calls


@pytest.fixture(autouse=True)
def acts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went into the fleet's audit log."""
    found: list[str] = []
    monkeypatch.setattr(named_fleet, "acted", lambda what, **_told: found.append(what))
    return found


def call(*words: str) -> Result:
    return CliRunner().invoke(accept, [*words, *REASON], obj=Chosen(Path("x.yml")))


def test_it_is_accepted_there_and_the_reconciler_started(asked: Path, acts: list[str]) -> None:
    done = call("inf-01", "--who", "ann")
    assert done.exit_code == 0, done.output
    looked, first, *then = asked.read_text().splitlines()
    assert looked == "systemctl is-active mt5crs-reconciler.service"
    told = "--state-dir /var/lib/mt5crs/reconciler --reason 'closed by hand in the terminal'"
    assert first.startswith(f"/usr/local/bin/mt5crs accept {told}")
    assert first.endswith("--who ann")
    # systemd refuses to start for a while what has failed too often, as this one has.
    assert then == [f"systemctl {verb} mt5crs-reconciler.service" for verb in ("reset-failed", "restart")]
    assert acts == ["broker.accepted"]


def test_a_reconciler_that_does_not_get_ready_is_told_though_it_is_accepted(
    asked: Path, tmp_path: Path, acts: list[str]
) -> None:
    (tmp_path / "broken").touch()
    done = call("inf-01")
    assert done.exit_code == 1
    assert "accepted for its next start, but its reconciler did not get ready: Job failed" in done.output
    assert (acts, asked.exists()) == (["broker.accepted"], True)
    halted = '{"level": "CRITICAL", "event": "SystemHaltException", "reason": "the gateway does not answer"}'
    (tmp_path / "journal").write_text(f"{halted}\nFailed to start\n")
    assert "did not get ready: the gateway does not answer" in call("inf-01").output


def test_a_reconciler_that_runs_has_nothing_to_accept(asked: Path, tmp_path: Path, acts: list[str]) -> None:
    """Its record agrees with the broker; to forget it and restart what trades would do harm for nothing."""
    (tmp_path / "runs").touch()
    done = call("inf-01")
    assert done.exit_code == 1
    assert "its reconciler runs" in done.output
    assert asked.read_text().splitlines() == ["systemctl is-active mt5crs-reconciler.service"]
    assert acts == []


@pytest.mark.parametrize("words", [(), ("gtw-01",), ("nowhere",)])
def test_only_an_inf_host_can(asked: Path, acts: list[str], words: tuple[str, ...]) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert "name an Inf host of x.yml: inf-01" in done.output
    assert not asked.exists()
    assert acts == []


def test_a_host_is_named_only_from_the_controller() -> None:
    done = CliRunner().invoke(accept, ["inf-01", *REASON])
    assert done.exit_code == 2
    assert "HOST goes with `mt5crs --inventory`" in done.output
