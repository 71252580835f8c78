"""A host's settings as the `.env` or YAML of a service, and such a file read back into settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from deploy.fleet.layers import HIDDEN
from deploy.fleet.rendering import TEMPLATES, render
from deploy.fleet.settings import PARTS, structs, variables_of
from mt5crs.settings.envfile import scan
from mt5crs.settings.schema import Field, check_value, did_you_mean, fields

_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=")


@dataclass
class Read:
    """What a file says: settings by variable, all that is wrong, and what is no setting of the inventory."""

    settings: dict[str, Any] = field(default_factory=dict)
    declared: dict[str, Field] = field(default_factory=dict)
    """Those of `settings`."""
    problems: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    """Variables whose value belongs into the vault."""
    fixed: list[str] = field(default_factory=list)
    """Names that the deployment itself decides."""


class _Loader(yaml.SafeLoader):
    """With Ansible's `!vault`: what is encrypted in an older file is a secret, whatever it is called."""


_Loader.add_constructor("!vault", lambda _loader, _node: HIDDEN)


def services_with_env() -> tuple[str, ...]:
    """The services that read an `.env`."""
    names = (path.name.removesuffix(".env.j2") for path in TEMPLATES.glob("env/*.env.j2"))
    return tuple(sorted(name for name in names if not name.endswith(("-standby", "-shadow"))))


def env_text(service: str, variables: Mapping[str, Any], hidden: Collection[str]) -> str:
    """What a deployment writes of settings, as one `.env`; the values of hidden variables are HIDDEN."""
    masked = {one.env for one in _fields(service).values() if one.variable in hidden}
    lines = []
    for line in _env_lines(service, variables):
        name = _LINE.match(line)
        lines.append(f"{name[1]}='{HIDDEN}'" if name and name[1] in masked else line)
    return "\n".join(lines) + "\n"


def _env_lines(service: str, variables: Mapping[str, Any]) -> list[str]:
    """Those of `.env` and, unless they are among them, of the file that is read again while it runs."""
    lines, live = (
        render(f"{place}/{service}.env.j2", variables).splitlines() for place in ("env", "env/live")
    )
    return [*lines, *(line for line in live if line not in lines)]


def yaml_text(variables: Mapping[str, Any], hidden: Collection[str]) -> str:
    """Settings as they would be in host_vars; the values of hidden variables are HIDDEN."""
    shown = {name: HIDDEN if name in hidden else value for name, value in sorted(variables.items())}
    return yaml.safe_dump(shown, sort_keys=True, default_flow_style=False, allow_unicode=True)


def read_env(text: str, service: str, origin: str) -> Read:
    """The settings of an `.env`; every problem at once."""
    values, wrong = scan(text.replace("\r\n", "\n"))
    lines = {
        match[1]: number
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := _LINE.match(line))
    }
    where = {name: f"{origin}:{lines[name]}" for name in values}
    found = _read(values, {one.env: one for one in _fields(service).values() if one.env}, where, text=True)
    found.problems = [*(f"{origin}: {problem}" for problem in wrong), *found.problems]
    return found


def read_yaml(text: str, service: str, origin: str) -> Read:
    """The settings of a YAML mapping: by variable (`gateway_port`), or as in the `.env` (`GATEWAY_PORT`).

    By variable those of the host's other parts too, as `config export` writes them.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 -- a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        return Read(problems=[f"{origin}{line}: no YAML ({getattr(error, 'problem', None) or 'unreadable'})"])
    if values is None:
        return Read()
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        return Read(problems=[f"{origin} is no mapping of names to values"])
    where, twice = dict[str, str](), []
    for key, _ in node.value:
        place = f"{origin}:{key.start_mark.line + 1}"
        if where.setdefault(str(key.value), place) != place:
            twice.append(f"{place}: {key.value} is there a second time; keep one of them")
    known = {name: field for part in PARTS for name, field in variables_of(part).items()}
    known |= {one.variable: one for one in _fields(service).values() if one.variable}
    known |= {one.env: one for one in _fields(service).values() if one.env}
    found = _read({str(name): value for name, value in values.items()}, known, where, text=False)
    found.problems = [*twice, *found.problems]
    return found


def _read(
    values: Mapping[str, Any], known: Mapping[str, Field], where: Mapping[str, str], *, text: bool
) -> Read:
    found = Read()
    for name, value in values.items():
        declared = known.get(name)
        if declared is None:
            found.problems.append(f"{where[name]}: {name} is unknown{did_you_mean(name, known)}")
            continue
        if declared.variable is None:
            found.fixed.append(name)
            continue
        if declared.secret or value == HIDDEN:
            found.secrets.append(declared.variable)
            continue
        converted, problem = check_value(
            declared, value, name, from_text=text or (name == declared.env and isinstance(value, str))
        )
        if problem is not None:
            found.problems.append(f"{where[name]}: {problem}")
        elif declared.variable in found.settings:
            found.problems.append(f"{where[name]}: {name} is said a second time, as {declared.variable}")
        else:
            found.settings[declared.variable] = msgspec.to_builtins(converted)
            found.declared[declared.variable] = declared
    return found


def new_text(read: Read, now: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    """Lines for host_vars: what the file says otherwise than the inventory, and what that says now."""
    for name, value in read.settings.items():
        if name in now and _whole(read.declared[name], now[name]) == value:
            continue
        said = f"now {now[name]!r}" if name in now else "now not set"
        yield f"# {said}{f' ({origins[name]})' if origins.get(name) else ''}"
        yield yaml_text({name: value}, ()).rstrip("\n")


def _whole(declared: Field, value: Any) -> Any:
    """A value of the inventory with the defaults of what is in it, as `_read` has those of a file."""
    converted, problem = check_value(declared, value, declared.name, from_text=False)
    return value if problem is not None else msgspec.to_builtins(converted)


def _fields(service: str) -> dict[str, Field]:
    """Every field of a service by its name, those without a variable too."""
    assert variables_of(service)  # noqa: S101  (a service, not just any part)
    return {f"{cls.__name__}.{one.name}": one for cls in structs(service) for one in fields(cls)}
