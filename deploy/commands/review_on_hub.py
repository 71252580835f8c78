"""`mt5crs --inventory … review submit`, and `show` there: the Hub's queue, from the controller."""

from __future__ import annotations

import getpass
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.named_fleet import fleet_of
from mt5crs.foreign_text import shown
from mt5crs.operate.chosen import Chosen
from mt5crs.review import local_gate, making, queue, record, submission
from mt5crs.review.binding import bundles_of, content_of
from mt5crs.review.decision import Policy
from mt5crs.review.model import ReviewError
from mt5crs.review.tree import changed, tree_of
from mt5crs_release.bundles.bundle import STRATEGY, peek_manifest
from mt5crs_release.bundles.verdict import SUFFIX

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_PAUSE_S = 2.0


def fleet() -> Fleet | None:
    """The fleet of `--inventory`; None: none was named."""
    chosen = click.get_current_context().find_root().obj
    return fleet_of(chosen.inventory) if isinstance(chosen, Chosen) else None


def submit(
    of: Fleet,
    directory: Path,
    revision: str | None,
    base: str | None,
    policy: Policy,
    bundles: tuple[Path, ...],
) -> tuple[str, dict[str, Any]]:
    """Run the programs of gate 1 here and hand all over; return the id and what the Hub says.

    :raises ReviewError: it cannot be made, or the Hub does not take it
    """
    _hub("host_of", of)  # better told before the programs have run
    tree = tree_of(directory, revision)
    before = tree_of(directory, base) if base else None
    named = bundles_of(bundles)
    for bundle in named:
        if (peek_manifest(bundle) or {}).get("kind") == STRATEGY:
            raise ReviewError(
                f"{bundle.name} is a strategy's, whose sources the Hub does not know; use `mt5crs review run`"
            )
        content_of(bundle, tree)  # better told before it is sent
    files = changed(tree, before)
    local = local_gate.judge(tree, files, making.cache_directory())
    made = submission.of(
        tree,
        before,
        policy,
        local.programs,
        named,
        tool=version("mt5crs"),
        by=f"{getpass.getuser()}@{platform.node()}",
    )
    return made.id, _hub("put", of, made.id, submission.packed(made))


def answer_of(of: Fleet, name: str, wait_s: float) -> tuple[dict[str, Any], queue.Answer | None]:
    """What the Hub says of a submission, waited for; the answer is None while there is none.

    :raises ReviewError: the Hub cannot be asked, or says what cannot be read
    """
    until = time.monotonic() + wait_s
    while True:
        told = _hub("look", of, name)
        if told["state"] != "waiting" or time.monotonic() >= until:
            break
        time.sleep(_PAUSE_S)
    answer = queue.read(told["answer"]) if "answer" in told else None
    return told, answer


def keep(answer: queue.Answer, out: Path, bundles: tuple[Path, ...]) -> list[Path]:
    """Write the record here, and each verdict beside the bundle of its name; return the files.

    :raises ReviewError: a bundle that was named has no verdict in it
    """
    written = []
    if answer.record is not None:
        written.append(record.write(answer.record, out))
    for bundle in bundles_of(bundles):
        if bundle.name not in answer.verdicts:
            raise ReviewError(f"the Hub signed no verdict on {bundle.name}. {answer.unsigned or 'Submit it'}")
        path = bundle.with_name(bundle.name + SUFFIX)
        record.whole(path, answer.verdicts[bundle.name].encode())
        written.append(path)
    return written


def lines(name: str, told: dict[str, Any], answer: queue.Answer | None) -> list[str]:
    """What people are told of a submission."""
    if answer is None:
        if told["state"] == "waiting":
            return [f"review {name}: {told['ahead']} before it; mt5crs --inventory … review show {name}"]
        return [f"the Hub knows no review {name}; hand one over with `mt5crs --inventory … review submit`"]
    if answer.record is None:
        return [f"review {answer.id}: no verdict: {shown(answer.error)}"]
    made = [f"review {answer.id}, submitted by {shown(answer.by)}", *record.lines(answer.record)]
    return [*made, f"  {answer.unsigned}"] if answer.unsigned else made


def _hub(verb: str, of: Fleet, *arguments: Any) -> Any:
    from deploy.reviewing import hub

    try:
        return getattr(hub, verb)(of, *arguments)
    except hub.QueueError as error:
        raise ReviewError(str(error)) from None
