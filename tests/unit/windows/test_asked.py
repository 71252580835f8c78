"""A Windows gateway is asked for a go/no-go and backed up: what its programs find, and how that is judged."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from deploy.backup import copies, on_host, storing
from deploy.fleet.inventory import Fleet
from deploy.preflight import gathering, on_windows
from deploy.preflight.checks import CHECKS
from deploy.preflight.facts import Asked, EnvFile, Facts, Host, HostAnswer, Section, Signers, Unknown
from deploy.preflight.judging import decide
from deploy.remote import windows_play, windows_script
from deploy.remote.windows_play import Played, Trouble
from mt5crs_release.systems.windows import rights as windows_rights
from tests.unit.preflight.test_preflight import GOOD, told

ACCOUNT = "S-1-5-21-1-2-3-1001"
SDDL = f"O:BAG:SYD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x{{mask}};;;{ACCOUNT})"
READS, MODIFIES = "1200a9", "1301bf"
FLEET = Fleet(
    Path("x.yml"),
    "x",
    {
        "gtw-01": {
            "gateway_metrics_address": "127.0.0.1",
            "gateway_metrics_port": 1,
            "fleet_address": "10.9.9.3",
        }
    },
    {"gateway": ("gtw-01",), "windows": ("gtw-01",)},
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directories of a Windows gateway, and the programs that are asked there."""
    current = tmp_path / "gateway/generations/0001-aa"
    current.mkdir(parents=True)
    (current / ".env").write_text("NAME='x'\nSECRET=''\n# a note=''\n")
    (current / "clients.json").write_text("{}")
    (tmp_path / "gateway/current").write_text("generations/0001-aa")
    (tmp_path / "gateway/state.json").write_text('{"current": "0001-aa"}')
    (tmp_path / "allowed_signers").write_text("# by us\nmt5crs-release ssh-ed25519 AAAAkey\n")
    state = tmp_path / "state/gateway"
    state.mkdir(parents=True)
    with closing(sqlite3.connect(state / "control.db")) as db:
        db.execute("CREATE TABLE acts (at_msc INTEGER, act TEXT, magic INTEGER, client TEXT, reason TEXT)")
        db.execute(
            "INSERT INTO acts VALUES (5000, 'halt', 0, 'ops', 'drill'), (6000, 'halt', 0, 'backup', 'x')"
        )
        db.commit()
    (state / "service.log").write_text("one\ntwo\n")
    monkeypatch.setattr(on_windows, "ROOT", tmp_path)
    kernel = SimpleNamespace(account_sid=lambda _name: ACCOUNT)
    tool = {"windows_rights": windows_rights, "windows_kernel": SimpleNamespace(Kernel=lambda: kernel)}
    monkeypatch.setattr(on_windows, "of_tool", tool.__getitem__)
    monkeypatch.setattr(on_windows, "run", ran)
    return tmp_path


MASKS: dict[str, str] = {}


def ran(*words: str) -> str:
    """icacls writes what rights there are, the release tool and the runtime answer."""
    if words[0] == "icacls.exe":
        mask = MASKS.get(Path(words[1]).name, MODIFIES if "state" in words[1] else READS)
        listing = "".join(f"{name}\r\n{SDDL.format(mask=mask)}\r\n" for name in ("0001-aa", r"0001-aa\.env"))
        Path(words[3]).write_bytes(listing.encode("utf-16"))
        return ""
    if words[-1] == "--json":
        return json.dumps({"services": {"gateway": {"units": {"mt5crs-gateway.service": "failed"}}}})
    return "3.12.1\n"


def answered() -> HostAnswer:
    """What the host says, as the controller reads it."""
    document = on_windows.answer({"health": {"gateway": ("127.0.0.1", 1)}, "steered": True})
    read = gathering.read(json.dumps(document))
    assert isinstance(read, HostAnswer)
    return read


def test_every_section_is_one_that_the_controller_knows(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_windows, "memory", lambda: 50.0)
    monkeypatch.setattr(on_windows, "reboot", lambda: False)
    sections = answered().sections
    problems = {
        name: section.error
        for name in (field.name for field in msgspec.structs.fields(type(sections)))
        if (section := getattr(sections, name)) is not None and section.error
    }
    assert list(problems) == ["clock"], problems
    assert "w32tm" in problems["clock"]
    path = str(host / "gateway/generations/0001-aa/.env")
    assert sections.env is not None
    assert sections.env.value == [EnvFile(path, "gateway", empty=["SECRET"])]
    assert sections.signers == Section(Signers(lines=["mt5crs-release ssh-ed25519 AAAAkey"]))
    assert sections.failed_units == Section(["mt5crs-gateway.service"])
    assert sections.writable is not None
    assert sections.writable.value is not None
    assert [one.writable for one in sections.writable.value] == [True]
    assert sections.acts is not None
    assert [(one.at, one.magic) for one in sections.acts.value or ()] == [(5.0, 0)]
    assert sections.databases is not None
    assert [one.said for one in sections.databases.value or ()] == ["ok"]
    assert sections.interpreters is not None
    assert [one.version for one in sections.interpreters.value or ()] == ["3.12.1"]


def test_who_else_can_read_or_write_is_told(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sddl = SDDL.format(mask=READS)
    assert on_windows.writers(sddl) == {"SY", "BA"}
    assert on_windows.writers(SDDL.format(mask=MODIFIES)) == {"SY", "BA", ACCOUNT}
    open_to_all = {"x": f"{sddl}(A;OICI;{hex(0x1301BF)};;;WD)"}
    monkeypatch.setattr(on_windows, "rights", lambda _path: open_to_all)
    assert on_windows.env_files()[0]["others"] == ["x grants rights to WD"]
    assert on_windows.signers()["others"] == ["WD"]
    monkeypatch.setattr(on_windows, "rights", lambda _path: {"x": sddl})
    assert on_windows.writable()[0]["writable"] is False


def of_a_windows_gateway(others: Sequence[str] = (), mode: int | None = None) -> Facts:
    """A good fleet whose gateway has Windows."""
    asked = GOOD.answers["gtw-01"]
    assert isinstance(asked, Asked)
    assert asked.answer.sections.signers is not None
    assert asked.answer.sections.signers.value is not None
    sections = msgspec.structs.replace(
        asked.answer.sections,
        env=Section([EnvFile("C:/x/.env", "gateway", mode, others=list(others))]),
        signers=Section(Signers(lines=asked.answer.sections.signers.value.lines, others=list(others))),
    )
    answer = replace(asked, answer=msgspec.structs.replace(asked.answer, sections=sections))
    before = GOOD.hosts["gtw-01"]
    hosts = {**GOOD.hosts, "gtw-01": Host(("gateway", "windows"), before.services, before.settings)}
    return replace(GOOD, hosts=hosts, answers={**GOOD.answers, "gtw-01": answer})


def test_a_fleet_with_a_windows_gateway_can_be_go() -> None:
    decision = decide(of_a_windows_gateway(), CHECKS)
    assert {one.check.id: told(one) for one in decision.results if one.verdict != "PASS"} == {}
    assert decision.go
    assert decision.environment == GOOD.environment


def test_rights_that_others_have_or_that_are_not_told_are_no_go() -> None:
    decision = decide(of_a_windows_gateway(["x grants rights to WD"]), CHECKS)
    assert [one.check.id for one in decision.results if one.verdict == "FAIL"] == ["G-SEC-01", "G-SEC-09"]
    assert not decision.go
    linux = replace(of_a_windows_gateway(), hosts=GOOD.hosts)
    found = {one.check.id: told(one) for one in decide(linux, CHECKS).results if one.verdict == "FAIL"}
    assert set(found) == {"G-SEC-01", "G-SEC-09"}
    assert "not known: the rights of C:/x/.env" in found["G-SEC-01"]


def test_what_a_deployment_would_change_of_the_baseline_is_not_in_force() -> None:
    played = Played(changed={"a": ["Stage gateway", "Firewall rules"], "b": ["Release tool"]})
    found = gathering.baseline_in_force(played, ["a", "b", "c"])
    assert [found[name].value for name in "abc"] == ["a deployment would: Firewall rules", "", ""]
    broken = Played(good=False, troubles=[Trouble("b", "Account", "no such right")])
    found = gathering.baseline_in_force(broken, ["a", "b"])
    assert (found["a"].value, found["a"].error) == (None, "the run of Ansible ended early")
    assert found["b"].error == "Account: no such right"


def result(**of: Any) -> dict[str, Any]:
    """Ansible's JSON of the phase in which a host is asked."""
    return {"plays": [{"tasks": [{"task": {"name": windows_play.ASKS}, "hosts": {"gtw-01": of}}]}]}


def test_what_a_program_of_ours_printed_there_is_read_and_why_it_failed() -> None:
    said = windows_play.read(result(stdout='{"a": 1}', rc=0, cmd="python -"))
    assert (said.said, said.troubles) == ({"gtw-01": '{"a": 1}'}, [])
    failed = windows_play.read(
        result(failed=True, msg="non-zero return code", rc=1, stderr="Traceback\nno such file\n", stdout="")
    )
    assert failed.said == {}
    assert [one.reason for one in failed.troubles] == ["no such file"]


@pytest.fixture
def plays(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    """What the next plays come to, one after the other; those that were run are taken out."""
    coming: list[Played] = []
    monkeypatch.setattr(windows_play, "run", lambda *_given, **_named: coming.pop(0))
    return coming


def test_a_program_is_sent_whole_and_one_that_does_not_answer_is_told(
    plays: list[Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}

    def run(_inventory: Path, _hosts: Sequence[str], phase: str, known: dict[str, Any]) -> Played:
        sent.update(known, phase=phase)
        return Played(good=False, troubles=[Trouble("gtw-01", "x", "no route to host")])

    monkeypatch.setattr(windows_play, "run", run)
    for module in (on_windows, on_host):
        reply = windows_script.run(FLEET, ["gtw-01"], module, "take")["gtw-01"]
        assert (reply.status, reply.why) == (None, "no route to host")
        assert sent["windows_ask_program"] == Path(str(module.__file__)).read_text()
    assert (sent["phase"], sent["windows_ask_arguments"]) == ("ask", ["take"])


def test_the_host_is_asked_and_what_does_not_answer_is_unknown(plays: list[Played]) -> None:
    document = {"began": 1.0, "ended": 2.0, "python": "3.12.1", "sections": {"reboot": {"value": False}}}
    plays += [Played(said={"gtw-01": json.dumps(document)}), Played(changed={"gtw-01": ["Firewall rules"]})]
    asked = gathering.of_windows(FLEET)["gtw-01"]
    assert isinstance(asked, Asked)
    assert asked.answer.sections.in_force == Section("a deployment would: Firewall rules")
    assert asked.answer.sections.reboot == Section(value=False)
    plays += [Played(good=False, troubles=[Trouble("gtw-01", "x", "away")]), Played()]
    assert gathering.of_windows(FLEET) == {"gtw-01": Unknown("away")}


def test_a_copy_has_configuration_state_and_events_and_no_secret(
    host: Path, plays: list[Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_host, "_WINDOWS", True)
    monkeypatch.setattr(on_host, "BASE", host)
    monkeypatch.setattr(on_host, "STATE", host / "state")
    plays.append(Played(said={"gtw-01": json.dumps(on_host.take())}))
    taken = storing._take(FLEET, "gtw-01")
    assert isinstance(taken, dict)
    files = copies.files_of(base64.b64decode(taken["content"]))
    assert set(files) == {
        "config/gateway/current/clients.json",
        "config/gateway/state.json",
        "events/gateway.jsonl",
        "other/etc/mt5crs/allowed_signers",
        "state/gateway/control.db",
    }
    assert files["events/gateway.jsonl"] == b"one\ntwo\n"
    assert storing._release(files) == {"gateway": "0001-aa"}
    plays.append(Played(good=False, troubles=[Trouble("gtw-01", "x", "away")]))
    assert storing._take(FLEET, "gtw-01") == "away"


def test_a_state_is_not_put_back_there() -> None:
    with pytest.raises(storing.BackupError, match=r"put back by hand .*nothing was done"):
        storing.call(FLEET, "gtw-01", "restore", "gateway", "x")
