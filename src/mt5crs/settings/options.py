"""What options a strategy knows, as its class declares them: data alone, so that it can be checked anywhere.

On the author's machine, on the controller before a deployment, where the strategy's code is not loaded, and
at its start, always by this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from mt5crs.settings.schema import Field, check_value, did_you_mean

Kind = Literal["integer", "number", "text", "boolean", "list", "mapping"]
_TYPES: Mapping[Kind, Any] = {
    "integer": int,
    "number": float,
    "text": str,
    "boolean": bool,
    "list": list[Any],
    "mapping": dict[str, Any],
}
_LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")


class Option(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One option. Without a default it must be given.

    description: one sentence with the unit. ge … lt: limits of numbers; min_length and max_length: of text
    and lists; pattern: of text. choices: the only values that there are, of text or whole numbers.
    """

    kind: Kind
    description: str
    default: Any = msgspec.UNSET
    ge: int | float | None = None
    gt: int | float | None = None
    le: int | float | None = None
    lt: int | float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    choices: tuple[str | int, ...] | None = None

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is msgspec.UNSET

    def field(self, name: str) -> Field:
        """The same as a setting is described; TypeError when limits do not suit the kind."""
        limits = {limit: value for limit in _LIMITS if (value := getattr(self, limit)) is not None}
        base = Literal[self.choices] if self.choices else _TYPES[self.kind]
        made = Annotated[base, msgspec.Meta(**limits)] if limits else base
        msgspec.json.Decoder(made)  # tells at once of limits that do not suit
        return Field(
            name=name,
            part="strategy",
            type=made,
            base_type=base,
            required=self.required,
            default=None if self.required else self.default,
            description=self.description,
            env=None,
            variable=None,
            secret=False,
            create=None,
            kind="plain",
            limits=limits,
        )


Declared = Mapping[str, Option]


def complete(declared: Declared, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options with the defaults of those that are not given, and a sentence for each that is wrong."""
    wrong = [
        f"there is no option {name}{did_you_mean(name, declared)}" for name in given if name not in declared
    ]
    values: dict[str, Any] = {}
    for name, option in declared.items():
        if name not in given:
            if option.required:
                expected = option.field(name).expected()
                wrong.append(f"option {name} is missing, expected {expected}. {option.description}")
            else:
                values[name] = option.default
            continue
        values[name], problem = check_value(option.field(name), given[name], f"option {name}")
        if problem is not None:
            wrong.append(problem)
    return values, wrong


def declaration_problems(declared: Declared) -> list[str]:
    """What is wrong with a declaration itself: limits that do not suit, a default that breaks them."""
    wrong = []
    for name, option in declared.items():
        try:
            field = option.field(name)
        except TypeError as error:
            wrong.append(f"option {name}: {error}")
            continue
        if not option.required:
            _, problem = check_value(field, option.default, f"the default of option {name}")
            wrong += [problem] if problem is not None else []
    return wrong


def from_document(document: Mapping[str, Any]) -> dict[str, Option]:
    """Declared options as a manifest has them. Raises msgspec.ValidationError."""
    return msgspec.convert(document, dict[str, Option])


def to_document(declared: Declared) -> dict[str, Any]:
    """What `from_document` reads."""
    made: dict[str, Any] = msgspec.to_builtins(dict(declared))
    return made
