"""A release signer is replaced in two steps; the old one goes when hosts and bundles do without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.commands import rotate
from deploy.fleet.inventory import Fleet, resolve
from deploy.remote import ssh
from deploy.vaults import signers
from deploy.vaults.store import VaultError
from mt5crs.__main__ import main
from tests.unit.fleets import EXTRA, make_inventory

OLD, NEW = (f"ssh-ed25519 AAAA{name}Key {name} key" for name in ("Old", "New"))
TEXT = f"""---
# who signs
baseline_release_signers:
  - {OLD}  # Jane
fleet_account_login: 1
"""


def test_one_line_is_added_and_one_taken_out_and_comments_stay() -> None:
    both = signers.changed(TEXT, add=NEW)
    assert both == TEXT.replace("# Jane\n", f"# Jane\n  - {NEW}\n")
    assert signers.changed(both, remove=NEW) == TEXT
    assert signers.changed(both, remove=OLD) == TEXT.replace(f"{OLD}  # Jane", NEW)
    assert signers.changed(TEXT.rstrip().rpartition("\n")[0], add=NEW).endswith(f"\n  - {NEW}")


@pytest.mark.parametrize(
    "text", [f"baseline_release_signers: [{OLD}]\n", "a: 1\n", "baseline_release_signers: x\n"]
)
def test_another_form_is_left_to_people(text: str) -> None:
    with pytest.raises(VaultError, match="by hand, one deployment"):
        signers.changed(text, add=NEW)


@pytest.mark.parametrize(
    ("named", "said"),
    [("Old", None), ("Old key", None), ("Okd key", "did you mean Old key"), ("Key", "2 signers are")],
)
def test_a_signer_is_named_by_comment_or_end(named: str, said: str | None) -> None:
    if said is None:
        assert signers.fitting([OLD, NEW], "OldKey" if named == "Old" else named) == OLD
        return
    with pytest.raises(VaultError, match=said):
        signers.fitting([OLD, NEW], named)


def test_the_steps_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = make_inventory(tmp_path)
    place = tmp_path / "main.yml"
    place.write_text(TEXT)
    (tmp_path / "new.pub").write_text(f"{NEW}\n")
    (tmp_path / "new").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    acts: list[Any] = []
    known = {OLD}

    def fleet(_: Path) -> Fleet:
        found = resolve(inventory, EXTRA)
        lines = [line for line in (OLD, NEW) if line in place.read_text()]
        return replace(
            found,
            hosts={host: {**of, signers.SETTING: lines} for host, of in found.hosts.items()},
            origins={(host, signers.SETTING): f"{place}:3" for host in found.hosts},
        )

    def asked(_of: object, words: list[str], **_: object) -> ssh.Reply:
        return ssh.Reply(0, "".join(f"mt5crs-release {line}\n" for line in known), "")

    monkeypatch.setattr("deploy.fleet.inventory.resolve", fleet)
    monkeypatch.setattr(ssh, "run", asked)
    monkeypatch.setattr(rotate, "acted", lambda what, **told: acts.append((what, told)))

    def run(*words: str) -> Result:
        return CliRunner().invoke(
            main, ["--inventory", str(inventory), "secrets", "rotate", "signing", *words]
        )

    assert "no public key of SSH" in run("--new", str(tmp_path / "new")).output
    assert "first --new FILE.pub" in run("--remove", "Old key").output
    assert "would be admitted" in run("--new", str(tmp_path / "new.pub"), "--plan").output
    assert (place.read_text(), acts) == (TEXT, [])
    done = run("--new", str(tmp_path / "new.pub"))
    assert (done.exit_code, "to be deployed:" in done.output) == (0, True), done.output
    assert "is admitted already" in run("--new", str(tmp_path / "new.pub")).output
    assert "rotate signing --remove OLD" in run().output

    early = run("--remove", "Old key").output
    assert "README.md" in early
    assert "inf-01 does not accept the key that is to stay" in early
    monkeypatch.setattr(signers, "unsigned", lambda *_: [])
    assert "gtw-01 does not accept" in run("--remove", "Old key").output
    assert OLD in place.read_text()
    known.add(NEW)
    done = run("--remove", "Old key")
    assert done.exit_code == 0, done.output
    assert place.read_text() == TEXT.replace(f"{OLD}  # Jane", NEW)
    assert [told["names"] for _, told in acts] == [[f"admitted  {NEW}"], [f"removed  {OLD}"]]


def test_a_stolen_key_goes_at_once(tmp_path: Path) -> None:
    words = ["--inventory", str(make_inventory(tmp_path)), "secrets", "rotate", "signing", "--lost"]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, "which --lost goes with" in done.output) == (2, True)
