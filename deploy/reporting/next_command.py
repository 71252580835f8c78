"""What to type next, as the last line of a run says it: the user's own command, changed where it must be."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.fleet.vault_password import inventories
from deploy.rollout.record import Rollout

_LOOKS = {"pyinfra": ("--dry",), "ansible": ("--check", "-C", "--diff", "-D", "-CD", "-DC")}
"""Options of a run that only looks."""
_TAKES_PLAN = {"pyinfra": "--data", "ansible": "-e"}
_SUFFIX = {"pyinfra": ".py", "ansible": ".yml"}
_FILE = {
    ("pyinfra", "deploy"): "deploy.py",
    ("pyinfra", "rollback"): "rollback.py",
    ("ansible", "deploy"): "site.yml",
    ("ansible", "rollback"): "rollback.yml",
}
_PROGRAM = {"pyinfra": "pyinfra", "ansible": "ansible-playbook"}


def again(rollout: Rollout) -> str:
    """The same command once more."""
    return shlex.join(_words(rollout))


def after_looking(rollout: Rollout) -> str:
    """The command that does what this one has shown: with its options, and its plan if it left one."""
    words = [word for word in _words(rollout) if word not in _LOOKS[rollout.engine]]
    if rollout.engine == "pyinfra" and not {"-y", "--yes"} & set(words):
        words.insert(1, "-y")
    if rollout.plan:
        words = [*_without_plan(words), _TAKES_PLAN[rollout.engine], f"plan={rollout.plan}"]
    return shlex.join(words)


def verify(rollout: Rollout) -> str:
    """The command that verifies the fleet."""
    return f"make verify INVENTORY={shlex.quote(str(Path(_inventory(rollout)).with_suffix('.yml')))}"


def _words(rollout: Rollout) -> list[str]:
    """What was typed, with the program's plain name; for a run that nobody typed, the usual words."""
    words = shlex.split(rollout.command)
    file = _FILE[rollout.engine, rollout.action]
    inventory = _inventory(rollout)
    if any(Path(word).name == file for word in words):
        words = [Path(words[0]).name, *words[1:]]
        if rollout.engine == "ansible" and not inventories(words):
            words[1:1] = ["-i", inventory]  # it came from ANSIBLE_INVENTORY, or is the default
        return words
    named = [inventory] if rollout.engine == "pyinfra" else ["-i", inventory]
    return [_PROGRAM[rollout.engine], *named, file]


def _inventory(rollout: Rollout) -> str:
    suffix = _SUFFIX[rollout.engine]
    if rollout.inventory:
        return str(Path(rollout.inventory).with_suffix(suffix))
    return f"inventory/{rollout.environment}{suffix}"


def _without_plan(words: Sequence[str]) -> Iterator[str]:
    """The words but for `--data plan=…` or `-e plan=…`."""
    options = ("--data", "-e", "--extra-vars")
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if not (word.startswith("plan=") and before in options) and not (
            word in options and after.startswith("plan=")
        ):
            yield word
