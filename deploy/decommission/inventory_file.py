"""Takes a host out of an inventory file and leaves every other line, comments included, as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """Takes `!vault` and other tags of Ansible for text: here values are compared only."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: (suffix, loader.construct_scalar(node)))


class NotEditableError(ValueError):
    """The host cannot be taken out here; the text says what to do by hand."""


def without(text: str, host: str) -> str:
    """The inventory's text without `host`, wherever a group lists it.

    Raises NotEditableError when it is not listed by its own name, on lines of its own.
    """
    by_hand = (
        f"take {host} out of the inventory yourself, make keys (`python -m deploy.keys --prune`) and deploy"
    )
    try:
        found = list(_listed(yaml.compose(text, yaml.SafeLoader), host))
        wanted = _dropped(_read(text), host)
    except yaml.YAMLError as error:
        raise NotEditableError(
            f"the inventory is no YAML ({' '.join(str(error).split())}); {by_hand}"
        ) from None
    if not found:
        raise NotEditableError(f"the inventory does not list {host} by its own name; {by_hand}")
    lines = text.splitlines(keepends=True)
    for first, last in sorted(found, reverse=True):
        del lines[first : last + 1]
    changed = "".join(lines)
    try:
        same = _filled(_read(changed)) == _filled(wanted)
    except yaml.YAMLError:
        same = False
    if not same:
        raise NotEditableError(f"{host} does not stand on lines of its own; {by_hand}")
    return changed


def _read(text: str) -> Any:
    return yaml.load(text, Loader)  # noqa: S506 -- a SafeLoader


def _listed(node: yaml.Node | None, host: str) -> Iterator[tuple[int, int]]:
    """First and last line (from 0) of every entry of the host below a key `hosts`."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value == "hosts" and isinstance(value, yaml.MappingNode):
            for name, of in value.value:
                if name.value == host:
                    yield name.start_mark.line, max(name.start_mark.line, _end(of))
        else:
            yield from _listed(value, host)


def _end(node: yaml.Node) -> int:
    """The last line of a node that holds something: the end of a block is where the next begins."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max((_end(value) for _, value in node.value), default=node.start_mark.line)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max((_end(value) for value in node.value), default=node.start_mark.line)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return int(node.end_mark.line) - 1
    return int(node.end_mark.line)


def _dropped(tree: Any, host: str) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {
        key: {name: of for name, of in value.items() if name != host}
        if key == "hosts" and isinstance(value, dict)
        else _dropped(value, host)
        for key, value in tree.items()
    }


def _filled(tree: Any) -> Any:
    """A group without hosts is the same whether it lists none or has nothing after the colon."""
    if not isinstance(tree, dict):
        return tree
    return {key: {} if value is None else _filled(value) for key, value in tree.items()}
