"""A scan tells what it found, and never calls clean what it could not look at."""

import io
import subprocess
import tarfile
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.controller.programs import require
from pipeline.scans import advisories, command, debian, licences, secrets
from pipeline.scans.model import AcceptanceError, Found, Scan, acceptances, status, summary, with_acceptances

KEY = "gh" + "p_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
"""Put together here, so that no scan takes this file for a leak."""


def scan(*found: str, looked_at: int = 1, not_checked: str = "") -> Scan:
    return Scan(
        name="x",
        looked_at=looked_at,
        what="things",
        found=[Found(key=each, detail="bad") for each in found],
        not_checked=not_checked,
    )


def test_nothing_looked_at_is_not_clean() -> None:
    assert scan(looked_at=0).state == "not checked"
    assert scan().state == "clean"
    assert scan(not_checked="no network").state == "not checked"
    assert scan("a", not_checked="no network").state == "found"


def test_the_worst_scan_gives_the_exit_status() -> None:
    clean, unknown, bad = scan(), scan(not_checked="no network"), scan("a")
    assert status([clean], 3) == 0
    assert status([clean, unknown], 3) == 3
    assert status([clean, unknown, bad], 3) == 1
    assert status([], 3) == 3
    assert summary([clean, unknown, bad]) == "found: x; not checked: x (no network)"


def test_an_acceptance_is_for_one_finding_until_a_day() -> None:
    text = '[[accepted]]\nscan = "x"\nkey = "a"\nreason = "r"\nowner = "o"\nuntil = 2026-03-01\n'
    listed = acceptances(text, date(2026, 3, 1))
    left = with_acceptances(scan("a", "b"), listed)
    assert ([each.key for each in left.found], [each.key for each in left.accepted]) == (["b"], ["a"])
    with pytest.raises(AcceptanceError, match="by o expired on 2026-03-01"):
        acceptances(text, date(2026, 3, 2))
    with pytest.raises(AcceptanceError, match="cannot be read"):
        acceptances(text.replace('owner = "o"\n', ""), date(2026, 3, 1))
    with pytest.raises(AcceptanceError, match="cannot be read"):
        acceptances(text.replace("2026-03-01", '"01.03.26"'), date(2026, 3, 1))


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", True),
        ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("", False),
        ("unknown", False),
        ("MIT License", True),
        ("BSD License", True),
        ("GNU General Public License v3 (GPLv3)", False),
        ("(MIT", False),
        ("MIT MIT", False),
    ],
)
def test_a_licence_is_met_with_allowed_ones_alone(expression: str, good: bool) -> None:
    assert licences.allowed(expression) is good


def component(name: str, licence: str | None = None, **more: Any) -> dict[str, Any]:
    told = {"licenses": [{"license": {"name": licence}}]} if licence else {}
    return {"name": name, "version": "1", "type": "library", **told, **more}


def test_every_component_of_a_bill_is_looked_at() -> None:
    inside = component("wheel.whl", type="file", components=[component("libbad", "AGPL-3.0-only")])
    bill = {
        "components": [
            component("good", "MIT", components=[inside]),
            component("nothing"),
            component("libc6", purl="pkg:deb/debian/libc6@2.41?arch=amd64"),
        ]
    }
    made = licences.scan([("a.cdx.json", bill)])
    assert made.looked_at == 4
    assert {each.key: each.detail for each in made.found} == {
        "libbad 1": "AGPL-3.0-only, in a.cdx.json",
        "nothing 1": "no licence, in a.cdx.json",
    }
    assert licences.scan([]).state == "not checked"


def commit(root: Path, path: str, content: str | None) -> None:
    if content is None:
        (root / path).unlink()
    else:
        (root / path).write_text(content)
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("add", "-A"), (*identity, "commit", "-q", "-m", "c")):
        subprocess.run([require("git"), "-C", str(root), *words], check=True, timeout=30)


def test_a_secret_that_was_removed_is_still_in_the_history(project: Path) -> None:
    assert secrets.history(project).state == "clean"
    commit(project, "settings.py", f"TOKEN = '{KEY}'\n")
    commit(project, "settings.py", None)
    made = secrets.history(project)
    assert [each.detail.split(" ")[0] for each in made.found] == ["settings.py:1"]
    assert KEY not in str(made), "a report must not repeat the secret"


def test_a_clone_without_its_history_is_not_checked(project: Path, tmp_path: Path) -> None:
    commit(project, "b.txt", "b\n")
    shallow = tmp_path / "shallow"
    clone = [require("git"), "clone", "-q", "--depth", "1", project.as_uri(), str(shallow)]
    subprocess.run(clone, check=True, timeout=30)
    assert secrets.history(shallow).state == "not checked"


def archive(path: Path, files: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def test_a_secret_in_a_layer_of_an_image_is_found(tmp_path: Path) -> None:
    layer = archive(tmp_path / "layer", {"etc/a": f"x = {KEY}\n".encode(), "b": b"\0"}, "w:gz")
    image = archive(tmp_path / "image.tar", {"index.json": b"{}", "blobs/1": layer.read_bytes()}, "w")
    made = secrets.images([image])
    assert (made.looked_at, [each.key for each in made.found]) == (1, ["etc/a"])
    assert secrets.images([]).state == "not checked"


PACKAGES = {"jinja2": "3.1.2", "click": "8.1"}


def test_an_answer_about_every_package_is_read() -> None:
    made = advisories.read(PACKAGES, {"results": [{}, {"vulns": [{"id": "GHSA-x"}]}]})
    assert [(each.key, each.detail) for each in made.found] == [("GHSA-x", "jinja2 3.1.2")]
    assert advisories.read(PACKAGES, {"results": [{}, {}]}).state == "clean"


@pytest.mark.parametrize(
    "answer", [{"results": [{}]}, {}, [], None, {"results": [{}, {"next_page_token": "x"}]}]
)
def test_half_an_answer_about_advisories_is_not_checked(answer: Any) -> None:
    assert advisories.read(PACKAGES, answer).state == "not checked"


def test_advisories_that_cannot_be_reached_are_not_checked(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "uv.lock").write_text(
        '[[package]]\nname = "click"\nversion = "8.1"\nsource = { registry = "x" }\n'
        '[[package]]\nname = "ours"\nversion = "1"\nsource = { editable = "." }\n'
    )
    assert advisories.locked((project / "uv.lock").read_text()) == {"click": "8.1"}

    def refuse(*_: object, **__: object) -> httpx.Response:
        raise httpx.ConnectError("name or service not known")

    monkeypatch.setattr(httpx, "post", refuse)
    made = advisories.scan(project)
    assert made.state == "not checked"
    assert "was not reached (name or service not known)" in made.detail
    proxy = httpx.Response(200, text="<html>sign in</html>", request=httpx.Request("POST", "http://x"))
    monkeypatch.setattr(httpx, "post", lambda *_, **__: proxy)
    assert advisories.scan(project).state == "not checked"


def test_a_simulated_upgrade_is_read() -> None:
    said = (
        "Reading package lists...\n"
        "Inst libc6 [2.41-12] (2.41-12+deb13u1 Debian-Security:13/stable-security [amd64])\n"
        "Inst libdb5.3t64 [5.3.28-9] (5.3.28-9 Debian:13.8/stable [amd64])\n"
        "Inst new-package (1.0 Debian:13/stable [amd64])\n"
        "Conf libc6 (2.41-12+deb13u1 Debian-Security:13/stable-security [amd64])\n"
    )
    assert [(each.key, each.detail.split(",")[0]) for each in debian.pending(said)] == [
        ("libc6 2.41-12", "2.41-12+deb13u1 is there")
    ]
    assert debian.pending("Reading package lists...\n") == []


def test_the_packages_of_a_bill_become_a_database() -> None:
    bill = {
        "components": [
            component("libc6", purl="pkg:deb/debian/libc6@2.41-12%2Bx?arch=amd64"),
            component("pyzmq"),
        ]
    }
    installed = debian.packages([bill])
    assert installed == [debian.Package("libc6", "2.41-12+x", "amd64")]
    assert "Package: libc6\nStatus: install ok installed\nVersion: 2.41-12+x\n" in debian.database(installed)
    assert debian.scan([]).state == "not checked"


def test_nothing_built_is_not_checked(project: Path) -> None:
    said: list[str] = []
    (project / "dist").mkdir()
    assert command.run(project, ["built"], project / "reports/scan.json", said.append) == 3
    assert said[-1].startswith("not checked: licences (")
    assert '"state": "not checked"' in (project / "reports/scan.json").read_text()
