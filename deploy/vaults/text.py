"""The text of an open vault: read, compared, judged, one value replaced. Pure; no sentence has a value."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deploy.fleet.settings import PARTS, variables_of
from mt5crs.settings.envfile import value_fits
from mt5crs.settings.schema import Field, check_value, instead, to_env

KEYS: Mapping[str, str] = {
    "vault_gateway_secret_keys": "fleet_gateway_public_keys",
    "vault_client_secret_keys": "fleet_client_public_keys",
    "vault_client_former_secret_keys": "",
}
"""Variable of secret CURVE keys → variable of the public ones, both by name; empty: none are kept."""
ACCOUNTS = "vault_windows_account_passwords"
_SHORTEST_ACCOUNT = 14
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEY = re.compile(r"[0-9a-f]{64}\Z")
_QUOTED = re.compile("['\"].*['\"]", re.DOTALL)


class VaultTextError(ValueError):
    """The text is no vault's; the sentence says where, and repeats nothing of it but names."""


class _Loader(yaml.SafeLoader):
    """Takes Ansible's `!unsafe` and `!vault` for text."""


def _as_text(loader: _Loader, node: yaml.Node) -> Any:
    return loader.construct_scalar(node)  # type: ignore[arg-type]


for _tag in ("!unsafe", "!vault"):
    _Loader.add_constructor(_tag, _as_text)


def values(text: str) -> dict[str, Any]:
    """The variables of a vault. VaultTextError: no YAML, no mapping, or one name twice, with the line."""
    try:
        root = yaml.compose(text, _Loader)
        twice = list(_twice(root))
        found = yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    except yaml.YAMLError as error:
        raise VaultTextError(_why(error)) from None
    except (ValueError, RecursionError):  # a date that is none, say
        raise VaultTextError("a value is read as a date or number that is none; put it in quotes") from None
    if twice:
        raise VaultTextError("; ".join(twice))
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise VaultTextError("it must be variables with their values, one `name: value` a line")
    return found


def _why(error: yaml.YAMLError) -> str:
    """What YAML says of a text without quoting it: that is where the secrets are."""
    mark = getattr(error, "problem_mark", None)
    problem = _QUOTED.sub("…", str(getattr(error, "problem", None) or "it cannot be read"))
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{where}no YAML ({problem}); a value with special characters needs quotes"


def _twice(node: yaml.Node | None, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, list[int]] = {}
        for key, value in node.value:
            name = str(key.value)
            lines.setdefault(name, []).append(key.start_mark.line + 1)
            yield from _twice(value, (*path, name))
        for name, on in lines.items():
            if len(on) > 1:
                where = ".".join((*path, name))
                yield f"{where} stands {len(on)} times, in lines {' and '.join(map(str, on))}; keep one"
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value, path)


def entries(of: Mapping[str, Any]) -> dict[str, Any]:
    """Name → value of each secret; a key is `variable.name`."""
    return dict(_leaves(of))


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and (value or not name):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{number}]")
    else:
        yield name, value


@dataclass(frozen=True)
class Changes:
    """What differs between two vaults, by name."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted((*self.added, *self.changed, *self.removed)))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """Compare two vaults."""
    old, new = entries(before), entries(after)

    def same(name: str) -> bool:
        return type(old[name]) is type(new[name]) and bool(old[name] == new[name])

    return Changes(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(name for name in new.keys() & old.keys() if not same(name))),
        tuple(sorted(old.keys() - new.keys())),
    )


def problems(
    of: Mapping[str, Any],
    *,
    wanted: Collection[str] = (),
    public: Mapping[str, Mapping[str, str]] | None = None,
    public_half: Callable[[str], str | None] | None = None,
) -> list[str]:
    """Everything that is wrong with a vault, a sentence each, without a value.

    wanted: variables that the fleet's files refer to. public: variable → name → public key, of keys.yml.
    """
    found: list[str] = []
    for name, value in of.items():
        if not isinstance(name, str) or not _NAME.match(name):
            found.append("a name is none of a variable; letters, digits and _ make one")
        elif name in KEYS or name == ACCOUNTS:
            found += _of_mapping(name, value, (public or {}).get(KEYS.get(name, ""), {}), public_half)
        else:
            found += _of_one(name, value, of, wanted)
    found += [
        f"{name} is missing, and the fleet's files refer to it{like(name, of.keys())}"
        for name in sorted(set(wanted) - of.keys())
    ]
    return list(Counter(found))


def _of_mapping(
    name: str, value: Any, public: Mapping[str, str], public_half: Callable[[str], str | None] | None
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{name} must be a mapping: under it one `name: secret` a line"
        return
    for of, secret in value.items():
        if name == ACCOUNTS:
            if not isinstance(secret, str) or len(secret) < _SHORTEST_ACCOUNT:
                yield f"{name}.{of} must be a text of at least {_SHORTEST_ACCOUNT} characters, in quotes"
        elif not isinstance(secret, str) or not all(_KEY.match(each) for each in _keys_in(name, secret)):
            yield f"{name}.{of} must be 64 hexadecimal digits in small letters; `secrets rotate` makes one"
        elif public_half is not None and of in public and public_half(secret) != public[of]:
            yield (
                f"{name}.{of} is not the secret half of its public key in keys.yml; "
                "`secrets rotate` replaces both"
            )


def _keys_in(name: str, secret: str) -> list[str]:
    """One key, or the former ones of a name, newest first."""
    return [secret] if KEYS[name] else secret.split() or [secret]


def _of_one(name: str, value: Any, of: Mapping[str, Any], wanted: Collection[str]) -> Iterator[str]:
    declared = _secret_settings()
    if value is None or value == "":
        yield f"{name} has no value; give it one, or take the line out"
        return
    if name in declared:
        yield from _of_setting(name, value, declared[name])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield f"{name} is a number, as YAML reads it (a leading 0 is lost); put it in quotes"
    known = {*wanted, *declared, *KEYS, ACCOUNTS}
    if name in known or (name.startswith("ansible_") and "pass" in name):
        return
    near = _near(name, known - set(of))
    if near:
        yield f"{name} is unknown: nothing refers to it; did you mean {near}?"
    elif not name.startswith("vault_"):
        any_part = next((part for part in PARTS if name.startswith(f"{part}_")), None)
        if any_part is not None and name not in variables_of(any_part):
            yield f"{name} is unknown{like(name, declared) or '; take it out'}"


def _of_setting(name: str, value: Any, field: Field) -> Iterator[str]:
    _, problem = check_value(field, value, name)
    if problem is not None:
        yield problem
    elif field.env is not None and not value_fits(to_env(value)):
        yield (
            f"{name} holds a single quote, a backslash or a control character, which cannot be written to "
            ".env; use other characters"
        )


def problems_of(setting: str, value: str) -> list[str]:
    """What is wrong with a new value of a secret setting, without the value."""
    found = list(_of_setting(setting, value, _secret_settings()[setting]))
    if re.search(r"\{[{%#]", value):
        found.append(
            f"{setting} would hold {{{{, {{% or {{#, an expression for Ansible; use other characters."
        )
    return found


def unused(of: Mapping[str, Any], wanted: Collection[str]) -> list[str]:
    """Variables that nothing refers to: no mistake, but perhaps not what was meant."""
    known = {*wanted, *_secret_settings(), *KEYS, ACCOUNTS}
    return sorted(str(name) for name in of if name not in known and str(name).startswith("vault_"))


def _secret_settings() -> dict[str, Field]:
    return {name: field for part in PARTS for name, field in variables_of(part).items() if field.secret}


def nearest(name: str, known: Collection[str]) -> str:
    """'; did you mean X?', or what there is."""
    return like(name, known) or instead(name, sorted(known))


def like(name: str, known: Collection[str]) -> str:
    """'; did you mean X?', or nothing."""
    near = _near(name, known)
    return f"; did you mean {near}?" if near else ""


def _near(name: str, known: Collection[str]) -> str:
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)), "")


def with_value(text: str, path: tuple[str, ...], value: str) -> str:
    """The text with one value in another's place, or added; all other lines, comments too, stay.

    path: the variable, and below it the name. Raises VaultTextError when it cannot be done in place.
    """
    wanted = values(text)
    below = wanted
    for part in path[:-1]:
        below = below.setdefault(part, {})
        if not isinstance(below, dict):
            raise VaultTextError(f"{'.'.join(path)} cannot be set: {part} is no mapping")
    below[path[-1]] = value
    changed = _put(text, path, json.dumps(value, ensure_ascii=False))
    try:
        same = values(changed) == wanted
    except VaultTextError:
        same = False
    if not same:
        raise VaultTextError(
            f"{'.'.join(path)} cannot be changed in place (anchors, or braces?); do it with `secrets edit`"
        )
    return changed


def without(text: str, path: tuple[str, ...]) -> str:
    """The text without one entry of a mapping that stands on a line of its own. VaultTextError as above."""
    wanted = values(text)
    below: Any = wanted
    for part in path[:-1]:
        below = below[part]
    del below[path[-1]]
    found = nodes(text, path)
    changed = text
    if found is not None:
        key, value = found
        lines = text.splitlines(keepends=True)
        del lines[key.start_mark.line : max(key.start_mark.line, _last_line(value)) + 1]
        changed = "".join(lines)
        if not below:
            changed = _emptied(changed, path[:-1])
    try:
        same = values(changed) == wanted
    except VaultTextError:
        same = False
    if not same:
        raise VaultTextError(f"{'.'.join(path)} cannot be taken out in place; do it with `secrets edit`")
    return changed


def _emptied(text: str, path: tuple[str, ...]) -> str:
    found = nodes(text, path) if path else None
    if found is None:
        return text
    at = found[0].end_mark.index
    return f"{text[: at + 1]} {{}}{text[at + 1 :]}" if text[at : at + 1] == ":" else text


def _last_line(node: yaml.Node) -> int:
    block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    return int(node.end_mark.line) - (1 if block else 0)


def nodes(text: str, path: tuple[str, ...]) -> tuple[yaml.Node, yaml.Node] | None:
    """The nodes of a name and its value, or None."""
    node = yaml.compose(text, _Loader)
    pair = None
    for part in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        pair = next(((key, value) for key, value in node.value if key.value == part), None)
        if pair is None:
            return None
        node = pair[1]
    return pair


def _put(text: str, path: tuple[str, ...], quoted: str) -> str:
    found = nodes(text, path)
    if found is not None:
        value = found[1]
        if not isinstance(value, yaml.ScalarNode):
            return text
        start, end = value.start_mark.index, value.end_mark.index
        if value.style in ("|", ">"):
            return f"{text[:start]}{quoted}\n{text[end:]}"
        space = "" if text[start - 1 : start] in (" ", "\n", "\t") else " "
        return f"{text[:start]}{space}{quoted}{text[end:]}"
    if text and not text.endswith("\n"):
        text += "\n"
    name = json.dumps(path[-1]) if not _plain(path[-1]) else path[-1]
    if len(path) == 1:
        return f"{text}{name}: {quoted}\n"
    above = nodes(text, path[:-1])
    if above is None:
        return f"{text}{path[0]}:\n  {name}: {quoted}\n" if len(path) == 2 else text
    key, mapping = above
    if isinstance(mapping, yaml.MappingNode) and mapping.value and not mapping.flow_style:
        first, last = mapping.value[0][0].start_mark, mapping.value[-1]
        lines = text.splitlines(keepends=True)
        after = max(last[0].start_mark.line, _last_line(last[1])) + 1
        return "".join([*lines[:after], f"{' ' * first.column}{name}: {quoted}\n", *lines[after:]])
    if isinstance(mapping, yaml.MappingNode) and not mapping.value:  # {}
        start, end = mapping.start_mark.index, mapping.end_mark.index
        return f"{text[:start].rstrip(' ')}\n{' ' * (key.start_mark.column + 2)}{name}: {quoted}{text[end:]}"
    return text


def _plain(name: str) -> bool:
    return bool(re.match(r"[A-Za-z_][A-Za-z0-9_.-]*\Z", name)) and name.lower() not in (
        *("yes", "no", "on", "off", "true", "false", "null", "y", "n"),
    )
