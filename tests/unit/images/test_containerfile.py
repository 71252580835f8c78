"""The Containerfile is what `make images` is made of, and what a builder is given holds no key."""

import ast
import fnmatch
import json
import platform
import re
import sys
from pathlib import Path

import pytest

from deploy.bundle.archive import ROOT
from images import containerfile
from images.layout import environment_of
from images.services import SERVICES
from images.steps import __main__ as steps
from images.steps import debian
from images.steps.debian import CODENAME, DEBIAN
from lab.plan import RELEASES


def test_it_is_up_to_date() -> None:
    written = containerfile.PATH.read_text()
    assert written == containerfile.containerfile(), "run `python -m images containerfile`"


def test_what_is_not_made_here_is_named_by_its_digest() -> None:
    text = containerfile.containerfile()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    made = {name for _, name in stages}
    assert {source for source, _ in stages} - made == {"${DEBIAN}", "scratch"}
    assert re.search(r"^ARG DEBIAN=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert RELEASES[DEBIAN] == CODENAME
    assert f":{CODENAME}-slim@" in containerfile.BASE


def test_every_service_has_a_stage_that_runs_it_as_its_image_does() -> None:
    stages = re.split(r"^FROM ", containerfile.containerfile(), flags=re.MULTILINE)
    for service in SERVICES:
        (stage,) = (each for each in stages if each.partition("\n")[0].endswith(f" AS {service.name}"))
        for name, value in environment_of(service).items():
            assert f'{name}="{value}"' in stage
        for word in (*service.command, *service.health, *service.volumes):
            assert f'"{word}"' in stage
        assert "USER 10001:10001" in stage
        assert "STOPSIGNAL SIGTERM" in stage
        # No shell is needed in the end, since there is none.
        assert [line for line in stage.splitlines() if line.startswith("RUN") and "RUN [" not in line] == []


def test_a_stage_has_all_that_its_steps_import() -> None:
    allowed = {"images.services", "images.steps", "images.steps.debian", "__future__"}
    for path in (ROOT / "images/steps").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for name in named:
                assert name in allowed or name.partition(".")[0] in sys.stdlib_module_names, f"{path}: {name}"


def sent(path: str) -> bool:
    """Whether a builder is sent a file: the last line of .dockerignore that fits decides."""
    decided = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!")
        parents = [path, *map(str, Path(path).parents)]
        if line and not line.startswith("#") and any(fnmatch.fnmatch(each, pattern) for each in parents):
            decided = line.startswith("!")
    return decided


def test_a_builder_is_sent_what_is_copied_and_no_key() -> None:
    copied = ("dist/mt5crs-release", "dist/mt5crs-0.1.0-abc.tar", "allowed_signers", "images/steps/unpack")
    assert [path for path in (*copied, "templates/monitoring/ready.py") if not sent(path)] == []
    kept = (
        ".keys/release_ed25519",
        ".compose/mt5crs-stack/secrets/gateway",
        "inventory/lab.yml",
        ".git/config",
    )
    assert [
        path for path in (*kept, "dist/mt5crs-images-0.1.0-abc-amd64.tar", ".venv/bin/python") if sent(path)
    ] == []


def test_a_bundle_for_another_architecture_ends_the_build_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"platforms": ["linux-x86_64"]}))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(debian, "reduce", lambda _root: pytest.fail("something was made"))
    with pytest.raises(SystemExit, match="is for linux-x86_64, and the image for linux-aarch64"):
        steps.main(str(tmp_path), "ready.py")
