"""The bill of materials of a bundle, CycloneDX JSON, the same for the same content."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import parse_wheel_filename


def bill_of_materials(name: str, version: str, wheels: Mapping[str, str]) -> bytes:
    """Return the bill of materials for ``wheels`` (file name → SHA-256), validated by its library's model.

    Serial number and order follow from the content; it carries no time, so that builds repeat.
    """
    bom = Bom()
    bom.metadata.component = Component(
        name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name
    )
    packages: dict[tuple[str, str], dict[str, str]] = {}
    for file, digest in sorted(wheels.items()):
        normal, number, _, _ = parse_wheel_filename(file)
        packages.setdefault((str(normal), str(number)), {})[file] = digest
    for (project, release), files in packages.items():
        package = Component(
            name=project,
            version=release,
            type=ComponentType.LIBRARY,
            bom_ref=f"{project}=={release}",
            purl=PackageURL("pypi", name=project, version=release),
        )
        for file, digest in files.items():
            part = Component(
                name=file,
                type=ComponentType.FILE,
                bom_ref=file,
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
            package.components.add(part)
        bom.components.add(package)
        bom.register_dependency(bom.metadata.component, [package])
    seed = json.dumps([name, version, dict(sorted(wheels.items()))])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, seed)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
