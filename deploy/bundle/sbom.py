"""The bill of materials of a bundle, CycloneDX JSON, the same for the same content."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import parse_wheel_filename

from deploy.bundle.wheel_facts import UNKNOWN, WheelFacts, library_in

_LICENCES = {"libzmq": "MPL-2.0", "libsodium": "ISC"}
"""Of libraries inside wheels, which say no more than their names; the wheels hold the texts."""


@dataclass(frozen=True)
class DebianPackage:
    """A package in an image; `digest`: SHA-256 of its file."""

    name: str
    version: str
    architecture: str
    digest: str


def bill_of_materials(
    name: str,
    version: str,
    wheels: Mapping[str, WheelFacts],
    data: Mapping[str, str] | None = None,
    packages: Iterable[DebianPackage] = (),
) -> bytes:
    """Return the bill of materials for ``wheels`` (by file name), validated by its library's model.

    data: files beside the wheels, in the same form. packages: of Debian, in an image.

    Serial number and order follow from the content; it carries no time, so that builds repeat.
    """
    bom = Bom()
    bom.metadata.component = Component(
        name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name
    )
    projects: dict[tuple[str, str], dict[str, WheelFacts]] = {}
    for file, facts in sorted(wheels.items()):
        normal, number, _, _ = parse_wheel_filename(file)
        projects.setdefault((str(normal), str(number)), {})[file] = facts
    for (project, release), files in projects.items():
        licences = {facts.licence for facts in files.values()}
        package = Component(
            name=project,
            version=release,
            type=ComponentType.LIBRARY,
            bom_ref=f"{project}=={release}",
            purl=PackageURL("pypi", name=project, version=release),
            licenses=[_licence(licences.pop() if len(licences) == 1 else UNKNOWN)],
        )
        for file, facts in files.items():
            part = _file(file, facts.digest)
            for inside, digest in facts.libraries.items():
                part.components.add(_library(file, inside, digest))
            package.components.add(part)
        bom.components.add(package)
        bom.register_dependency(bom.metadata.component, [package])
    beside = sorted((data or {}).items())
    for file, digest in beside:
        part = _file(file, digest)
        bom.components.add(part)
        bom.register_dependency(bom.metadata.component, [part])
    debian = sorted((each.name, each.version, each.architecture, each.digest) for each in packages)
    for row in debian:
        part = _debian(DebianPackage(*row))
        bom.components.add(part)
        bom.register_dependency(bom.metadata.component, [part])
    digests = sorted((file, facts.digest) for file, facts in wheels.items())
    seed = json.dumps([name, version, digests, *([beside] if beside else []), *([debian] if debian else [])])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, seed)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _debian(package: DebianPackage) -> Component:
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"debian/{package.name}={package.version}",
        purl=PackageURL(
            "deb", "debian", package.name, package.version, qualifiers={"arch": package.architecture}
        ),
        hashes=[_sha256(package.digest)],
    )


def _file(name: str, digest: str) -> Component:
    return Component(name=name, type=ComponentType.FILE, bom_ref=name, hashes=[_sha256(digest)])


def _library(wheel: str, inside: str, digest: str) -> Component:
    """A library inside a wheel. Its version is not said but in the file's name, which is the description."""
    name = library_in(inside) or inside
    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        bom_ref=f"{wheel}/{inside}",
        description=inside,
        hashes=[_sha256(digest)],
        licenses=[_licence(_LICENCES.get(name, UNKNOWN))],
    )


def _licence(text: str) -> LicenseExpression | DisjunctiveLicense:
    try:
        return LicenseExpression(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return DisjunctiveLicense(name=text)


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
