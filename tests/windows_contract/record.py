"""The file of recorded answers; `python -m tests.windows_contract.record` asks for them and writes it.

One line for each answer, so that a difference can be read.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.wine import Windows, open_windows
from tests.windows_contract.cases import CASES

RECORDED = Path(__file__).resolve().parents[1] / "unit/broker/recorded/metatrader5.json"


def text_of(facts: dict[str, Any]) -> str:
    """The file's content for what `ask.py` has found."""
    parts = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines = ",\n".join(f"  {_json(key)}: {_json(each)}" for key, each in value.items())
            parts.append(f"{_json(name)}: {{\n{lines}\n}}")
        else:
            parts.append(f"{_json(name)}: {_json(value)}")
    return "{" + ",\n".join(parts) + "}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def asked(windows: Windows, cases: list[str]) -> dict[str, Any]:
    """What the real package is, and what it answers to the cases."""
    inside = replace(windows, shared={Path(__file__).parent: "/opt/contract"})
    done = inside.python(r"Z:\opt\contract\ask.py", stdin=json.dumps(cases), timeout_s=120)
    if done.returncode != 0:
        raise LabError(f"the package could not be asked: {done.stderr[-1000:]}")
    return dict(json.loads(done.stdout))


def main() -> None:
    """Ask, and write the file."""
    try:
        facts = asked(open_windows(), CASES)
    except LabError as error:
        sys.exit(f"nothing was recorded: {error}")
    RECORDED.write_text(text_of(facts), encoding="utf-8")
    print(f"{RECORDED}: MetaTrader5 {facts['package']}")


if __name__ == "__main__":
    main()
