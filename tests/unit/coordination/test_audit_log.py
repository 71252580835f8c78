"""The audit log from the controller: what is recorded, who is a witness, and what waits for a Hub."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.commands import audit_log as command
from deploy.commands.audit_log import summary
from deploy.coordination import audit_log, checkpoints
from deploy.coordination.audit_log import Reach, act, add, fetch
from deploy.coordination.fleet_lock import FleetLock
from deploy.fleet.inventory import Fleet
from deploy.fleet.vault_password import PROJECT
from deploy.remote import ssh
from deploy.rollout.record import Rollout
from mt5crs.__main__ import main
from mt5crs_release.records.audit_chain import records_of, verify
from mt5crs_release.records.audit_log import _OWN, AuditLog
from mt5crs_release.records.deployments import Deployments
from mt5crs_release.storage.paths import Host


@dataclass
class Hosts:
    """Hosts whose release tool is the real one, each below a directory of its own."""

    root: Path
    down: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        variables: Mapping[str, Any],
        command: Sequence[str],
        *,
        stdin: str = "",
        timeout_s: float,  # noqa: ARG002
    ) -> ssh.Reply:
        host = str(variables["inventory_hostname"])
        if host in self.down:
            return ssh.Reply(None, "", self.down[host])
        action = command[2] if command[0] == ssh.TOOL else "open"
        document = json.loads(stdin) if stdin else {}
        log, kept = AuditLog(Host(self.root / host)), Deployments(Host(self.root / host))
        answer = {
            "append": lambda: log.append(document["acts"], document.get("configuration")),
            "read": log.read,
            "witness": lambda: log.witness(document),
            "witnessed": log.witnessed,
            "open": lambda: kept.open(document),
            "close": lambda: kept.close(command[3], document),
        }[action]()
        return ssh.Reply(0, json.dumps(answer) + "\n", "")

    def file(self, host: str, name: str) -> Path:
        return self.root / host / "var/lib/mt5crs/audit-log" / name


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts(tmp_path)
    monkeypatch.setattr(ssh, "run", made.run)
    monkeypatch.setattr(audit_log, "PENDING", tmp_path / "reports")
    return made


@pytest.fixture
def reach(tmp_path: Path) -> Reach:
    def at(name: str) -> dict[str, Any]:
        return {"inventory_hostname": name}

    return Reach(at("hub"), {"inf-01": at("inf-01"), "gtw-01": at("gtw-01")}, str(tmp_path / "pending"))


def test_an_act_is_recorded_and_the_other_hosts_see_it(hosts: Hosts, reach: Reach) -> None:
    assert add(reach, [act("halt", reason="drill")]) == ""
    log = fetch(reach)
    (record,) = records_of(log.records)
    assert (record["what"], record["reason"], record["written"] >= record["at"]) == ("halt", "drill", True)
    assert {(one.host, one.n) for one in log.witnesses} == {("inf-01", 1), ("gtw-01", 1)}
    found = verify(log.records, log.head, log.snapshots, log.witnesses)
    assert (found.findings, found.witnessed, found.witnesses) == ((), 1, ("gtw-01", "inf-01"))


def test_what_cannot_be_recorded_waits_and_goes_with_the_next(hosts: Hosts, reach: Reach) -> None:
    hosts.down["hub"] = "Connection refused"
    assert "Connection refused; it is kept in" in add(reach, [act("halt")])
    add(reach, [act("resume")])
    hosts.down.clear()
    assert add(reach, [act("flatten")]) == ""
    told = [record["what"] for record in records_of(fetch(reach).records)]
    assert told == ["halt", "resume", "flatten"]
    assert not list(Path(reach.pending).glob("*.json"))
    assert add(reach, [act("halt")]) == ""
    assert len(records_of(fetch(reach).records)) == 4


def test_a_fleet_without_hub_says_that_it_keeps_no_log(hosts: Hosts, reach: Reach) -> None:
    assert add(Reach(None, {}, reach.pending), [act("halt")]) == audit_log.NO_HUB


def test_a_witness_that_is_down_is_named_and_keeps_nothing_from_being_recorded(
    hosts: Hosts, reach: Reach
) -> None:
    hosts.down["inf-01"] = "no route"
    assert add(reach, [act("halt")]) == ""
    log = fetch(reach)
    assert log.silent == {"inf-01": "no route"}
    assert {one.host for one in log.witnesses} == {"gtw-01"}


def lock_on(tmp_path: Path) -> tuple[FleetLock, Rollout, Fleet]:
    inventory = tmp_path / "elsewhere.yml"
    inventory.write_text("all:\n")
    of = {name: {"inventory_hostname": name, "ansible_host": name} for name in ("hub", "inf-01")}
    fleet = Fleet(inventory, "elsewhere", of, {"all": tuple(of), "hub": ("hub",), "inf": ("inf-01",)})
    rollout = Rollout("pyinfra", "elsewhere", action="deploy")
    return FleetLock(fleet.hosts["hub"], rollout.id), rollout, fleet


def test_a_deployment_is_recorded_with_its_configuration(hosts: Hosts, tmp_path: Path) -> None:
    lock, rollout, fleet = lock_on(tmp_path)
    lock.take(rollout, fleet, last=True, beat=False, given=["fleet_bundle"])
    lock.release(rollout.record())
    records = records_of(hosts.file("hub", "records.jsonl").read_bytes())
    assert [record["what"] for record in records] == [
        "deployment.begun",
        "configuration.changed",
        "deployment.ended",
    ]
    assert {record["deployment"] for record in records} == {rollout.id}
    snapshot = json.loads(hosts.file("hub", "config_changes.jsonl").read_bytes())
    assert snapshot["given"] == ["fleet_bundle"]
    assert snapshot["files"]["inventory/elsewhere.yml"] == {"text": "all:\n"}
    assert lock.said == []
    assert json.loads(hosts.file("inf-01", "witness.jsonl").read_bytes())["n"] == 3


def test_a_deployment_says_when_the_log_could_not_be_written(hosts: Hosts, tmp_path: Path) -> None:
    hosts.file("hub", "x").parent.parent.mkdir(parents=True)
    hosts.file("hub", "x").parent.write_text("a file where the log belongs")
    lock, rollout, fleet = lock_on(tmp_path)
    lock.log = None
    lock.take(rollout, fleet, last=True, beat=False)
    assert lock.held
    lock.release(rollout.record())
    assert any("the audit log was not written" in line for line in lock.said)


def exported(hosts: Hosts, reach: Reach, directory: Path) -> Path:
    add(reach, [act("halt", reason="one")])
    add(reach, [act("resume", reason="two")])
    log = fetch(reach)
    directory.mkdir()
    (directory / "records.jsonl").write_bytes(log.records)
    (directory / "config_changes.jsonl").write_bytes(log.snapshots)
    assert log.head is not None
    (directory / "head.json").write_text(json.dumps(vars(log.head)))
    seen = {"seen": [vars(one) for one in log.witnesses], "silent": {}}
    (directory / "witnesses.json").write_text(json.dumps(seen))
    return directory


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["audit-log", *words])
    return result.exit_code, result.output


def test_verify_says_whole_or_what_is_wrong(hosts: Hosts, reach: Reach, tmp_path: Path) -> None:
    directory = exported(hosts, reach, tmp_path / "export")
    where = ("--directory", str(directory))
    status, text = run("verify", *where)
    assert (status, "whole: 2 records" in text) == (0, True), text
    records = directory / "records.jsonl"
    records.write_bytes(records.read_bytes().replace(b'"reason":"one"', b'"reason":"two"'))
    status, text = run("verify", *where)
    assert status == 2
    assert "record 2: does not follow the record before it" in text
    assert "BROKEN" in text
    assert json.loads(run("verify", "--json", *where)[1])["findings"]


def test_verify_does_not_call_whole_what_a_silent_host_may_know_better(
    hosts: Hosts, reach: Reach, tmp_path: Path
) -> None:
    directory = exported(hosts, reach, tmp_path / "export")
    witnesses = json.loads((directory / "witnesses.json").read_text())
    (directory / "witnesses.json").write_text(json.dumps({**witnesses, "silent": {"inf-01": "no route"}}))
    status, text = run("verify", "--directory", str(directory))
    assert status == 1
    assert "inf-01: not asked what it has seen (no route)" in text


def test_show_lists_the_newest_and_one_whole(hosts: Hosts, reach: Reach, tmp_path: Path) -> None:
    where = ("--directory", str(exported(hosts, reach, tmp_path / "export")))
    status, text = run("show", "--last", "1", *where)
    assert status == 0
    assert "resume" in text
    assert "“two”" in text
    assert "1 older ones are not shown" in text
    assert [record["n"] for record in json.loads(run("show", "--json", "--what", "halt", *where)[1])] == [1]
    assert json.loads(run("show", "--number", "2", *where)[1])["what"] == "resume"
    assert run("show", "--number", "3", *where)[0] == 2


def test_a_directory_that_is_no_export_and_a_fleet_that_is_not_named_are_one_sentence(tmp_path: Path) -> None:
    status, text = run("verify", "--directory", str(tmp_path))
    assert (status, "is no export" in text) == (1, True)
    status, text = run("verify")
    assert (status, "name the fleet" in text) == (2, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("head.json", "5"),
        ("head.json", '{"n": "x", "log": "a", "hash": "b"}'),
        ("head.json", "\xff"),
        ("witnesses.json", "{}"),
        ("witnesses.json", '{"seen": [{"n": 1}], "silent": {}}'),
        ("witnesses.json", '{"seen": [], "silent": [1]}'),
    ],
)
def test_a_damaged_export_is_one_sentence(
    hosts: Hosts, reach: Reach, tmp_path: Path, name: str, content: str
) -> None:
    directory = exported(hosts, reach, tmp_path / "export")
    (directory / name).write_text(content, encoding="latin-1")
    for word in ("verify", "show"):
        status, text = run(word, "--directory", str(directory))
        assert (status, f"damaged one ({name}: " in text, text.count("\n")) == (1, True, 1), text


def test_a_word_with_which_no_record_begins_is_told(hosts: Hosts, reach: Reach, tmp_path: Path) -> None:
    where = ("--directory", str(exported(hosts, reach, tmp_path / "export")))
    status, text = run("show", "--what", "deploymnt", *where)
    assert (status, "there are halt, resume" in text) == (2, True), text


def test_an_export_is_whole_or_not_there(
    hosts: Hosts, reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(reach, [act("halt")])
    monkeypatch.setattr(command, "log_of", lambda _directory: fetch(reach))
    there, write = tmp_path / "july", Path.write_bytes

    def interrupted(path: Path, content: bytes) -> int:
        if path.name == "head.json":
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    assert run("export", str(there)) == (1, "\nAborted!\n")
    assert list(tmp_path.glob("*july*")) == []
    monkeypatch.setattr(Path, "write_bytes", write)
    assert run("export", str(there)) == (0, f"{there}: 1 records, whole\n")
    assert run("verify", "--directory", str(there))[0] == 0
    silent = replace(fetch(reach), silent={"inf-01": "no route"})
    monkeypatch.setattr(command, "log_of", lambda _directory: silent)
    status, text = run("export", str(tmp_path / "august"))
    assert (status, "inf-01: not asked what it has seen (no route)" in text) == (1, True)


SHOWN_ELSEWHERE = {
    "acts", "began_msc", "lost", "override", "priority", "signer", "steps", "unasked", "files", "magic",
    "of", "signature",
}  # fmt: skip
"""Fields that `show --number` tells, or `compliance` under its own heading."""


def acts_in_the_code() -> list[tuple[str, set[str]]]:
    """Name and fields of every act that a command tells to the log, by the code."""
    found = []
    for path in [*(PROJECT / "deploy").rglob("*.py"), *(PROJECT / "src/mt5crs").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "acted":
                names = [one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)]
                fields = {one.arg for one in node.keywords if one.arg}
                found += [(str(name), fields) for name in names if "." in str(name) or len(names) == 1]
    return found


@pytest.mark.parametrize(("name", "fields"), acts_in_the_code())
def test_every_act_keeps_its_fields_and_is_shown_and_documented(name: str, fields: set[str]) -> None:
    assert not fields & _OWN, "the log replaces these by its own"
    shown = {one: {f"<{one}>": 1} if one == "hosts" else f"<{one}>" for one in fields}
    for one in ("names", "keys", "added", "edited", "removed", "files", "magics", "ids"):
        shown |= {one: [f"<{one}>"]} if one in fields else {}
    text = summary({"what": name, **shown})
    assert [one for one in fields - SHOWN_ELSEWHERE if f"<{one}>" not in text] == []
    table = (PROJECT / "docs/audit-log.md").read_text()
    begin, _, end = name.rpartition(".")
    assert f"`{name}`" in table or any(
        f"`{begin}." in row and f"`.{end}`" in row for row in table.splitlines()
    ), "docs/audit-log.md does not say what is recorded"


def test_a_summary_says_what_changed_where() -> None:
    record = {
        "what": "configuration.changed",
        "deployment": "0123456789",
        "changed": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5},
        "gateways": {"gtw-01": "done"},
        "reason": "drill",
    }
    assert summary(record) == "deployment 01234567; a, b, c, d and 1 more; gtw-01: done; “drill”"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("keys")
    for name in ("one", "two"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(words, check=True)
    return directory / "one", directory / "two"


def test_a_checkpoint_is_signed_by_a_release_key(hosts: Hosts, reach: Reach, keys: tuple[Path, Path]) -> None:
    one, two = keys
    signers = [one.with_suffix(".pub").read_text().strip()]
    add(reach, [act("halt")])
    head = fetch(reach).head
    assert head is not None
    add(reach, [act(checkpoints.CHECKPOINT, **checkpoints.signed(head, one))])
    add(reach, [act(checkpoints.CHECKPOINT, **checkpoints.signed(head, two))])
    other = checkpoints.signed(head, one)["signature"]
    add(reach, [act(checkpoints.CHECKPOINT, of={**vars(head), "hash": "0" * 64}, signature=other)])
    add(reach, [act(checkpoints.CHECKPOINT, of={"log": "x", "n": 1, "hash": head.hash}, signature=other)])
    found = checkpoints.judged(fetch(reach).records, signers)
    assert [(one.n, one.good, bool(one.wrong)) for one in found] == [
        (2, True, False),
        (3, False, False),
        (4, False, True),
        (5, False, True),
    ]
    assert "no release key that counts now" in found[1].unknown
    assert not any(one.good for one in checkpoints.judged(fetch(reach).records, None))
