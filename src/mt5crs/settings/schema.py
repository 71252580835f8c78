"""How settings are declared, read and checked: one declaration serves services, deployment and docs.

A part declares its settings as a frozen msgspec Struct derived from `Settings`, one field per setting:

    class ReconcilerSettings(Settings, frozen=True, kw_only=True):
        part: ClassVar[str] = "reconciler"
        sync_timeout_s: Annotated[float, setting("How long one SYNC_ALL may take, in seconds.", ge=0.1)] = 3.0

From that field come the environment variable `SYNC_TIMEOUT_S` (services), the inventory variable
`reconciler_sync_timeout_s` (deployment), the role's argument_specs and the reference page.
Only msgspec is imported: services load this at start.
"""

from __future__ import annotations

import difflib
import os
import stat
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union

import msgspec

Kind = Literal["plain", "address", "network", "curve_public_key", "curve_secret_key"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_MOST_OF_SECRET = 4096
_MOST_NAMED = 8
_KEY_PATTERN = r"^[0-9a-f]{64}\Z"
_ADDRESS_PATTERN = r"^[0-9A-Za-z.:_-]+\Z"


class SettingsError(ValueError):
    """Settings that cannot be used. `problems` has one sentence per problem; the text has them all."""

    def __init__(self, heading: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{heading}: {len(problems)} problem{'s' if len(problems) != 1 else ''}{lines}")


def setting(
    description: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
    env: str | None = None,
    in_env: bool = True,
    variable: bool = True,
    secret: bool = False,
    create: str | None = None,
    kind: Kind = "plain",
    live: bool = False,
) -> msgspec.Meta:
    """Describe one setting; goes into `Annotated[type, setting(...)]`.

    description: one sentence with the unit. ge … pattern: limits of the value.
    env: name in the environment, when it is not the field name in capitals; in_env=False: used at deployment
    only, no service reads it (such fields live in a Struct of their own, which no service loads).
    variable=False: fixed by the deployment (a path, say), so there is no inventory variable for it.
    secret: never shown. create: the command that makes a missing value. kind: extra checks at deployment
    (addresses against network, broadcast and documentation addresses; keys are 64 hex characters).
    live: a change of it restarts nothing: what runs takes it over as it is, or only the controller uses it. A
    service has such a setting in the file that `live_settings_file` names.
    """
    if kind in ("curve_public_key", "curve_secret_key"):
        pattern = pattern or _KEY_PATTERN
        secret = secret or kind == "curve_secret_key"
        create = create or "python -m deploy.keys --inventory inventory/<environment>.yml"
    if kind == "address":
        pattern = pattern or _ADDRESS_PATTERN
    extra = {
        "env": env,
        "in_env": in_env,
        "variable": variable,
        "secret": secret,
        "create": create,
        "kind": kind,
        "live": live,
    }
    limits = {
        "ge": ge,
        "gt": gt,
        "le": le,
        "lt": lt,
        "min_length": min_length,
        "max_length": max_length,
        "pattern": pattern,
    }
    given: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
    return msgspec.Meta(description=description, extra=extra, **given)


LiveSettingsFile = Annotated[
    str,
    setting(
        "File of the settings that are read again on SIGHUP; none: all are read at the start alone.",
        variable=False,
    ),
]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every part's settings. Its text form never shows a secret."""

    part: ClassVar[str] = ""
    endpoint: ClassVar[tuple[str, str]] = ("metrics_address", "metrics_port")
    """Of a service: its settings that say where it serves health and figures."""

    def problems(self) -> Iterable[str]:
        """Sentences about fields that do not fit together; called once every field is good by itself."""
        return ()

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={'<secret>' if field.secret else repr(getattr(self, field.name))}"
            for field in fields(type(self))
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    __str__ = __repr__


AnySettings = TypeVar("AnySettings", bound=Settings)


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One declared setting, as the environment, the inventory and the documentation see it."""

    name: str
    part: str
    type: Any
    base_type: Any
    required: bool
    default: Any
    description: str
    env: str | None
    variable: str | None
    secret: bool
    create: str | None
    kind: str
    live: bool = False
    limits: dict[str, Any]

    @property
    def nested(self) -> bool:
        """Whether the value is a list or mapping, written as JSON in the environment."""
        return _is_nested(self.base_type)

    def expected(self) -> str:
        """What a good value is, in words: 'a whole number from 1 to 65535'."""
        return _expected(self.base_type, self.limits)


def fields(cls: type[Settings]) -> tuple[Field, ...]:
    """Every setting that `cls` declares, in the order written."""
    return tuple(_field(cls, info) for info in msgspec.structs.fields(cls))


def _field(cls: type[Settings], info: msgspec.structs.FieldInfo) -> Field:
    base, metas = _unwrap(info.type)
    extra: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    description = ""
    for meta in metas:
        extra.update(meta.extra or {})
        description = meta.description or description
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern"):
            value = getattr(meta, name)
            if value is not None:
                limits[name] = value
    if not description:
        raise TypeError(f"{cls.__name__}.{info.name} has no setting(...) description; add one")
    default = info.default
    if default is msgspec.NODEFAULT and info.default_factory is not msgspec.NODEFAULT:
        default = info.default_factory()
    return Field(
        name=info.name,
        part=cls.part,
        type=info.type,
        base_type=base,
        required=info.required,
        default=None if default is msgspec.NODEFAULT else default,
        description=description,
        env=(extra.get("env") or info.name.upper()) if extra.get("in_env", True) else None,
        variable=f"{cls.part}_{info.name}" if extra.get("variable", True) else None,
        secret=bool(extra.get("secret")),
        create=extra.get("create"),
        kind=extra.get("kind", "plain"),
        live=bool(extra.get("live")),
        limits=limits,
    )


def check_value(field: Field, value: object, name: str, *, from_text: bool = False) -> tuple[Any, str | None]:
    """Convert one value; (converted, None) or (None, sentence). A secret is not repeated in the sentence.

    from_text: the value is text from the environment; numbers and booleans are parsed, nested ones are JSON.
    """
    try:
        if from_text and field.nested and isinstance(value, str):
            value = msgspec.json.decode(value.encode())
        # Text is loosened only for the environment: an inventory that says "5555" in quotes has a wrong type.
        return msgspec.convert(value, field.type, strict=not from_text), None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        shown = "<hidden>" if field.secret else repr(value)
        detail = f" ({error})" if field.nested and not field.secret else ""
        return None, f"{name} is {shown}, expected {field.expected()}{detail}. {field.description}"


def another(field: Field, value: object) -> Any | None:
    """A good value that is not this one; None: none comes to mind (a list, a mapping, a free text)."""
    candidates: tuple[object, ...] = ()
    if typing.get_origin(field.base_type) is Literal:
        candidates = typing.get_args(field.base_type)
    elif isinstance(value, bool):
        candidates = (not value,)
    elif isinstance(value, (int, float)):
        candidates = (value + 1, value - 1, value / 2)
    good = (one for one in candidates if check_value(field, one, field.name)[1] is None)
    return next((one for one in good if one != value), None)


def build(
    cls: type[AnySettings],
    values: Mapping[str, object],
    *,
    heading: str,
    label: Callable[[Field], str],
    from_text: bool = False,
    unusable: Mapping[str, str] = types.MappingProxyType({}),
) -> AnySettings:
    """Make `cls` from values keyed by field name; SettingsError with every problem at once.

    unusable: a sentence for each field whose value could not be had.
    """
    good: dict[str, Any] = {}
    bad: list[str] = []
    for field in fields(cls):
        if field.name in unusable:
            bad.append(unusable[field.name])
            continue
        if field.name not in values:
            if field.required:
                remedy = f"; create it with `{field.create}`" if field.create else ""
                bad.append(f"{label(field)} is missing{remedy}. {field.description}")
            continue
        converted, problem = check_value(field, values[field.name], label(field), from_text=from_text)
        if problem is None:
            good[field.name] = converted
        else:
            bad.append(problem)
    if bad:
        raise SettingsError(heading, bad)
    made = cls(**good)
    together = list(made.problems())
    if together:
        raise SettingsError(heading, together)
    return made


def load(
    cls: type[AnySettings],
    environ: Mapping[str, str] | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
) -> AnySettings:
    """Settings of a service from its environment (`os.environ` unless given).

    overrides: values by environment name that win (command-line options). An empty variable counts as unset.
    A secret may be in a file that `<NAME>_FILE` names, as containers are given theirs.
    Raises SettingsError that names every missing, mistyped or out-of-range variable.
    """
    source = dict(os.environ if environ is None else environ)
    source.update(overrides or {})
    values: dict[str, object] = {}
    unusable: dict[str, str] = {}
    for field in fields(cls):
        if field.env is None:
            continue
        value, path = source.get(field.env, ""), source.get(f"{field.env}_FILE", "") if field.secret else ""
        if value and path:
            unusable[field.name] = f"{field.env} and {field.env}_FILE are both set; keep one of them"
        elif path:
            value, problem = secret_in(path)
            if problem:
                unusable[field.name] = f"{field.env}_FILE: {problem}"
        if value:
            values[field.name] = value
    return build(
        cls,
        values,
        heading=f"{cls.part or cls.__name__} settings in the environment",
        label=lambda field: field.env or field.name,
        from_text=True,
        unusable=unusable,
    )


def secret_in(path: str) -> tuple[str, str]:
    """The secret in a file, without the end of its line, and why it cannot be used; one of them is empty."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - services load no pathlib for it
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(_MOST_OF_SECRET).strip()
    except OSError as error:
        return (
            "",
            f"{path} cannot be read ({error.strerror}); let it belong to the service's user, mode 0600",
        )
    except UnicodeDecodeError:
        return "", f"{path} is not UTF-8; write the secret into it again"
    if os.name == "posix" and mode & 0o077:
        return "", f"{path} has mode {mode:04o}, so that others can read it; `chmod 0600` it"
    return (text, "") if text else ("", f"{path} is empty; write the secret into it")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """'; did you mean X?' for the closest known setting, or advice to remove one that nothing reads.

    prefix: what all of them begin with; it does not count for likeness.
    """
    endings = [other.removeprefix(prefix) for other in known]
    close = _closest(name.removeprefix(prefix), endings)
    return f"; did you mean {prefix}{close}?" if close else "; remove it, nothing reads it"


def instead(name: str, known: Collection[str]) -> str:
    """'; did you mean X?' for what is named and is not there (a host, a rule), or what there is."""
    close = _closest(name, known)
    if close:
        return f"; did you mean {close}?"
    more = len(known) - _MOST_NAMED
    listed = ", ".join(list(known)[:_MOST_NAMED]) or "none"
    return f"; there are {listed}" + (f" and {more} more" if more > 0 else "")


def _closest(name: str, known: Iterable[str]) -> str:
    return "".join(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6))


def to_env(value: object) -> str:
    """Text of a value in `.env`: booleans in lower case, lists and mappings as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    return msgspec.json.encode(value).decode()


def _unwrap(annotation: Any) -> tuple[Any, list[msgspec.Meta]]:
    metas: list[msgspec.Meta] = []
    while typing.get_origin(annotation) is typing.Annotated:
        metas = [meta for meta in annotation.__metadata__ if isinstance(meta, msgspec.Meta)] + metas
        annotation = annotation.__origin__
    return annotation, metas


def _is_nested(base: Any) -> bool:
    base, _ = _unwrap(base)
    origin = typing.get_origin(base) or base
    if origin in (Union, types.UnionType):
        return any(_is_nested(argument) for argument in typing.get_args(base))
    return isinstance(origin, type) and issubclass(
        origin, (list, tuple, dict, set, frozenset, msgspec.Struct)
    )


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}


def _expected(base: Any, limits: Mapping[str, Any]) -> str:
    origin = typing.get_origin(base)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(base))
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(_unwrap(argument)[0], {}) for argument in typing.get_args(base))
    if base in _NAMES:
        text = _NAMES[base]
    elif _is_nested(base):
        text = "a mapping" if issubclass(origin or base, (dict, msgspec.Struct)) else "a list"
    else:
        text = str(base)
    if limits.get("pattern") == _KEY_PATTERN:
        return "a key of 64 hex characters"
    parts = []
    unit = "entries" if _is_nested(base) else "characters"
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is not None:
        parts.append(f"from {low}" if "ge" in limits else f"above {low}")
    if high is not None:
        parts.append(f"to {high}" if "le" in limits else f"below {high}")
    if "min_length" in limits:
        parts.append(f"of at least {limits['min_length']} {unit}")
    if "max_length" in limits:
        parts.append(f"of at most {limits['max_length']} {unit}")
    if "pattern" in limits:
        parts.append(f"matching {limits['pattern']}")
    return " ".join([text, *parts])
