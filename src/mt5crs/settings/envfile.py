"""The `.env` grammar, a subset that systemd's EnvironmentFile and this reader understand alike.

Lines are empty, a `#` comment, `KEY=value` or `KEY='any printable text'`. A value holds neither a single
quote, a backslash nor a control character, so that no reader needs an escape rule.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from mt5crs.settings.schema import AnySettings, SettingsError, did_you_mean, fields, load

_LINE = re.compile(r"(?P<key>[A-Z][A-Z0-9_]*)=(?:'(?P<quoted>[^'\\]*)'|(?P<bare>[A-Za-z0-9_./:@%+,=-]*))")

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def value_fits(value: str) -> bool:
    """Whether a value can be written to `.env` at all (in single quotes)."""
    return value.isprintable() and "'" not in value and "\\" not in value


def parse(text: str, *, origin: str = ".env") -> dict[str, str]:
    """Names and values of an `.env` text. SettingsError names every bad line by number, never its value."""
    values, problems = scan(text)
    if problems:
        raise SettingsError(origin, problems)
    return values


def scan(text: str) -> tuple[dict[str, str], list[str]]:
    """What `parse` reads, and what is wrong with the other lines, a sentence each."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or not line.isprintable():
            name = line.partition("=")[0]
            shown = f" ({name})" if re.fullmatch("[A-Za-z0-9_]+", name) and "=" in line else ""
            problems.append(
                f"line {number}{shown} is neither KEY=value, KEY='value' nor a # comment; "
                "values must not hold single quotes, backslashes or control characters"
            )
            continue
        if match["key"] in values:
            problems.append(f"line {number} sets {match['key']} a second time; keep one of them")
        values[match["key"]] = match["quoted"] if match["quoted"] is not None else match["bare"]
    return values, problems


def read(path: Path) -> dict[str, str]:
    """Names and values of an `.env` file; SettingsError as `parse`, OSError if it cannot be read.

    Lines may end as on Windows, as systemd has it. A byte order mark it takes for part of the first name.
    """
    return parse_bytes(path.read_bytes(), str(path))


def parse_bytes(content: bytes, origin: str) -> dict[str, str]:
    """What is in such a file; SettingsError as `read`."""
    if content.startswith(_MARKS):
        raise SettingsError(
            origin, ["it begins with a byte order mark; save it as UTF-8 without one (no BOM)"]
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            origin, [f"line {number} is not UTF-8 (but Latin-1, perhaps); save the file as UTF-8"]
        ) from None
    return parse(text.replace("\r\n", "\n"), origin=origin)


def load_env_text(cls: type[AnySettings], text: str, *, origin: str = ".env") -> AnySettings:
    """Settings from the text of an `.env` file; unlike the process environment, unknown names are errors."""
    values = parse(text, origin=origin)
    known = [field.env for field in fields(cls) if field.env is not None]
    unknown = [
        f"{name} in {origin} is unknown{did_you_mean(name, known)}" for name in values if name not in known
    ]
    heading = f"{cls.part or cls.__name__} settings in {origin}"
    try:
        made = load(cls, values)
    except SettingsError as error:
        raise SettingsError(heading, [*unknown, *error.problems]) from None
    if unknown:
        raise SettingsError(heading, unknown)
    return made
