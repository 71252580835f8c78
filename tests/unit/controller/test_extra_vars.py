"""Words that Ansible would drop from `-e name=value` end the run, with the way to give them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.controller.extra_vars import leftover
from deploy.fleet.vault_password import PROJECT
from tests.unit.fleets import make_inventory


@pytest.mark.parametrize(
    "given",
    ["why=mended", 'why="two words"', '{"why": "two words"}', "@settings.yml", "why=mended lock=none", ""],
)
def test_what_ansible_takes_whole_is_taken(given: str) -> None:
    assert leftover([given]) == ""


@pytest.mark.parametrize("given", ["why=two words", "lock=none why=two words", "two words"])
def test_what_it_would_drop_is_named(given: str) -> None:
    said = leftover(["plan=0123", given])
    assert "would drop" in said
    assert "words" in said


def test_the_way_out_is_the_users_own_words() -> None:
    said = leftover(["why=two words"])
    option = shlex.split(said[said.index("-e '{") :])[1].rstrip(".")
    assert option == '{"why": "two words"}'
    assert leftover([option]) == ""
    assert '{"name": "some words"}' in leftover(["lock=none why=two words"])


def test_a_run_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [program, "-i", str(inventory), "site.yml", "--check", "-e", "why=two words"],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(inventory.parent / "vault-password")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "would drop 'words'" in " ".join((done.stdout + done.stderr).split())
    assert "PLAY [" not in done.stdout
