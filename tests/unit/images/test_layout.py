"""What an image says of itself, and the file that docker, podman and OCI tools read alike."""

import json
import tarfile
from pathlib import Path

import pytest

from deploy.bundle.archive import digest_of
from deploy.bundle.sbom import DebianPackage
from images.layer import Layer, entries, write_layer
from images.layout import Origin, image_config, make_image, write_archive
from images.provenance import statement
from images.services import PYTHON, SERVICES, USER, reference
from mt5crs.settings.services import endpoint_of, programs

ORIGIN = Origin("1.2.3", "abc", "c" * 64, 1_700_000_000)


@pytest.fixture
def layers(tmp_path: Path) -> list[Layer]:
    made = []
    for name in ("debian", "own", "prometheus"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        root = tmp_path / name
        made.append(write_layer(root, entries(root), lambda _: 0, tmp_path / f"{name}.gz"))
    return made


@pytest.mark.parametrize("service", SERVICES, ids=lambda each: str(each.name))
def test_a_service_runs_as_nobody_special_and_says_how_it_is(service: object, layers: list[Layer]) -> None:
    assert service in SERVICES
    (found,) = (each for each in SERVICES if each is service)
    config = image_config(found, ORIGIN, layers, "arm64")["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", *found.health]
    # Neither goes by way of a shell: there is none.
    assert config["Entrypoint"][0] == (f"/usr/bin/{found.package}" if found.package else PYTHON)
    assert found.health[0] == PYTHON
    assert config["WorkingDir"] in config["Volumes"]
    assert config["Labels"]["mt5crs.bundle"] == ORIGIN.content
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc"
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2.3"
    port = endpoint_of(found.name)[1].default if found.name in programs() else found.ports[0]
    assert f"{port}/tcp" in config["ExposedPorts"]
    assert not [entry for entry in config["Env"] if "KEY" in entry or "PASSWORD" in entry]


def archive(layers: list[Layer], target: Path) -> dict[str, bytes]:
    debian, own, further = layers
    images = [
        make_image(
            each, reference(each.name, "t"), ORIGIN, (debian, further if each.package else own), "arm64"
        )
        for each in SERVICES
    ]
    write_archive(target, images, ORIGIN.built, "arm64")
    with tarfile.open(target) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_every_blob_has_the_name_that_its_content_gives_it(layers: list[Layer], tmp_path: Path) -> None:
    members = archive(layers, tmp_path / "images.tar")
    blobs = {name.rpartition("/")[2]: content for name, content in members.items() if "/" in name}
    assert {name: digest_of(content) for name, content in blobs.items()} == {name: name for name in blobs}
    # OCI's way to the layers and docker's lead to the same ones.
    for described, loaded in zip(
        json.loads(members["index.json"])["manifests"], json.loads(members["manifest.json"]), strict=True
    ):
        manifest = json.loads(blobs[described["digest"].removeprefix("sha256:")])
        config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
        assert config["architecture"] == described["platform"]["architecture"] == "arm64"
        assert f"blobs/{manifest['config']['digest'].replace(':', '/')}" == loaded["Config"]
        assert [f"blobs/{each['digest'].replace(':', '/')}" for each in manifest["layers"]] == loaded[
            "Layers"
        ]
        assert [described["annotations"]["org.opencontainers.image.ref.name"]] == loaded["RepoTags"]
        for each in (described, manifest["config"], *manifest["layers"]):
            assert each["size"] == len(blobs[each["digest"].removeprefix("sha256:")])


def test_two_archives_are_byte_identical(layers: list[Layer], tmp_path: Path) -> None:
    archive(layers, tmp_path / "1.tar")
    archive(layers, tmp_path / "2.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_the_statement_names_files_images_and_what_they_are_made_of(layers: list[Layer]) -> None:
    image = make_image(SERVICES[0], "localhost/x:t", ORIGIN, layers, "amd64")
    origin = Origin("1.2.3", "abc+changes", "c" * 64, 1)
    debian = DebianPackage("libc6", "2.41-12", "amd64", "d" * 64)
    bundle = (Path("/x/bundle.tar"), "f" * 64)
    told = statement({"images.tar": "e" * 64}, [image], origin, bundle, [debian], "arm64")
    assert told["predicate"]["buildDefinition"]["externalParameters"]["architecture"] == "arm64"
    assert {each["name"]: each["digest"]["sha256"] for each in told["subject"]} == {
        "images.tar": "e" * 64,
        "localhost/x:t": image.digest,
    }
    source, bundled, libc = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source == {"name": "source", "digest": {"gitCommit": "abc"}, "annotations": {"changed": True}}
    assert bundled == {"name": "bundle.tar", "digest": {"sha256": "f" * 64}}
    assert libc["uri"] == "pkg:deb/debian/libc6@2.41-12?arch=amd64"
