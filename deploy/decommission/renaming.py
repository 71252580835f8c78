"""Has another machine be a gateway in files of a fleet, and leaves every other byte as it is. Pure.

A scalar is replaced where PyYAML's parser found it: comments, quotes and spaces are not written anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from deploy.decommission.inventory_file import Loader, NotEditableError

REFERENCE: Final = "fleet_gateway"
"""The variable by which an Inf host names its gateway."""
_ADDRESSES: Final = ("ansible_host", "ansible_ssh_host", "fleet_address")


@dataclass(frozen=True)
class Renaming:
    """The gateway `former` at `old` is the gateway `new` at `address` from here on."""

    former: str
    new: str
    old: str
    address: str

    def in_inventory(self, text: str) -> str:
        """The inventory's text with the new host in the former one's place, wherever a group lists it.

        NotEditableError when the former does not stand there by its own name, with its address.
        """
        by_hand = f"write {self.new} and {self.address} in place of {self.former} and {self.old} yourself"
        try:
            tree = yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise NotEditableError(
                f"the inventory is no YAML ({' '.join(str(error).split())}); {by_hand}"
            ) from None
        found = [(node, now) for node, now in self._scalars(tree) if node.value != now]
        if self.new in _listed(tree):
            return text  # it was written already
        if not {self.former, self.old} <= {node.value for node, _ in found}:
            raise NotEditableError(
                f"the inventory does not list {self.former} by its own name with its address {self.old}; "
                f"{by_hand}"
            )
        return self._replaced(text, found, by_hand)

    def in_variables(self, text: str) -> str:
        """A file's text with every `fleet_gateway` that names the former naming the new. NotEditableError."""
        by_hand = f"write {self.new} in place of {self.former} yourself"
        try:
            found = [
                (node, now) for node, now in self._scalars(yaml.compose(text, Loader)) if node.value != now
            ]
        except yaml.YAMLError as error:
            raise NotEditableError(f"it is no YAML ({' '.join(str(error).split())}); {by_hand}") from None
        return self._replaced(text, found, by_hand)

    def _scalars(self, node: yaml.Node | None, within: str = "") -> Iterator[tuple[yaml.ScalarNode, str]]:
        """Every scalar that names the former or, below it, its address; and what stands there then."""
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from self._scalars(item)
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            if within == "hosts" and key.value == self.former:
                yield key, self.new
                yield from self._scalars(value, "former")
                continue
            if isinstance(value, yaml.ScalarNode):
                yield value, self._then(key.value, value.value, within)
            else:
                yield from self._scalars(value, key.value)

    def _then(self, name: Any, value: Any, within: str) -> Any:
        if name == REFERENCE and value == self.former:
            return self.new
        if within == "former" and name in _ADDRESSES and value == self.old:
            return self.address
        return value

    def _replaced(self, text: str, found: list[tuple[yaml.ScalarNode, str]], by_hand: str) -> str:
        changed = text
        for node, now in sorted(found, key=lambda one: -one[0].start_mark.index):
            begin, end = node.start_mark.index, node.end_mark.index
            changed = changed[:begin] + changed[begin:end].replace(node.value, now) + changed[end:]
        try:
            same = yaml.load(changed, Loader) == self._with(yaml.load(text, Loader))  # noqa: S506 -- safe
        except yaml.YAMLError:
            same = False
        if not same:
            raise NotEditableError(f"{self.former} is shared with another line (an anchor?); {by_hand}")
        return changed

    def _with(self, tree: Any, within: str = "") -> Any:
        if isinstance(tree, list):
            return [self._with(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        there = {}
        for key, value in tree.items():
            if within == "hosts" and key == self.former:
                there[self.new] = self._with(value, "former")
            elif isinstance(value, (dict, list)):
                there[key] = self._with(value, str(key))
            else:
                there[key] = self._then(key, value, within)
        return there


def _listed(node: yaml.Node | None, within: str = "") -> Iterator[str]:
    """Names of hosts, as groups list them."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if within == "hosts":
            yield key.value
        else:
            yield from _listed(value, key.value)
