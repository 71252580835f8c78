"""A tag that a playbook does not know ends the run, since Ansible would do nothing and call it a success."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.controller.tags import tags_of, unknown
from deploy.fleet.services import NAMES
from deploy.fleet.vault_password import PROJECT
from tests.unit.fleets import make_inventory


def test_a_playbook_has_the_tags_of_its_own_roles_only() -> None:
    assert {"always", *NAMES} <= tags_of(PROJECT / "site.yml")
    assert {"fleet", *NAMES} <= tags_of(PROJECT / "rollback.yml")
    assert "fleet" not in tags_of(PROJECT / "site.yml")


def test_what_exists_is_taken() -> None:
    assert unknown(PROJECT / "site.yml", ["all", "reconciler", "baseline"]) == ""


def test_what_molecule_leaves_out_everywhere_is_taken() -> None:
    """Asked of Molecule itself, since it leaves out more in some of its steps."""
    provisioner = importlib.util.find_spec("molecule.provisioner.ansible")
    assert provisioner is not None
    assert provisioner.origin is not None
    source = Path(provisioner.origin).read_text(encoding="utf-8")
    skipped = set(re.findall(r"[a-z-]*notest", source))
    assert len(skipped) >= 3
    assert unknown(PROJECT / "site.yml", sorted(skipped)) == ""


@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
@pytest.mark.parametrize(
    ("playbook", "tag", "hint"),
    [
        ("site.yml", "Reconciler", "did you mean reconciler?"),
        ("site.yml", "fleet", "it has baseline,"),
        (
            "rollback.yml",
            "typo",
            "it has access, baseline, fleet, gateway, hub, monitoring, reconciler, review, strategy",
        ),
    ],
)
def test_a_wrong_word_is_an_error(playbook: str, tag: str, hint: str, option: str, tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(inventory),
            playbook,
            option,
            tag,
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert f"{playbook} has no tag '{tag}'" in done.stderr
    assert hint in done.stderr
    assert "Nothing was changed" in done.stderr
    assert "nothing to do" not in done.stdout
