"""Inventories are resolved hundreds of times in the unit tests, each time of the same templates.

Ansible compiles an expression for each host and variable that it meets it in; here once in a process, which
takes half the time.
"""

from __future__ import annotations

import sys
from typing import Any


def once() -> None:
    """Have Ansible compile a text once; where there is no Jinja, no inventory is resolved either."""
    try:
        from jinja2.environment import Environment
    except ImportError:
        return
    compile_anew: Any = Environment.compile
    known: dict[tuple[object, ...], Any] = {}

    def compiled(self: Environment, source: Any, *of_file: Any, **options: Any) -> Any:
        ansible: Any = sys.modules.get("ansible._internal._templating._jinja_bits")
        if ansible is None or type(self) is not ansible.AnsibleEnvironment or of_file or options:
            return compile_anew(self, source, *of_file, **options)
        context = ansible._TemplateCompileContext.current(optional=True)
        way = (self.trim_blocks, self.lstrip_blocks, self.variable_start_string, self.block_start_string)
        key = (str(source), way, context and context.escape_backslashes)
        if key not in known:
            known[key] = compile_anew(self, source)
        return known[key]

    Environment.compile = compiled  # type: ignore[assignment,method-assign]
