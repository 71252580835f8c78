"""Known hosts lose nothing and get no line twice; a journal survives, or is said to be unreadable."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.migration import journal, known_hosts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIARZfSSwWsf5iqe8LMXEmbjFXzi4Np+e23i1SQnVmw/U"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDcJ8j3qYt4mZ1xV0n5oQy3cH9ZkQmJt8m0vF6l2s7aB"


def test_keys_are_found_by_name_and_port(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"# mine\n10.0.0.22,inf-02 {KEY}\n[10.0.0.22]:2222 {OTHER}\n@revoked 10.0.0.22 {OTHER}\n")
    assert known_hosts.keys_of(file, known_hosts.named("10.0.0.22", None)) == [KEY]
    assert known_hosts.keys_of(file, known_hosts.named("10.0.0.22", 2222)) == [OTHER]
    assert known_hosts.keys_of(file, "10.0.0.23") == []
    with pytest.raises(known_hosts.KnownHostsError, match="ssh-keyscan"):
        known_hosts.keys_of(tmp_path / "none", "10.0.0.22")


@pytest.mark.parametrize("text", ["", f"a {KEY}", f"a {KEY}\n", f"# x\n\na {KEY}\n"])
def test_lines_come_once_and_go_again(text: str) -> None:
    lines = known_hosts.lines_for("10.0.0.82", [KEY, KEY, OTHER], [OTHER])
    assert lines == [f"10.0.0.82 {KEY}"]
    there = known_hosts.with_lines(text, lines)
    assert known_hosts.with_lines(there, lines) == there
    assert there.startswith(text)
    assert known_hosts.without_lines(there, lines).rstrip("\n") == text.rstrip("\n")


def made(inventory: Path) -> journal.Journal:
    return journal.Journal(
        id="1", inventory=str(inventory), host="inf-02", old="10.0.0.22", new="10.0.0.82", who="me",
        reason="rack", began="2026-11-30T10:00:00+00:00",
    )  # fmt: skip


def test_a_journal_is_found_again_and_goes(tmp_path: Path) -> None:
    inventory = tmp_path / "staging.yml"
    assert journal.found(inventory) is None
    of = made(inventory)
    of.reached("described")
    found = journal.found(inventory)
    assert found == of
    assert journal.path_of(inventory).name == ".staging.migration.json"
    of.remove()
    assert journal.found(inventory) is None


def test_a_damaged_journal_is_not_no_journal(tmp_path: Path) -> None:
    inventory = tmp_path / "staging.yml"
    journal.path_of(inventory).write_text("{")
    with pytest.raises(journal.JournalError, match="unknown state"):
        journal.found(inventory)


def test_one_move_at_a_time(tmp_path: Path) -> None:
    inventory = tmp_path / "staging.yml"
    with (
        journal.held(inventory),
        pytest.raises(journal.JournalError, match="at work"),
        journal.held(inventory),
    ):
        pass
    with journal.held(inventory):
        pass
