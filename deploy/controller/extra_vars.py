"""What Ansible makes of `-e name=value`: it splits at spaces, and drops what is no pair without a word."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ansible.parsing.splitter import parse_kv


def leftover(options: Iterable[str]) -> str:
    """A sentence about the first `-e` of which Ansible would drop words; empty when there is none."""
    for option in options:
        if not option or option[0] in "@[{":
            continue
        taken = parse_kv(str(option))
        dropped = taken.pop("_raw_params", "")
        if not dropped:
            continue
        name, _, value = str(option).partition("=")
        alone = value and len(taken) == 1
        wanted = json.dumps({name.strip(): value}) if alone else '{"name": "some words"}'
        return (
            f"-e {option!r}: Ansible splits at spaces and would drop {dropped!r}; give it as JSON: "
            f"-e '{wanted}'. Nothing was changed"
        )
    return ""
