"""Writes docs/reference/commands.md from the commands themselves: `python -m deploy.command_reference`.

`--check` only compares, and fails when the page is old.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from deploy.fleet.vault_password import PROJECT

PAGE = PROJECT / "docs" / "reference" / "commands.md"
_WIDTH = 100


def rendered() -> str:
    """The whole page."""
    from lab.cli import main as lab
    from mt5crs.__main__ import main as mt5crs
    from mt5crs_release.cli.arguments import parser as release

    sections = [
        "# Commands",
        "Made from the code by `make docs`. What people run on a fleet: [quick start](../quick-start.md).",
    ]
    for title, where, pages in (
        (
            "mt5crs",
            "Checks and operations, on every host and on the controller.",
            _click_help("mt5crs", mt5crs),
        ),
        ("mt5crs-release", "The host tool; both engines call it.", _argparse_help(release())),
        ("python -m lab", "A fleet of systemd hosts on this machine.", _click_help("python -m lab", lab)),
    ):
        sections += [f"## {title}", where]
        for name, text in pages:
            sections += [f"### {name}", f"```text\n{text.rstrip()}\n```"]
    return "\n\n".join(sections) + "\n"


def _click_help(
    name: str, group: click.Group, above: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Pages of a group and of all that is in it, with the words for help that the group itself has."""
    width = {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    word = name.removeprefix(f"{above.command_path} ") if above is not None else name
    context = click.Context(group, info_name=word, parent=above, **{**group.context_settings, **width})
    yield name, group.get_help(context)
    for each in group.list_commands(context):
        command = group.get_command(context, each)
        if isinstance(command, click.Group):
            yield from _click_help(f"{name} {each}", command, context)
        elif command is not None:
            inner = click.Context(command, info_name=each, parent=context, terminal_width=_WIDTH)
            yield f"{name} {each}", command.get_help(inner)


def _argparse_help(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    os.environ["COLUMNS"] = str(_WIDTH)
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command.prog, command.format_help()


def main(arguments: list[str] | None = None) -> int:
    """Write or compare; the exit status."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="only say whether the page is current")
    check = options.parse_args(arguments).check
    text = rendered()
    if check:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{_shown(PAGE)} is old: run `make docs`", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {_shown(PAGE)}")
    return 0


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT))


if __name__ == "__main__":
    raise SystemExit(main())
