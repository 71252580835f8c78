"""Evaluates Rego files: facts and texts in, what each says out, as JSON over standard input and output.

A process of its own (`python -m deploy.policy.rego`): the evaluator is a library in C++ that writes its
complaints where it likes, and a file of a user may keep it busy or bring it down.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

_PACKAGE = re.compile(r"^\s*package\s+([A-Za-z_][\w.]*)\s*(#.*)?$", re.MULTILINE)
_MESSAGE = re.compile(r"\(errormsg \d+:(?P<text>.*)\)")
_PLACE = re.compile(r"\(error \d+:.*\|(?P<at>\d+)\|\d+$", re.MULTILINE)


class _NotJudgedError(Exception):
    """A file cannot be evaluated: why, and at which offset of it."""

    def __init__(self, why: str, at: int = 0) -> None:
        super().__init__(why)
        self.at = at


def evaluate(name: str, text: str, facts: Any) -> dict[str, Any]:
    """`rule`, `example`, what is `broken` by the facts and `by_example`; or `error` and its `line`."""
    try:
        found = _PACKAGE.search(text)
        if found is None:
            raise _NotJudgedError("its first statement is not `package NAME`")
        package, start = found.group(1), found.start(1)
        said: dict[str, Any] = {}
        for key in ("rule", "example"):
            said[key] = _ask(name, text, f"data.{package}.{key}", {}, start)
        said["broken"] = _ask(name, text, f"data.{package}.broken", facts, start)
        said["by_example"] = _ask(name, text, f"data.{package}.broken", said["example"], start)
    except _NotJudgedError as error:
        return {"error": str(error), "line": text.encode()[: error.at].count(b"\n") + 1}
    return said


def _ask(name: str, text: str, query: str, facts: Any, start: int) -> Any:
    from regopy import Interpreter, RegoError  # type: ignore[import-untyped]

    interpreter = Interpreter()
    interpreter.strict_built_in_errors = True
    try:
        interpreter.add_module(name, text)
        interpreter.set_input(facts)
        output = interpreter.query(f"x := {query}")
        if not output.ok():
            raise _NotJudgedError(f"{query} ends with an error", start)
        told = {} if str(output) == "undefined" else json.loads(str(output))
    except RegoError as error:
        message, place = _MESSAGE.search(str(error)), _PLACE.search(str(error))
        why = message["text"] if message else " ".join(str(error).split())[:200]
        raise _NotJudgedError(why, int(place["at"]) if place else 0) from None
    except ValueError:
        raise _NotJudgedError(
            f"{query} gives no answer: it calls a function that there is not, perhaps", start
        ) from None
    if not isinstance(told, dict) or "x" not in told.get("bindings", {}):
        raise _NotJudgedError(f"it does not say {query.rpartition('.')[2]}", start)
    return told["bindings"]["x"]


def main() -> int:
    """Answer what was asked on standard input; exit status 0."""
    asked = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(2, 1)  # the evaluator says what it does not like on standard output, too
    told = {name: evaluate(name, text, asked["facts"]) for name, text in asked["files"].items()}
    with os.fdopen(answer, "w", encoding="utf-8") as out:
        json.dump(told, out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
