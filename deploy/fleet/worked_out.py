"""`hostvars` of a fleet that is read at one moment: what a host has is worked out once, whoever asks for it.

Ansible gathers a host's variables anew for every look of every other host at it, since a play may change them
meanwhile. Here nothing does, and each host looks at all others: addresses of peers, ports, keys.
`tests/unit/fleet/test_contract.py` compares every value with Ansible's own.
"""

from __future__ import annotations

from typing import Any


def hostvars(inventory: Any, variable_manager: Any, loader: Any) -> None:
    """Have expressions find the variables of other hosts, which the variable manager has for good."""
    from ansible._internal._templating._jinja_bits import Marker
    from ansible.vars.hostvars import HostVars, HostVarsVars

    class Host(HostVarsVars):  # type: ignore[misc]
        def __getitem__(self, key: str) -> Any:
            if key not in values[self._host]:
                value = super().__getitem__(key)
                if isinstance(value, Marker):
                    return value
                values[self._host][key] = value
            return values[self._host][key]

    class Hosts(HostVars):  # type: ignore[misc]
        def __getitem__(self, key: str) -> Any:
            if key not in found:
                data = self.raw_get(key)
                if isinstance(data, Marker):
                    return data
                found[key], values[key] = Host(data, loader=loader, host=key), {}
            return found[key]

    found: dict[str, Any] = {}
    values: dict[str, dict[str, Any]] = {}
    Hosts(inventory, variable_manager, loader)  # registers itself
