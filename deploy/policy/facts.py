"""What rules may look at. No secret is among it: of secrets only what they are like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

LAB, PRODUCTION = "lab", "production"


@dataclass(frozen=True)
class Host:
    """A host: its inventory groups, and its settings without the secret ones."""

    groups: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Secret:
    """What a secret is like. `fingerprint`: equal for equal secrets of one look, worth nothing outside."""

    name: str
    fingerprint: str
    length: int
    distinct: int
    """How many different characters it has."""
    common: bool
    """Whether it is one of the words that everybody tries first."""


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    file: str
    line: int | None
    what: str


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair of the fleet; whether its public half belongs to its secret half."""

    name: str
    fits: bool


@dataclass(frozen=True)
class HeldFile:
    """A file of the controller that only its owner may read."""

    path: str
    what: str
    mode: int


@dataclass(frozen=True)
class DeployedFile:
    """A file that a deployment puts on a host."""

    host: str
    service: str
    path: str
    mode: int
    holds_secret: bool


@dataclass(frozen=True)
class BundleFacts:
    """A bundle of the fleet. `unpinned`: lines of its requirements without exact version and hash."""

    name: str
    commit: str
    built: datetime | None
    unpinned: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """A fleet's configuration as rules see it, at one time."""

    environment: str
    now: datetime
    hosts: Mapping[str, Host]
    form_problems: tuple[str, ...] = ()
    address_problems: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    written_plain: tuple[Place, ...] = ()
    """Secret settings that are written in files that are not encrypted."""
    copied_plain: tuple[Place, ...] = ()
    """Where the text of a vault's secret stands in a plain file."""
    key_pairs: tuple[KeyPair, ...] = ()
    held_files: tuple[HeldFile, ...] = ()
    deployed_files: tuple[DeployedFile, ...] = ()
    bundles: tuple[BundleFacts, ...] = ()

    def of(self, group: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every host of a group with its settings."""
        for name, host in self.hosts.items():
            if group in host.groups:
                yield name, host.settings
