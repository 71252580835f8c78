"""Makes Ansible compile an expression once, not anew for every host that has it and at every look at it.

A third of the time of reading a fleet, more with more hosts. The code of a template follows from its text
and from how the environment was told to read it; what is special about Ansible's (origins, trust, lookups) is
added when it runs. `tests/unit/fleet/test_contract.py` compares every value with Ansible's own.
"""

from __future__ import annotations

from typing import Any

_code: dict[tuple[Any, ...], Any] = {}


def once() -> None:
    """Have all expressions of this process compiled once from now on."""
    from ansible._internal._templating import _jinja_bits as bits

    if "compile" in vars(bits.AnsibleEnvironment):
        return
    base = bits.AnsibleEnvironment.compile

    def compile_(self: Any, source: Any, *named: Any, **more: Any) -> Any:
        # Other marks of blocks (`#jinja2:`) are in an overlay; one with a name is a file: Jinja keeps it.
        if named or more or self.overlayed or self._debuggable_template_source or not isinstance(source, str):
            return base(self, source, *named, **more)
        of = bits._TemplateCompileContext.current(optional=True)
        key = (type(self), str(source), of is not None and of.escape_backslashes)
        if key not in _code:
            _code[key] = base(self, source)
        return _code[key]

    bits.AnsibleEnvironment.compile = compile_
