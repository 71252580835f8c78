"""Runs on Python for Windows: asks the MetaTrader5 package what it is and what it answers without a terminal.

Standard input: a JSON list of expressions over the package's names. Standard output: one JSON object.
"""

import datetime
import json
import math
import sys
from typing import Any


def names(package: Any) -> dict[str, Any]:
    """What an expression may use: the package's functions, and a request that it takes."""
    functions = {name: getattr(package, name) for name in dir(package) if not name.startswith("_")}
    return {
        **functions,
        "datetime": datetime,
        "UTC": datetime.timezone.utc,
        "nan": math.nan,
        "inf": math.inf,
        "REQUEST": {
            "action": 1, "magic": 7, "symbol": "EURUSD", "volume": 0.1, "type": 0, "price": 1.1, "sl": 1.0,
            "tp": 1.2, "deviation": 10, "type_filling": 1, "type_time": 0, "comment": "c",
        },
    }  # fmt: skip


def answer(package: Any, expression: str, known: dict[str, Any]) -> dict[str, Any]:
    """What an expression gives, or which exception; and what `last_error` says then."""
    found: dict[str, Any] = {"answer": None, "raised": None, "error": None}
    try:
        found["answer"] = repr(eval(expression, known))  # noqa: S307
    except Exception as error:
        found["raised"] = type(error).__name__
    try:
        found["error"] = list(package.last_error())
    except Exception as error:
        found["error"] = type(error).__name__
    return found


def main() -> None:
    """Answer on standard output."""
    import MetaTrader5 as package  # noqa: N813
    import numpy

    known = {**names(package), "numpy": numpy}
    public = {name: value for name, value in known.items() if hasattr(package, name)}
    facts = {
        "package": package.__version__,
        "constants": {name: value for name, value in public.items() if isinstance(value, int)},
        "functions": {
            name: " ".join((value.__doc__ or "").split())
            for name, value in public.items()
            if callable(value) and not isinstance(value, type)
        },
        "types": {
            name: list(value.__match_args__) for name, value in public.items() if isinstance(value, type)
        },
        "answers": {
            expression: answer(package, expression, known) for expression in json.loads(sys.stdin.read())
        },
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
