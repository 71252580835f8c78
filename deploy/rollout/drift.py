"""In what the generation that runs differs from the one that is wanted, by name; and what to leave out.

Pure: both are given. Values are never told, since secrets are among them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from deploy.fleet.settings import structs
from deploy.rollout.generation import Desired, desired
from mt5crs.settings.envfile import parse
from mt5crs.settings.schema import Field, SettingsError, check_value, fields

CODE, HOW = "code", "how it is started and checked"
MANIFEST = "manifest.json"
_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class Ignore:
    """What one `--ignore` leaves out: names (globs allowed) on hosts (globs allowed)."""

    word: str

    @property
    def host(self) -> str:
        """The host that it is about; `*`: any."""
        return self.word.rpartition(":")[0] or "*"

    @property
    def name(self) -> str:
        """The name of a difference, or of a service, with which all of it is meant."""
        return self.word.rpartition(":")[2]

    def fits(self, host: str, service: str, name: str) -> bool:
        """Whether this leaves out the difference `name` of a service."""
        return fnmatchcase(host, self.host) and any(fnmatchcase(one, self.name) for one in (name, service))


@dataclass(frozen=True)
class Differing:
    """A service that does not run as wanted."""

    host: str
    service: str
    runs: str
    todo: str
    what: tuple[str, ...] = ()
    """Names of settings, files and units, or CODE; empty: not its content differs, or that is not known."""
    why_unknown: str | None = None
    """Why what differs is not known; only what leaves out the whole service fits then."""


@dataclass
class Sorted:
    """Differences that count, those that were left out (with the words that did), and words without any."""

    differs: list[Differing] = field(default_factory=list)
    ignored: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(host, service, name, word); the name is empty where the whole service was left out."""
    idle: list[str] = field(default_factory=list)


def sort_out(found: Sequence[Differing], ignores: Sequence[Ignore]) -> Sorted:
    """Leave out what the words say. A service of which something is left still counts."""
    told = Sorted()
    for one in found:
        left = []
        for name in one.what or ("",):
            word = next((it.word for it in ignores if it.fits(one.host, one.service, name)), None)
            if word is None:
                left.append(name)
            else:
                told.ignored.append((one.host, one.service, name, word))
        if left:
            what = tuple(filter(None, left))
            told.differs.append(Differing(one.host, one.service, one.runs, one.todo, what, one.why_unknown))
    used = {word for *_, word in told.ignored}
    told.idle = [it.word for it in ignores if it.word not in used]
    return told


def refused(ignores: Sequence[Ignore], hosts: Collection[str], names: Collection[str]) -> list[str]:
    """What is wrong with the words, a sentence each: a host or a name that there is not."""
    told = []
    for it in ignores:
        for what, pattern, known in (("host", it.host, hosts), ("setting, file or service", it.name, names)):
            if any(fnmatchcase(one, pattern) for one in known):
                continue
            close = "" if _GLOB & set(pattern) else "".join(difflib.get_close_matches(pattern, known, n=1))
            said = f"there is no {what} {pattern!r}" if pattern else f"it names no {what}"
            told.append(f"--ignore {it.word}: {said}" + (f"; did you mean {close}?" if close else ""))
    return told


def by_content(now: Mapping[str, Any]) -> bool:
    """Whether a service of a status runs well, so that what it differs in is its content alone."""
    return (
        bool(now.get("current"))
        and now.get("state") == "confirmed"
        and bool(now.get("intact"))
        and (now.get("access") or {}).get("own") is not False
        and all(state == "active" for state in now.get("units", {}).values())
    )


def names_of(want: Desired) -> set[str]:
    """Every name by which a difference of this service can be told, and its own."""
    specification = json.loads(want.specification)
    found = {want.service, HOW, *([CODE] if want.bundle is not None else []), *_units(specification)}
    for path, file in specification["files"].items():
        found |= {path, *(_settings(want.service, file["content"]) if path.endswith(".env") else ())}
    return found


def what_differs(
    want: Desired, variables: Mapping[str, Any], runs: Mapping[str, bytes], bundle: str | None
) -> tuple[str, ...]:
    """Names of what differs, sorted; what follows from a setting that differs is not told beside it.

    variables: the host's, of which `want` was made. runs: path → content of every file of the generation that
    runs, its manifest among them. bundle: content digest of the code that runs. ValueError when the manifest
    is none.
    """
    found = _differing(want, runs)
    values = _values(want.service, runs)
    changed = {name: values[name] for name in found if name in values}
    if len(changed) not in (0, len(found)):
        found = {*changed, *_differing(desired(want.service, {**variables, **changed}), runs)}
    if bundle != (want.bundle.content if want.bundle else None):
        found.add(CODE)
    return tuple(sorted(found or {HOW}))


def _differing(want: Desired, runs: Mapping[str, bytes]) -> set[str]:
    specification = json.loads(want.specification)
    there = {path: entry["sha256"] for path, entry in json.loads(runs[MANIFEST])["files"].items()}
    wanted = {path: file["content"] for path, file in specification["files"].items()}
    wanted |= {f"units/{name}": text for name, text in _units(specification).items()}
    found: set[str] = set()
    for path in {*there, *wanted}:
        if path in there and path in wanted and there[path] == _sha256(wanted[path].encode()):
            continue
        one, two = (_settings(want.service, text) for text in (_text(runs, path), wanted.get(path, "")))
        settings = {name for name in {**one, **two} if one.get(name) != two.get(name)}
        found |= settings if path.endswith(".env") and settings else {path.removeprefix("units/")}
    return found


def _text(runs: Mapping[str, bytes], path: str) -> str:
    return runs.get(path, b"").decode(errors="replace")


def _declared(service: str) -> dict[str, Field]:
    """Name in the environment → setting of a service, those that the deployment itself fixes left out."""
    return {of.env: of for cls in structs(service) for of in fields(cls) if of.env and of.variable}


def _settings(service: str, text: str) -> dict[str, str]:
    """Setting, or name in the environment where it is no setting → value of an `.env` text."""
    called = {name: str(of.variable) for name, of in _declared(service).items()}
    try:
        return {called.get(name, name): value for name, value in parse(text).items()}
    except SettingsError:
        return {}


def _values(service: str, runs: Mapping[str, bytes]) -> dict[str, Any]:
    """Setting → value with which a service runs."""
    declared = {of.variable: of for of in _declared(service).values()}
    found = {}
    for path in runs:
        for name, text in _settings(service, _text(runs, path)).items() if path.endswith(".env") else ():
            if name in declared:
                value, problem = check_value(declared[name], text, name, from_text=True)
                if problem is None:
                    found[name] = value
    return found


def _units(specification: Mapping[str, Any]) -> dict[str, str]:
    """Every unit of a generation by name, also those of a standby and a shadow."""
    beside = (specification.get(name) or {} for name in ("standby", "shadow"))
    found = dict(specification["units"])
    for of in beside:
        found |= of["units"] if isinstance(of.get("units"), Mapping) else {}
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
