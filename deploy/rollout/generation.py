"""Which generation a service is to run on a host, and what has to be done for it; talks to no host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from deploy.fleet.rendering import render
from deploy.fleet.settings import STRATEGIES
from deploy.fleet.vault_password import PROJECT
from deploy.rollout.batches import BASELINE, Spoken
from mt5crs_release.bundles.bundle import peek_manifest
from mt5crs_release.desired.digest import SHORT, fixed_digest, generation_digest, runtime_digest
from mt5crs_release.desired.spec import ExtraBundle

BUNDLES = "/opt/mt5crs/bundles"


class BundleError(RuntimeError):
    """The bundle cannot be used; the text names cause and remedy."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on the controller: its file, the digest of its content, the protocol versions it speaks."""

    path: Path
    content: str
    protocol: Spoken | None = None

    @property
    def remote(self) -> str:
        """Where it lies on a host; `make bundle` puts the content's digest into the name."""
        return f"{BUNDLES}/{self.path.name}"


@dataclass(frozen=True)
class Shadow:
    """What a new strategy has to show in the shadow of the old one; the settings `fleet_shadow_…`."""

    window_s: int
    agreement_percent: float
    least_decisions: int
    promotion: str

    @property
    def arguments(self) -> list[str]:
        """The same for `mt5crs-release activate`."""
        return [
            *("--shadow", str(self.window_s)),
            *("--agreement", f"{self.agreement_percent:g}"),
            *("--least", str(self.least_decisions)),
            *("--promotion", self.promotion),
        ]


READ = (
    "fleet_bundle",
    "fleet_confirm_timeout_s",
    "baseline_access_confirm_s",
    *(f"fleet_shadow_{one.name}" for one in fields(Shadow)),
)
"""All settings that :func:`desired_by` reads besides the specification."""


def shadow_of(settings: Mapping[str, Any]) -> Shadow:
    """What the settings of a host demand."""
    return Shadow(
        int(settings["fleet_shadow_window_s"]),
        float(settings["fleet_shadow_agreement_percent"]),
        int(settings["fleet_shadow_least_decisions"]),
        str(settings["fleet_shadow_promotion"]),
    )


@dataclass(frozen=True, repr=False)
class Desired:
    """The generation a service is to run. Holds secrets, so it has no text form."""

    service: str
    specification: str
    bundle: Bundle | None
    """The core's."""
    digest: str
    confirm_timeout_s: int
    stands_by: bool = False
    """Whether the generation brings units that stand by beside what runs (strategy blue_green)."""
    shadow: Shadow | None = None
    """How it is to run in the shadow of what runs (strategy shadow); None: it cannot."""
    extra: ExtraBundle | None = None
    """The strategy's own."""
    reached_within_s: int | None = None
    """Seconds after which it reverts unless a new connection reached the host: it decides who gets in."""
    review: Mapping[str, Any] | None = None
    """What the host wants to know of the bundle's review; None: nothing."""
    both_keys: bool = False
    """Whether its gateway gets another key later in this run, so that it takes both until it is confirmed."""
    fixed: str | None = None
    """The same for generations that what runs takes over as they are; None: a change of it is a restart."""

    def taken_over_by(self, other: Desired) -> bool:
        """Whether `other` differs only in what services read again, so that it restarts nothing."""
        return self.digest != other.digest and self.fixed is not None and self.fixed == other.fixed

    @property
    def runtime(self) -> str:
        """Digest of what its runtime holds; only of a generation with code."""
        assert self.bundle is not None  # noqa: S101
        return runtime_digest(self.bundle.content, self.extra.code if self.extra else None)


@dataclass(frozen=True)
class Todo:
    """Which steps a service needs on a host; none when it runs as wanted."""

    upload: tuple[Bundle, ...] = ()
    stage: bool = False
    activate: bool = False
    start: tuple[str, ...] = ()
    live: bool = False
    """Whether what runs takes it over as it is, so that activating it restarts nothing."""
    generation: str = ""
    previous: str | None = None

    @property
    def nothing(self) -> bool:
        """Whether the service runs as wanted."""
        return not (self.upload or self.stage or self.activate or self.start)

    @property
    def foretold(self) -> str:
        """What a run that only looks has to say of the service: the state in its table."""
        if self.nothing:
            return "unchanged"
        return "would change" if self.upload or self.stage or self.activate else "would start"


@cache
def find_bundle(name: str) -> Bundle:
    """The bundle of that name (relative to the project). BundleError if there is none, or it is none."""
    path = PROJECT / name
    if not path.is_file():
        raise BundleError(f"the bundle {name} does not exist; build it with `make bundle`")
    manifest = peek_manifest(path)
    if manifest is None:
        raise BundleError(f"{name} is no bundle (no manifest in it); build it again with `make bundle`")
    versions = manifest.get("protocol") or {}
    protocol = Spoken(versions["min"], versions["max"]) if {"min", "max"} <= versions.keys() else None
    return Bundle(path, str(manifest["content"]), protocol)


def desired(service: str, settings: Mapping[str, Any]) -> Desired:
    """What `service` is to run on the host with these variables. BundleError without a bundle."""
    return desired_by(render(f"release/{service}.json.j2", settings), settings)


def desired_by(text: str, settings: Mapping[str, Any]) -> Desired:
    """What a service is to run by its rendered specification."""
    specification = json.loads(text)
    service = str(specification["service"])
    if specification["code"] and "fleet_bundle" not in settings:
        raise BundleError("fleet_bundle is missing: build one with `make bundle`, or name one")
    bundle = find_bundle(settings["fleet_bundle"]) if specification["code"] else None
    content = bundle.content if bundle else None
    return Desired(
        service,
        text,
        bundle,
        generation_digest(specification, content),
        int(settings["fleet_confirm_timeout_s"]),
        stands_by="standby" in specification,
        shadow=shadow_of(settings) if "shadow" in specification else None,
        extra=ExtraBundle(**specification["extra_bundle"]) if "extra_bundle" in specification else None,
        review=specification.get("review"),
        fixed=fixed_digest(specification, content),
        reached_within_s=int(settings["baseline_access_confirm_s"]) if service == BASELINE else None,
    )


def decide(want: Desired, status: Mapping[str, Any]) -> Todo:
    """Compare what is wanted with what `mt5crs-release status` says of the host (`{}`: no tool there yet)."""
    now = status.get("services", {}).get(want.service, {})
    lets_in_others = (now.get("access") or {}).get("own") is False
    same = now.get("digest") == want.digest and now.get("intact", False) and not lets_in_others
    if same and now.get("state") == "confirmed":
        down = tuple(unit for unit, state in now.get("units", {}).items() if state != "active")
        return Todo(start=down, generation=str(now["current"]), previous=now.get("previous"))
    return Todo(
        tuple(missing(want, status)),
        stage=True,
        activate=True,
        live=_taken_over(want, now),
        generation=str(now.get("current") or ""),
        previous=now.get("current"),
    )


def _taken_over(want: Desired, now: Mapping[str, Any]) -> bool:
    """Whether the host will not restart the service, by what its status says; it decides by the same."""
    return (
        want.fixed is not None
        and now.get("fixed") == want.fixed
        and now.get("digest") != want.digest
        and now.get("state") == "confirmed"
        and bool(now.get("intact"))
        and all(state == "active" for state in now.get("units", {}).values())
    )


def settled(now: Mapping[str, Any], generation: str) -> bool:
    """Whether what a status says of a service is `generation`, whole and confirmed.

    What staging has changed does not tell: a run that died may have staged what this one is to activate.
    """
    return now.get("current") == generation and now.get("state") == "confirmed" and bool(now.get("intact"))


def not_as_staged(now: Mapping[str, Any]) -> str:
    """How what runs differs from what was staged, or why it could not start again: of `intact: false`."""
    first, *more = now.get("problems") or ["how is not told by the release tool on that host"]
    return f"not as it was staged: {first}{f' and {len(more)} more' if more else ''}"


def drop_ins(now: Mapping[str, Any]) -> str:
    """What else changes how the units of a service run: files that no deployment brought; empty: nothing."""
    found = now.get("drop_ins") or []
    return f"others' drop-ins beside its units: {', '.join(map(str, found))}" if found else ""


def missing(want: Desired, status: Mapping[str, Any]) -> Iterator[Bundle]:
    """Bundles that staging needs on the host and that are not there."""
    for bundle in _needed(want, status):
        if bundle.path.name not in status.get("bundles", ()):
            yield bundle


def _needed(want: Desired, status: Mapping[str, Any]) -> Iterator[Bundle]:
    """Bundles of which a part is not unpacked on the host."""
    if want.bundle is None:
        return
    code_there = _unpacked(want.runtime, status)
    if not code_there:
        yield want.bundle
    if want.extra is not None:
        data = want.extra.data
        if not (code_there or want.extra.code is None) or not (data is None or _unpacked(data, status)):
            yield Bundle(PROJECT / STRATEGIES / want.extra.file, want.extra.content)


def _unpacked(digest: str, status: Mapping[str, Any]) -> bool:
    return any(str(name).startswith(digest[:SHORT]) for name in status.get("runtimes", ()))


def code_arguments(want: Desired, status: Mapping[str, Any]) -> list[str]:
    """How `stage` is told its code: by content when the host has it unpacked, else by the uploaded file."""
    bundle = want.bundle
    if bundle is None:
        return []
    if _unpacked(want.runtime, status):
        return ["--content", bundle.content]
    return ["--bundle", bundle.remote, "--content", bundle.content]
