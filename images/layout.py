"""Images as one file: an OCI layout that `docker load` and `podman load` take as well, without a registry."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.bundle.archive import digest_of
from images.layer import Layer
from images.services import USER, Service

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_SECOND = 1_000_000_000
CHECKED_EVERY_S, CHECK_LIMIT_S, CHECK_START_S, CHECK_RETRIES = 5, 5, 30, 3
"""Health checks: how often, for how long, until when failing is starting, how many failures count."""


@dataclass(frozen=True)
class Origin:
    """What an image is made of: version and content of the bundle, commit, time (seconds since 1970)."""

    version: str
    commit: str
    content: str
    built: int

    @property
    def created(self) -> str:
        """The time as RFC 3339 has it."""
        return datetime.fromtimestamp(self.built, timezone.utc).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class Image:
    """One image in the file: its full name, the digest of its manifest, its documents by digest."""

    reference: str
    digest: str
    config: str
    documents: Mapping[str, bytes]
    layers: tuple[Layer, ...]

    @property
    def compressed(self) -> int:
        """Bytes of its layers."""
        return sum(layer.size for layer in self.layers)


def environment_of(service: Service) -> dict[str, str]:
    """Return the environment that a service's image has."""
    return {"LC_ALL": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin", **service.environment}


def image_config(
    service: Service, origin: Origin, layers: Sequence[Layer], architecture: str
) -> dict[str, Any]:
    """Return the configuration of a service's image."""
    environment = environment_of(service)
    return {
        "created": origin.created,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
            "Entrypoint": list(service.command),
            "WorkingDir": service.directory,
            "ExposedPorts": {f"{port}/tcp": {} for port in service.ports},
            "Volumes": {volume: {} for volume in service.volumes},
            "StopSignal": "SIGTERM",
            "Healthcheck": {
                "Test": ["CMD", *service.health],
                "Interval": CHECKED_EVERY_S * _SECOND,
                "Timeout": CHECK_LIMIT_S * _SECOND,
                "StartPeriod": CHECK_START_S * _SECOND,
                "Retries": CHECK_RETRIES,
            },
            "Labels": {
                "org.opencontainers.image.title": f"MT5-CRS {service.about}",
                "org.opencontainers.image.version": origin.version,
                "org.opencontainers.image.revision": origin.commit,
                "org.opencontainers.image.created": origin.created,
                "org.opencontainers.image.licenses": "Apache-2.0",
                "mt5crs.service": service.name,
                "mt5crs.bundle": origin.content,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.plain}" for layer in layers]},
    }


def make_image(
    service: Service, reference: str, origin: Origin, layers: Sequence[Layer], architecture: str
) -> Image:
    """Return the documents of a service's image."""
    config = _document(image_config(service, origin, layers, architecture))
    manifest = _document(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": f"sha256:{digest_of(config)}", "size": len(config)},
            "layers": [
                {"mediaType": _LAYER, "digest": f"sha256:{layer.digest}", "size": layer.size}
                for layer in layers
            ],
        }
    )
    documents = {digest_of(config): config, digest_of(manifest): manifest}
    return Image(reference, digest_of(manifest), digest_of(config), documents, tuple(layers))


def write_archive(target: Path, images: Sequence[Image], built: int, architecture: str) -> None:
    """Write all images as one tar whose bytes depend on nothing else. OSError when the disk is full."""
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": _MANIFEST,
                "digest": f"sha256:{image.digest}",
                "size": len(image.documents[image.digest]),
                "platform": {"architecture": architecture, "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": image.reference,
                    "org.opencontainers.image.ref.name": image.reference,
                },
            }
            for image in images
        ],
    }
    # Docker's own form, beside OCI's: it alone knows HEALTHCHECK, in podman too.
    loaded = [
        {
            "Config": f"blobs/sha256/{image.config}",
            "RepoTags": [image.reference],
            "Layers": [f"blobs/sha256/{layer.digest}" for layer in image.layers],
        }
        for image in images
    ]
    members: dict[str, bytes | Path] = {
        "oci-layout": _document({"imageLayoutVersion": "1.0.0"}),
        "index.json": _document(index),
        "manifest.json": _document(loaded),
    }
    for image in images:
        members |= {f"blobs/sha256/{digest}": content for digest, content in image.documents.items()}
        members |= {f"blobs/sha256/{layer.digest}": layer.path for layer in image.layers}
    with (
        target.open("wb") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(members):
            content = members[name]
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = built, 0o644
            if isinstance(content, bytes):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.size = content.stat().st_size
                with content.open("rb") as file:
                    tar.addfile(entry, file)


def _document(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
