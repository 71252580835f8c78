"""The Containerfile, built by podman on a Debian made here: no registry is reached from this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.bundle.archive import ROOT
from deploy.bundle.build import newest
from images import build
from images.services import SERVICES, reference
from lab import image, namespace
from lab.podman import Podman

OUT = ROOT / "dist"
MIRROR = os.environ.get("LAB_DEBIAN_MIRROR")
TAG = f"containerfile-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
COMPARED = ("gateway", "prometheus", "alertmanager")
"""Our services have the same files."""
OF_PODMAN = (
    "dev",
    "proc",
    "sys",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "run/.containerenv",
    "run/secrets",
)


class File(NamedTuple):
    """What is compared of a file."""

    kind: bytes
    mode: int
    owner: int
    content: str


def files(archive: tarfile.TarFile) -> Iterator[tuple[str, File]]:
    for entry in archive:
        data = archive.extractfile(entry) if entry.isfile() else None
        content = hashlib.sha256(data.read()).hexdigest() if data else entry.linkname
        mode = 0 if entry.issym() else entry.mode & 0o7777
        name = entry.name.removeprefix("./").rstrip("/")
        if name not in ("", ".") and not any(name == own or name.startswith(f"{own}/") for own in OF_PODMAN):
            yield name, File(entry.type, mode, entry.uid, content)


def of_make_images(archive: Path, name: str) -> dict[str, File]:
    found: dict[str, File] = {}
    with tarfile.open(archive) as tar:
        listed = json.load(tar.extractfile("manifest.json") or pytest.fail("no manifest"))
        (image_of,) = (each for each in listed if each["RepoTags"][0].startswith(reference(name, "")))
        for layer in image_of["Layers"]:
            packed = tar.extractfile(layer) or pytest.fail("no layer")
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed.read()))) as tree:
                found |= dict(files(tree))
    return found


def of_containerfile(podman: Podman, name: str, directory: Path) -> dict[str, File]:
    container = podman.run("create", "--network=none", f"localhost/{TAG}:{name}").stdout.strip()
    try:
        exported = directory / f"{name}.tar"
        podman.run("export", "--output", f"/proc/{os.getpid()}/root{exported}", container, timeout_s=120)
        with tarfile.open(exported) as tree:
            return dict(files(tree))
    finally:
        podman.run("rm", container)


def forget(podman: Podman, name: str) -> None:
    """Remove an image and what a build of it has kept between its steps: what has a name is somebody's."""
    steps = podman.run("history", "--quiet", "--no-trunc", name, check=False).stdout.split()
    podman.run("rmi", name, check=False)
    for step in steps:
        names = podman.run("image", "inspect", "--format", "{{len .RepoTags}}", step, check=False)
        if names.stdout.strip() == "0":
            podman.run("rmi", step, check=False)


@pytest.mark.slow(reason="minutes; its steps are those of make images, whose images are made in every run")
def test_its_images_have_the_same_files(tmp_path: Path) -> None:
    made = build.build(OUT, ROOT, MIRROR)
    with namespace.machine_lock():
        podman = Podman.connect(start_keeper=True)
    base = image.build(podman, "13", MIRROR)
    signers = ROOT / "allowed_signers"
    signers.write_bytes(build.allowed_signers(tmp_path, ROOT).read_bytes())
    here = f"/proc/{os.getpid()}/root{ROOT}"
    bundle = f"dist/{newest(OUT)['linux']['file']}"
    try:
        for name in ("made", *COMPARED):  # the first one by its name, so that it can be removed
            podman.run(
                "build", "--quiet", "--isolation=chroot", "--network=host", "--pull-never", "--layers",
                "--file", f"{here}/Containerfile", "--target", name, "--tag", f"localhost/{TAG}:{name}",
                "--build-arg", f"DEBIAN={base}", "--build-arg", f"BUNDLE={bundle}", here,
                timeout_s=600,
            )  # fmt: skip
            if name == "made":
                continue
            ours, theirs = of_make_images(made.archive, name), of_containerfile(podman, name, tmp_path)
            assert sorted(ours.keys() ^ theirs.keys()) == []
            assert {path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path]} == {}
            told = json.loads(podman.run("image", "inspect", f"localhost/{TAG}:{name}").stdout)[0]
            (service,) = (each for each in SERVICES if each.name == name)
            assert told["Config"]["Entrypoint"] == list(service.command)
            assert told["Config"]["User"] == "10001:10001"
    finally:
        signers.unlink()
        for name in (*COMPARED, "made"):
            forget(podman, f"localhost/{TAG}:{name}")
