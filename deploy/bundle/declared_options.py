"""The options that strategies in a wheel declare, read from their source: foreign code is not run for it."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path
from typing import Any

import msgspec

from deploy.bundle.wheelhouse import WheelError
from mt5crs.settings.options import Option, declaration_problems, from_document, to_document

ATTRIBUTE = "known_options"
_POSITIONAL = ("kind", "description", "default")


class UnreadableError(Exception):
    """What is declared is not known without running the code."""


def of_wheel(path: Path, loads: str) -> dict[str, Any] | None:
    """The options of the class `loads` (module:Class), as a manifest has them; None when it declares none.

    :raises UnreadableError: the source is not in the wheel, or does more than to list them
    :raises WheelError: a declaration is wrong
    """
    module, _, name = loads.partition(":")
    declared = _assigned(_tree(path, module), module, name)
    if declared is None:
        return None
    if not isinstance(declared, ast.Dict):
        raise UnreadableError(f"{ATTRIBUTE} of {loads} is no dictionary that is written out")
    found: dict[str, Any] = {}
    for key, value in zip(declared.keys, declared.values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            raise UnreadableError(f"{ATTRIBUTE} of {loads} has a key that is not written out")
        found[key.value] = _option(value, f"option {key.value} of {loads}")
    try:
        options = from_document(found)
    except msgspec.ValidationError as error:
        raise WheelError(
            f"{ATTRIBUTE} of {loads}: {error}. Correct it; docs/strategy.md explains it"
        ) from None
    wrong = declaration_problems(options)
    if wrong:
        raise WheelError(f"{ATTRIBUTE} of {loads}: {'; '.join(wrong)}. Correct the declaration")
    return to_document(options)


def _tree(path: Path, module: str) -> ast.Module:
    inside = module.replace(".", "/")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        for member in (f"{inside}.py", f"{inside}/__init__.py"):
            if member in names:
                try:
                    return ast.parse(archive.read(member))
                except (SyntaxError, ValueError) as error:
                    raise WheelError(f"{member} in {path.name} is no Python: {error}. Correct it") from None
    raise UnreadableError(f"the source of {module} is not in {path.name}")


def _assigned(tree: ast.Module, module: str, name: str) -> ast.expr | None:
    """What the class, or one that it derives from in its module, sets the attribute to."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise UnreadableError(f"class {name} is not written in {module} itself")
    waiting = [name]
    while waiting:
        found = classes.get(waiting.pop(0))
        if found is None:
            continue
        for node in found.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == ATTRIBUTE for target in targets):
                return node.value
        waiting += [base.id for base in found.bases if isinstance(base, ast.Name)]
    return None


def _option(value: ast.expr, shown: str) -> dict[str, Any]:
    called = value.func if isinstance(value, ast.Call) else None
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if not isinstance(value, ast.Call) or name != Option.__name__:
        raise UnreadableError(f"{shown} is no Option(…) that is written out")
    if len(value.args) > len(_POSITIONAL):
        raise WheelError(f"{shown}: only {', '.join(_POSITIONAL)} go without their name. Correct it")
    given = dict(zip(_POSITIONAL, value.args, strict=False))
    try:
        for keyword in value.keywords:
            if keyword.arg is None:
                raise ValueError
            given[keyword.arg] = keyword.value
        return {argument: ast.literal_eval(node) for argument, node in given.items()}
    except ValueError:
        raise UnreadableError(f"{shown} has a value that is not written out") from None
