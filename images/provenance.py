"""How images came to be: an in-toto statement with a SLSA provenance, signed with the release key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packageurl import PackageURL

from deploy.bundle.sbom import DebianPackage
from images.layout import Image, Origin
from images.services import SERVICES
from images.steps.debian import DEBIAN
from mt5crs_release.bundles.provenance import PREDICATE
from mt5crs_release.bundles.verdict import STATEMENT


def statement(
    files: Mapping[str, str],
    images: Sequence[Image],
    origin: Origin,
    bundle: tuple[Path, str],
    packages: Iterable[DebianPackage],
    architecture: str,
) -> dict[str, Any]:
    """Return the statement about `files` (name: SHA-256) and the images in them.

    bundle: the bundle they were made of, and its SHA-256. It carries no time, so that builds repeat.
    """
    commit, _, changed = origin.commit.partition("+")
    source: dict[str, Any] = {"name": "source", "digest": {"gitCommit": commit}}
    if changed:
        source["annotations"] = {"changed": True}
    materials = [
        {
            "uri": PackageURL(
                "deb", "debian", each.name, each.version, qualifiers={"arch": each.architecture}
            ).to_string(),
            "digest": {"sha256": each.digest},
        }
        for each in packages
    ]
    return {
        "_type": STATEMENT,
        "subject": [
            *({"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())),
            *({"name": image.reference, "digest": {"sha256": image.digest}} for image in images),
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:mt5crs:images:1",
                "externalParameters": {
                    "bundle": bundle[0].name,
                    "content": origin.content,
                    "services": [service.name for service in SERVICES],
                    "debian": DEBIAN,
                    "architecture": architecture,
                },
                "internalParameters": {},
                "resolvedDependencies": [
                    source,
                    {"name": bundle[0].name, "digest": {"sha256": bundle[1]}},
                    *materials,
                ],
            },
            "runDetails": {"builder": {"id": "urn:mt5crs:make-images"}},
        },
    }
