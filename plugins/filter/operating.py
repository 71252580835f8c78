"""Filters of operate.yml, for what `deploy.controller.operating` says of the tasks.

{{ ansible_run_tags | operating_tasks }}
{{ 'halt' | operating_problem({'why': 'drill'}) }}, {{ 'halt' | operating_words({'why': 'drill'}) }}
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.controller import operating


def operating_tasks(tags: Iterable[str]) -> list[str]:
    """The tasks among tags."""
    return [tag for tag in tags if tag in operating.TASKS]


def operating_acts(task: str) -> bool:
    """Whether a task changes something."""
    return operating.TASKS[task].acts


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name → function."""
        known: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
            "operating_problem": operating.problem,
            "operating_words": operating.words,
        }
        return {"operating_tasks": operating_tasks, "operating_acts": operating_acts, **known}
