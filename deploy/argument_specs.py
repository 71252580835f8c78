"""Writes what follows from the settings schema: `python -m deploy.argument_specs` (`--check` only compares).

Made are the defaults in group_vars/all/defaults.yml, meta/argument_specs.yml of every role, and the reference
page docs/reference/settings.md.
"""

from __future__ import annotations

import argparse
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from deploy.fleet.services import NAMES
from deploy.fleet.settings import PARTS, structs, variables_of
from deploy.fleet.vault_password import PROJECT
from deploy.rollout.batches import BASELINE, MONITORING
from mt5crs.settings.schema import Field, fields

_NOTE = "Made from src/mt5crs/settings by `python -m deploy.argument_specs`; edit there."
_TITLES = {
    "baseline": "Prepare a host: user, packages, time, journal, firewall, sshd, kernel settings",
    "hub": "Ship and start the Hub's service, which listens to the gateways and shows the fleet",
    "review": "Ship and start the Hub's queue of reviews",
    "monitoring": "Prometheus, Alertmanager and node exporter",
}


def rendered() -> dict[Path, str]:
    """Every generated file and its text."""
    files = {
        PROJECT / "group_vars" / "all" / "defaults.yml": _defaults(),
        PROJECT / "docs" / "reference" / "settings.md": _reference(),
    }
    for role in NAMES:
        files[PROJECT / "roles" / role / "meta" / "argument_specs.yml"] = _argument_specs(role)
    return files


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value)


def has_default(field: Field) -> bool:
    """Whether a default belongs into group_vars: keys never do, an absent value is its own default."""
    return not field.required and not field.kind.startswith("curve_") and field.default is not None


def _defaults() -> str:
    parts = ["---", f"# {_NOTE}", "# The weakest layer: any other file of group_vars/ wins.", ""]
    for part in PARTS:
        values = {
            name: _plain(field.default) for name, field in variables_of(part).items() if has_default(field)
        }
        if values:
            parts.append(_dump(values))
    return "\n".join(parts).rstrip() + "\n"


class _Dumper(yaml.SafeDumper):
    """Lists indented under their key, as yamllint wants them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Never leave a list at its key's own indentation, whatever `indentless` says."""
        del indentless
        super().increase_indent(flow, False)


def _dump(values: Mapping[str, Any]) -> str:
    return yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110
    )


def _argument_specs(role: str) -> str:
    options = {name: _option(field) for name, field in variables_of(role).items()}
    if role in NAMES:
        options[f"{role}_phase"] = {
            "description": "Which step to do; site.yml and rollback.yml set it.",
            "type": "str",
            "required": True,
            "choices": [
                *(["install"] if role in (BASELINE, MONITORING) else []),
                *("stage", "activate", "confirm", "put_back", "rollback"),
            ],
        }
    spec = {"short_description": _TITLES.get(role, f"Ship and start the {role}"), "options": options}
    return f"---\n# {_NOTE}\n" + _dump({"argument_specs": {"main": spec}})


def _option(field: Field) -> dict[str, Any]:
    option: dict[str, Any] = {"description": field.description, **_ansible_type(field.base_type)}
    # Defaults are in group_vars/all/defaults.yml, so every role sees a value unless it may be absent.
    option["required"] = field.required or has_default(field)
    if field.secret:
        option["no_log"] = True
    return option


def _ansible_type(base: Any) -> dict[str, Any]:
    origin = typing.get_origin(base) or base
    if origin is Literal:
        return {"type": "str", "choices": [str(choice) for choice in typing.get_args(base)]}
    if origin in (typing.Union, types.UnionType):
        kinds = [_ansible_type(argument) for argument in typing.get_args(base) if argument is not type(None)]
        return kinds[0] if len(kinds) == 1 else {"type": "raw"}
    simple: dict[Any, str] = {int: "int", float: "float", str: "str", bool: "bool"}
    if origin in simple:
        return {"type": simple[origin]}
    if isinstance(origin, type) and issubclass(origin, (list, tuple, set, frozenset)):
        element = next(iter(typing.get_args(base)), str)
        return {"type": "list", "elements": _ansible_type(_bare(element))["type"]}
    return {"type": "dict"}


def _bare(annotation: Any) -> Any:
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = annotation.__origin__
    return annotation


def _reference() -> str:
    lines = [
        "# Settings",
        "",
        f"<!-- {_NOTE} -->",
        "",
        "Each setting is an inventory variable (`group_vars/`, inventory, `-e`). Those with an environment",
        "name are written to the service's `.env`. Layers, weakest first: `group_vars/all`, the environment,",
        "the group, the host, `-e`. **live**: a change of it restarts nothing",
        "([live changes](../rollout.md#live-changes)).",
    ]
    for part in PARTS:
        lines += ["", f"## {part}", ""]
        lines += ["| variable | in `.env` | value | default | meaning |", "|---|---|---|---|---|"]
        for cls in structs(part):
            lines += [_row(field) for field in fields(cls)]
    return "\n".join(lines) + "\n"


def _row(field: Field) -> str:
    if field.secret:
        default = "secret" + (", required" if field.required else "")
    elif field.required:
        default = "required"
    else:
        default = f"`{msgspec.json.encode(field.default).decode()}`"
    variable = f"`{field.variable}`" if field.variable else "set by the deployment"
    env = f"`{field.env}`" if field.env else ""
    meaning = f"{'**live** ' if field.live else ''}{field.description}"
    cells = (variable, env, field.expected(), default, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check exit 1 and name those that are out of date."""
    parser = argparse.ArgumentParser(prog="python -m deploy.argument_specs")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a file is out of date"
    )
    options = parser.parse_args(arguments)
    stale = [
        path
        for path, text in rendered().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if options.check:
            print(f"{path.relative_to(PROJECT)} is out of date; run `python -m deploy.argument_specs`")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(PROJECT)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
