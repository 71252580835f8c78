"""Gives a host another address in an inventory file and leaves every other byte as it is. Pure.

A scalar is replaced where PyYAML's parser found it: comments, quotes and spaces are not written anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import yaml

_NAMES: Final = ("ansible_host", "ansible_ssh_host", "fleet_address")
"""Variables of a host that are its address."""


class _Loader(yaml.SafeLoader):
    """Takes `!vault` and other tags of Ansible for text: here values are compared only."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: (suffix, loader.construct_scalar(node)))


class NotEditableError(ValueError):
    """The address cannot be changed here; the text says what to do by hand."""


def moved(text: str, hosts: Sequence[str], old: str, new: str) -> str:
    """The inventory's text with `new` wherever the own address of these hosts of one machine is `old`.

    Raises NotEditableError when the address is not written there, in so many words.
    """
    host, by_hand = hosts[0], f"write {new} in place of {old} yourself, then deploy"
    try:
        found = sorted(_addresses(yaml.compose(text, yaml.SafeLoader), hosts, old), reverse=True)
        wanted = _with(_read(text), hosts, old, new)
    except yaml.YAMLError as error:
        raise NotEditableError(
            f"the inventory is no YAML ({' '.join(str(error).split())}); {by_hand}"
        ) from None
    if not found:
        raise NotEditableError(
            f"the inventory does not say that {host} is {old}, in a line of its own below `hosts:` (`config "
            f"explain {host} fleet_address` tells where that is from); {by_hand}"
        )
    changed = text
    for begin, end in found:
        changed = changed[:begin] + changed[begin:end].replace(old, new) + changed[end:]
    try:
        same = _read(changed) == wanted
    except yaml.YAMLError:
        same = False
    if not same:
        raise NotEditableError(f"the address of {host} is shared with another line (an anchor?); {by_hand}")
    return changed


def _read(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader


def _addresses(node: yaml.Node | None, hosts: Sequence[str], old: str) -> Iterator[tuple[int, int]]:
    """Where the hosts' address stands, from and to, for every group that lists them with one."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value == "hosts" and isinstance(value, yaml.MappingNode):
            for name, of in value.value:
                if name.value in hosts and isinstance(of, yaml.MappingNode):
                    yield from (
                        (scalar.start_mark.index, scalar.end_mark.index)
                        for variable, scalar in of.value
                        if variable.value in _NAMES
                        and isinstance(scalar, yaml.ScalarNode)
                        and scalar.value == old
                    )
        else:
            yield from _addresses(value, hosts, old)


def _with(tree: Any, hosts: Sequence[str], old: str, new: str) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {
        key: {name: _of_host(of, old, new) if name in hosts else of for name, of in value.items()}
        if key == "hosts" and isinstance(value, dict)
        else _with(value, hosts, old, new)
        for key, value in tree.items()
    }


def _of_host(of: Any, old: str, new: str) -> Any:
    if not isinstance(of, dict):
        return of
    return {name: new if name in _NAMES and value == old else value for name, value in of.items()}
