"""The desired generation of a service: one JSON document, checked completely before anything is done.

All problems are reported at once. Problems name keys, never values: a specification carries secrets.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mt5crs_release.desired import access_list
from mt5crs_release.desired.name import is_plain_name
from mt5crs_release.errors import RefusedError, SpecError

FORMAT = 1
DATA_LINK = "bundle-data"
"""In a generation: the link to the data that its second bundle brings."""
RESERVED = frozenset({"manifest.json", "units", "venv", DATA_LINK})
"""Names inside a generation that the tool itself uses."""

_UNIT_NAME = r"[A-Za-z0-9:_.@-]+\.(service|socket|timer|target|path|mount|slice)"
_UNIT = re.compile(_UNIT_NAME + r"\Z")
_DROP_IN = re.compile(_UNIT_NAME + r"\.d/[A-Za-z0-9:_.@-]+\.conf\Z")
_MODE = re.compile(r"0[0-7]{3}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TAR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\.tar\Z")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
MAX_SPEC_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class FileSpec:
    """A file of the generation: content as text, mode as a number, owner and group by name."""

    content: str
    mode: int
    owner: str
    group: str


@dataclass(frozen=True)
class HealthSpec:
    """How health is asked for and how long it may take; all times in seconds."""

    command: tuple[str, ...]
    timeout_s: float
    min_healthy_s: float
    healthy_deadline_s: float
    progress_deadline_s: float
    max_restarts: int


@dataclass(frozen=True)
class StandbySpec:
    """How the generation runs beside another one, observing only, and how the two are compared."""

    units: tuple[str, ...]
    """The units to start, in order; they reach the generation through the pointer ``standby``."""
    start_timeout_s: float
    """Seconds that each may take until it is active."""
    check: tuple[str, ...]
    """Asked once they are: exits 0 when both hold the same state, 1 when they differ for good, 75 when that
    could not be found out; its last line of output is a JSON object."""
    check_timeout_s: float


@dataclass(frozen=True)
class ExtraBundle:
    """A second bundle of the generation: wheels that are installed with the first one's, and data."""

    name: str
    version: str
    file: str
    """Its name among the uploaded bundles."""
    content: str
    code: str | None
    """Digest of its wheels and their pins; ``None``: it brings none."""
    data: str | None
    """Digest of its data files; ``None``: it brings none."""


@dataclass(frozen=True)
class Spec:
    """A valid desired generation; ``raw`` is the document it was read from (for the digest)."""

    service: str
    code: bool
    files: Mapping[str, FileSpec]
    units: Mapping[str, str]
    start: tuple[str, ...]
    health: HealthSpec
    state_format: int
    raw: Mapping[str, Any]
    standby: StandbySpec | None = None
    standby_units: Mapping[str, str] = field(default_factory=dict)
    """Text of the standby's and the shadow's units by name."""
    reload_on_confirm: tuple[str, ...] = ()
    """Units that are reloaded once the generation is healthy and confirmed: until then the pointer ``before``
    names the generation that ran, for units that let both of them count."""
    access: str | None = None
    """The file with the access list (:mod:`mt5crs_release.generations.access`)."""
    extra: ExtraBundle | None = None
    review: Mapping[str, Any] | None = None
    """What a verdict of the review must say before the code is staged; ``None``: none is wanted."""
    live: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Files that running units read again when they are told to (SIGHUP), each with those units."""
    shadow: StandbySpec | None = None
    """How it runs in the shadow of another one: called as that is, its orders going nowhere."""


def read_spec(text: str) -> Spec:
    """Return the specification in ``text``.

    :raises RefusedError: not JSON, or too large
    :raises SpecError: with every problem found
    """
    if len(text.encode()) > MAX_SPEC_BYTES:
        raise RefusedError(
            f"the specification on standard input is larger than {MAX_SPEC_BYTES} bytes",
            remedy="ship large files in the bundle, not in the specification",
        )
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        cause = "a key twice, or nested too deeply"
        if isinstance(error, json.JSONDecodeError):
            cause = f"line {error.lineno}, column {error.colno}"
        # From None: the decoder's message and context quote the document, which holds secrets.
        raise RefusedError(
            f"the specification on standard input is not valid JSON ({cause})",
            remedy="render templates/release/<service>.json.j2 and send its output on standard input",
        ) from None
    return parse_spec(document)


def parse_spec(document: Any) -> Spec:
    """Return the specification in ``document`` (decoded JSON).

    :raises SpecError: with every problem found
    """
    checker = _Checker()
    spec = checker.spec(document)
    if checker.problems or spec is None:
        raise SpecError(checker.problems)
    return spec


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("duplicate key")
    return dict(pairs)


_OPTIONAL = frozenset({"standby", "shadow", "reload_on_confirm", "access", "extra_bundle", "review", "live"})


class _Checker:
    """Collects problems while it reads; a method returns a harmless value where it found one."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def spec(self, document: Any) -> Spec | None:
        top = self._mapping("specification", document)
        required = {"format", "service", "code", "files", "units", "start", "health", "state_format"}
        if top is None or not self._keys("specification", top, required, _OPTIONAL):
            return None
        if top["format"] != FORMAT:
            self._add("format", f"must be {FORMAT}: this tool reads no other")
        service = self._text("service", top["service"], is_plain_name, "lower-case letters, digits and -")
        code = self._boolean("code", top["code"])
        files = self._files(top["files"])
        units = self._units(top["units"])
        start = self._start(top["start"])
        health = self._health(top["health"])
        state_format = self._integer("state_format", top["state_format"], 1, 1_000_000)
        standby, standby_units = self._beside("standby", top.get("standby"), units)
        shadow, shadow_units = self._beside("shadow", top.get("shadow"), {**units, **standby_units})
        told = self._told(top.get("reload_on_confirm"), start)
        access = self._access(top.get("access"), files)
        extra = self._extra(top.get("extra_bundle"), code)
        review = self._review(top.get("review"), code=code, extra="extra_bundle" in top)
        live = self._live(top.get("live"), files, start)
        if health is None:
            return None
        return Spec(
            service,
            code,
            files,
            units,
            start,
            health,
            state_format,
            top,
            standby,
            {**standby_units, **shadow_units},
            told,
            access,
            extra,
            review,
            live,
            shadow,
        )

    def _extra(self, value: Any, code: bool) -> ExtraBundle | None:
        if value is None:
            return None
        fields = self._mapping("extra_bundle", value)
        keys = {"name", "version", "file", "content", "code", "data"}
        if fields is None or not self._keys("extra_bundle", fields, keys):
            return None
        if not code:
            self._add("extra_bundle", "needs code: true")

        def digest(name: str) -> str:
            return self._text(f"extra_bundle.{name}", fields[name], _SHA256.match, "a SHA-256")

        return ExtraBundle(
            name=self._text("extra_bundle.name", fields["name"]),
            version=self._text("extra_bundle.version", fields["version"]),
            file=self._text("extra_bundle.file", fields["file"], _TAR.match, "the name of a .tar file"),
            content=digest("content"),
            code=None if fields["code"] is None else digest("code"),
            data=None if fields["data"] is None else digest("data"),
        )

    def _access(self, value: Any, files: Mapping[str, FileSpec]) -> str | None:
        if value is None:
            return None
        name = self._text("access", value)
        if name not in files:
            self._add("access", "must name one of files")
            return name
        try:
            access_list.parse(files[name].content)
        except ValueError as error:
            self._add(f"files[{name!r}]", str(error))
        return name

    def _review(self, value: Any, *, code: bool, extra: bool) -> dict[str, Any] | None:
        if value is None:
            return None
        fields = self._mapping("review", value)
        keys = {"threshold", "external", "verdict", "override"} | ({"extra_verdict"} if extra else set())
        if fields is None or not self._keys("review", fields, keys):
            return None
        if not code:
            self._add("review", "is for services with code")
        self._integer("review.threshold", fields["threshold"], 0, 100)
        self._boolean("review.external", fields["external"])
        for key in keys & {"verdict", "extra_verdict"}:
            self._text(f"review.{key}", fields[key])
        if fields["override"] is not None:
            override = self._mapping("review.override", fields["override"])
            if override is not None and self._keys("review.override", override, {"by", "reason", "until"}):
                for key in ("by", "reason", "until"):
                    self._text(f"review.override.{key}", override[key], str.strip, "text that is not empty")
        return fields

    def _live(
        self, value: Any, files: Mapping[str, FileSpec], start: tuple[str, ...]
    ) -> dict[str, tuple[str, ...]]:
        if value is None:
            return {}
        live: dict[str, tuple[str, ...]] = {}
        for path, units in (self._mapping("live", value) or {}).items():
            if path not in files:
                self._add(f"live[{path!r}]", "must name one of files")
            elif path == ".env":
                self._add(f"live[{path!r}]", "is read at the start alone")
            live[path] = self._start(units, f"live[{path!r}]")
            for name in live[path]:
                if name not in start:
                    self._add(f"live[{path!r}]", f"names {name}, which is not in start")
        return live

    def _told(self, value: Any, start: tuple[str, ...]) -> tuple[str, ...]:
        if value is None:
            return ()
        told = self._start(value, "reload_on_confirm")
        for name in told:
            if name not in start:
                self._add("reload_on_confirm", f"names {name}, which is not in start")
        return told

    def _files(self, value: Any) -> dict[str, FileSpec]:
        files: dict[str, FileSpec] = {}
        for path, entry in (self._mapping("files", value) or {}).items():
            where = f"files[{path!r}]"
            problem = _path_problem(path)
            if problem:
                self._add(where, problem)
            fields = self._mapping(where, entry)
            if fields is None or not self._keys(where, fields, {"mode", "owner", "group", "content"}):
                continue
            mode = self._text(f"{where}.mode", fields["mode"], _MODE.match, 'octal digits such as "0600"')
            files[path] = FileSpec(
                content=self._text(f"{where}.content", fields["content"]),
                mode=int(mode, 8) if _MODE.match(mode) else 0,
                owner=self._text(f"{where}.owner", fields["owner"], _ACCOUNT.match, "an account name"),
                group=self._text(f"{where}.group", fields["group"], _ACCOUNT.match, "a group name"),
            )
        for path in files:
            if any(other.startswith(f"{path}/") for other in files):
                self._add(f"files[{path!r}]", "is also used as a directory")
        env = files.get(".env")
        if env is not None and (env.mode, env.owner) != (0o600, "root"):
            self._add("files['.env']", "must have mode 0600 and owner root: it holds secrets")
        return files

    def _units(self, value: Any) -> dict[str, str]:
        units: dict[str, str] = {}
        for name, text in (self._mapping("units", value) or {}).items():
            if not (_UNIT.match(name) or _DROP_IN.match(name)):
                self._add(
                    f"units[{name!r}]",
                    "must be like x.service, or x.service.d/y.conf",
                )
            units[name] = self._text(f"units[{name!r}]", text)
        return units

    def _beside(
        self, where: str, value: Any, units: Mapping[str, str]
    ) -> tuple[StandbySpec | None, dict[str, str]]:
        if value is None:
            return None, {}
        fields = self._mapping(where, value)
        keys = {"units", "start", "start_timeout_s", "check", "check_timeout_s"}
        if fields is None or not self._keys(where, fields, keys):
            return None, {}
        texts: dict[str, str] = {}
        for name, text in (self._mapping(f"{where}.units", fields["units"]) or {}).items():
            if not _UNIT.match(name):
                self._add(f"{where}.units[{name!r}]", "must be a unit such as x.service")
            elif name in units:
                self._add(f"{where}.units[{name!r}]", "is also a unit of the service itself")
            texts[name] = self._text(f"{where}.units[{name!r}]", text)
        start = self._start(fields["start"], f"{where}.start")
        for name in start:
            if name not in texts:
                self._add(f"{where}.start", f"names {name}, which is not in {where}.units")
        return StandbySpec(
            units=start,
            start_timeout_s=self._seconds(f"{where}.start_timeout_s", fields["start_timeout_s"]),
            check=self._command(f"{where}.check", fields["check"]),
            check_timeout_s=self._seconds(f"{where}.check_timeout_s", fields["check_timeout_s"]),
        ), texts

    def _start(self, value: Any, where: str = "start") -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            self._add(where, "must be a list of at least one unit")
            return ()
        names = [
            self._text(f"{where}[{i}]", name, _UNIT.match, "a unit such as x.service")
            for i, name in enumerate(value)
        ]
        if len(set(names)) != len(names):
            self._add(where, "names a unit twice")
        return tuple(names)

    def _command(self, where: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            self._add(where, "must be a list of at least one word")
            return ()
        return tuple(value)

    def _health(self, value: Any) -> HealthSpec | None:
        fields = self._mapping("health", value)
        times = ("timeout_s", "min_healthy_s", "healthy_deadline_s", "progress_deadline_s")
        if fields is None or not self._keys("health", fields, {"command", "max_restarts", *times}):
            return None
        command = self._command("health.command", fields["command"])
        seconds = {name: self._seconds(f"health.{name}", fields[name]) for name in times}
        restarts = self._integer("health.max_restarts", fields["max_restarts"], 0, 1000)
        for shorter, longer in itertools.pairwise(times[1:]):
            if seconds[shorter] >= seconds[longer]:
                self._add(f"health.{shorter}", f"must be less than health.{longer}")
        return HealthSpec(command, max_restarts=restarts, **seconds)

    def _keys(
        self,
        where: str,
        fields: Mapping[str, Any],
        required: set[str],
        optional: frozenset[str] | set[str] = frozenset(),
    ) -> bool:
        for key in sorted(required - set(fields)):
            self._add(where, f"lacks the key {key!r}")
        for key in sorted(set(fields) - required - optional):
            self._add(where, f"has the unknown key {key!r}")
        return required <= set(fields)

    def _mapping(self, where: str, value: Any) -> dict[str, Any] | None:
        if isinstance(value, dict):
            return value
        self._add(where, f"must be an object, not {_kind(value)}")
        return None

    def _text(
        self, where: str, value: Any, matches: Callable[[str], object] | None = None, wanted: str = "text"
    ) -> str:
        if not isinstance(value, str):
            self._add(where, f"must be {wanted}, not {_kind(value)}")
            return ""
        if "\0" in value:
            self._add(where, "contains a NUL character")
        if matches is not None and not matches(value):
            self._add(where, f"must be {wanted}")
        return value

    def _boolean(self, where: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self._add(where, f"must be true or false, not {_kind(value)}")
        return value is True

    def _integer(self, where: str, value: Any, lowest: int, highest: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self._add(where, f"must be a whole number, not {_kind(value)}")
            return lowest
        if not lowest <= value <= highest:
            self._add(where, f"must be between {lowest} and {highest}")
        return value

    def _seconds(self, where: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._add(where, f"must be a number of seconds, not {_kind(value)}")
            return 0.0
        if not 0 < value <= 3600:
            self._add(where, "must be more than 0 and at most 3600 seconds")
        return float(value)

    def _add(self, where: str, problem: str) -> None:
        self.problems.append(f"{where} {problem}")


def _path_problem(path: str) -> str | None:
    """Return why ``path`` may not name a file inside a generation, or ``None``."""
    parts = path.split("/")
    if path.startswith("/") or "" in parts or "." in parts or ".." in parts or "\0" in path or "\\" in path:
        return "must be a relative path without '..', '.', empty parts or backslashes"
    if parts[0] in RESERVED:
        return f"begins with {parts[0]!r}, which the tool uses itself"
    return None


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
