"""Command lines of which pyinfra itself would make a traceback: refused in a sentence instead."""
# mypy: disable-error-code="misc"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from pyinfra.api.exceptions import PyinfraError

OPERATE = "operate.py"
FILES = ("deploy.py", "rollback.py", OPERATE)


def refuse_what_pyinfra_stumbles_over() -> None:
    """PyinfraError for the command line of this process, if it is for one of our files."""
    context = click.get_current_context(silent=True)
    options = dict(context.params) if context is not None else {}
    if is_ours(options):
        refuse_wrong_values(options)


def is_ours(options: Mapping[str, Any]) -> bool:
    """Whether pyinfra was asked to run a file of ours."""
    return bool(set(FILES) & {Path(str(name)).name for name in options.get("operations") or ()})


def refuse_wrong_values(options: Mapping[str, Any]) -> None:
    """PyinfraError for an inventory that is no Python, and for `--data` without a value."""
    inventory = Path(str(options.get("inventory") or ""))
    if inventory.is_file() and inventory.suffix != ".py":
        wanted = inventory.with_suffix(".py")
        remedy = (
            f"use {wanted}" if wanted.is_file() else f"copy inventory/staging.py to {wanted} and use that"
        )
        raise PyinfraError(
            f"{inventory} is an inventory for Ansible; pyinfra takes the .py beside it: {remedy}. "
            "Nothing was changed"
        )
    for given in options.get("data") or ():
        if "=" not in str(given):
            raise PyinfraError(f"--data {given} has no value: write --data {given}=…. Nothing was changed")


def refuse_unanswerable(options: Mapping[str, Any]) -> None:
    """PyinfraError when pyinfra would ask before it begins, and there is nobody to answer."""
    if not options.get("yes") and not options.get("dry") and not has_terminal():
        raise PyinfraError(
            "pyinfra asks before it begins, and there is no terminal to answer on; add -y to go ahead "
            "unasked, or --dry to look only. Nothing was changed"
        )


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()
