"""`mt5crs review`: judge what changed before it is released."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import msgspec

from mt5crs.operate.chosen import Chosen, on_the_controller
from mt5crs.operate.report import one_line_errors
from mt5crs.review import figures, making, record, verdict
from mt5crs.review.activation import activate
from mt5crs.review.benchmark import bench
from mt5crs.review.binding import bundles_of, content_of
from mt5crs.review.decision import Policy
from mt5crs.review.model import ReviewError
from mt5crs.review.stats import stats
from mt5crs.review.tree import tree_of
from mt5crs.review.watching import watch
from mt5crs.settings.review import ReviewSettings
from mt5crs.settings.schema import SettingsError, load

_ON_HUB: Final = "deploy.commands.review_on_hub"

_directory = click.option(
    "--out",
    default=record.DIRECTORY,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where records are kept.",
)

_tree = click.option(
    "--tree",
    "directory",
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A repository of git (default: this directory).",
)
_revision = click.option(
    "--revision", metavar="REV", help="Review this revision (default: the files as they are)."
)
_base = click.option("--base", metavar="REV", help="Review only what differs from it (default: everything).")
_threshold = click.option(
    "--threshold", default=90, show_default=True, type=click.IntRange(0, 100), help="Lowest good score."
)
_external = click.option(
    "--external/--no-external",
    "external_required",
    default=True,
    help="Whether the verdict needs the external reviewer (production: yes, lab: no).",
)

_OF_THE_HUB = ("show", "submit")


@click.group()
def review() -> None:
    """Review a change: rules here, a reviewer elsewhere, one verdict.

    With `mt5crs --inventory … review submit|show`: by the Hub's queue.
    """
    context = click.get_current_context()
    if context.find_root().obj is not None and context.invoked_subcommand not in _OF_THE_HUB:
        raise click.UsageError(
            f"review {context.invoked_subcommand} is done here; --inventory goes with show and submit"
        )


review.add_command(activate)
review.add_command(bench)
review.add_command(stats)
review.add_command(watch)


@review.command()
@_tree
@_revision
@_base
@_threshold
@_external
@click.option(
    "--untrusted", is_flag=True, help="Nobody vouches for this change: nothing is spent on it or kept of it."
)
@click.option(
    "--within-budget",
    is_flag=True,
    help="Ask about as much as there is money for, the riskiest files first, and not nothing when there is "
    "not enough for all. What is answered is kept: the next run goes on.",
)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check that it was made of what is reviewed, and put a signed verdict beside it. dist/latest.json "
    "stands for all that `make bundle` built last, dist/strategies/NAME.json for a strategy's. May be "
    "repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@_directory
def run(
    directory: Path,
    revision: str | None,
    base: str | None,
    threshold: int,
    external_required: bool,
    untrusted: bool,
    within_budget: bool,
    bundles: tuple[Path, ...],
    as_json: bool,
    out: Path,
) -> None:
    """Review, and keep the record. Exit status 0: PASSED; 1: FAILED, or no verdict."""
    if bundles and (base is not None or untrusted):
        raise click.UsageError(
            "--bundle goes with a trusted review of everything (the cache knows what has not changed): leave "
            "--base and --untrusted out"
        )
    with one_line_errors(SettingsError, status=78), one_line_errors(ReviewError, OSError):
        settings, cache = load(ReviewSettings), making.cache_directory()
        policy = Policy(threshold=threshold, external_required=external_required)
        record.place(out)  # before anything is paid for
        tree = tree_of(directory, revision)
        contents = {bundle: content_of(bundle, tree) for bundle in bundles_of(bundles)}
        before = tree_of(directory, base) if base else None
        gate = making.external_gate(
            settings, cache, trusted=not untrusted, within_budget=within_budget, say=_say
        )
        made = making.make(tree, before, policy, cache, gate.ask)
        path = record.write(made, out)
        signed = [
            verdict.write(made, content, bundle, verdict.signing_key(tree.repository))
            for bundle, content in contents.items()
        ]
    _show(made, as_json=as_json)
    if not as_json:
        click.echo(f"  record: {path}, {path.with_suffix('.sarif').name}")
        for each in signed:
            click.echo(f"  verdict: {each}")
    figures.keep(made, settings, cache, making.budget(settings, cache))
    raise SystemExit(0 if made.decision.result == "PASSED" else 1)


@review.command()
@_tree
@_revision
@_base
@_threshold
@_external
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Have the Hub check that it was made of the tree, and sign a verdict on it. May be repeated.",
)
@click.option(
    "--wait",
    "wait_s",
    default=0.0,
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    help="Wait so long for the answer, show it and put verdicts beside the bundles.",
)
@_directory
def submit(
    directory: Path,
    revision: str | None,
    base: str | None,
    threshold: int,
    external_required: bool,
    bundles: tuple[Path, ...],
    wait_s: float,
    out: Path,
) -> None:
    """Hand a tree to the Hub's queue: its programs run here, the reviewer is asked from there.

    On the controller, with `mt5crs --inventory …`. Exit status 0: it was taken (with --wait: PASSED); 1: it
    was not, or no verdict PASSED.
    """
    if bundles and base is not None:
        raise click.UsageError("--bundle goes with a review of everything: leave --base out")
    fleet = _of_hub().fleet() if _is_named() else None
    if fleet is None:
        raise click.UsageError("name the fleet: mt5crs --inventory inventory/<environment>.yml review submit")
    with one_line_errors(ReviewError, OSError):
        policy = Policy(threshold=threshold, external_required=external_required)
        name, told = _of_hub().submit(fleet, directory, revision, base, policy, bundles)
    words = {"taken": "taken in", "waiting": "waits already", "answered": "was answered before"}
    ahead = f", {told['ahead']} before it" if "ahead" in told else ""
    click.echo(f"review {name}: {words.get(told['state'], told['state'])}{ahead}", err=True)
    if wait_s:
        _show_of_hub(fleet, name, wait_s, bundles, out, everything=False, as_json=False)


@review.command()
@click.argument("which", required=False)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --inventory: put the verdict that the Hub signed beside it. May be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="All findings, not only the worst.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@_directory
def show(which: str | None, bundles: tuple[Path, ...], everything: bool, as_json: bool, out: Path) -> None:
    """Show a record: the one of a tree (its first characters), or the newest.

    With `mt5crs --inventory …`: what the Hub says of a submission (by its id; default: its newest answer),
    which is kept here too. Exit status 0 there: PASSED; 1: anything else.
    """
    fleet = _of_hub().fleet() if _is_named() else None
    if fleet is not None:
        _show_of_hub(fleet, which or "", 0.0, bundles, out, everything=everything, as_json=as_json)
    if bundles:
        raise click.UsageError("--bundle goes with --inventory; here `mt5crs review run --bundle` signs")
    with one_line_errors(ReviewError, OSError):
        kept = sorted(out.glob(f"{which or ''}*.json"), key=lambda path: path.stat().st_mtime)
        if not kept:
            about = f" of a tree {which}" if which else ""
            raise ReviewError(f"{out} holds no record{about}; make one with `mt5crs review run`")
        made = record.read(kept[-1])
    _show(made, as_json=as_json)
    if everything and not as_json:
        _show_rest(made)


@review.command()
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--signers",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of allowed signers, as /etc/mt5crs/allowed_signers of a host.",
)
@click.option(
    "--threshold", default=90, show_default=True, type=click.IntRange(0, 100), help="Lowest good score."
)
@click.option(
    "--external/--no-external", default=True, help="Whether it must vouch for a live external review."
)
def verify(bundle: Path, signers: Path, threshold: int, external: bool) -> None:
    """Check the verdict beside a bundle, as a host does. Exit status 0: good; 1: a host would refuse it."""
    with one_line_errors(ReviewError, OSError):
        click.echo(verdict.verify(bundle, signers, threshold=threshold, external=external))


def _is_named() -> bool:
    return isinstance(click.get_current_context().find_root().obj, Chosen)


def _of_hub() -> Any:
    """The controller's side of the Hub's queue. UsageError on a host, which has none."""
    on_the_controller()
    return importlib.import_module(_ON_HUB)


def _show_rest(made: record.Record) -> None:
    for finding in made.decision.findings[record.SHOWN :]:
        click.echo(f"     {record.line(finding)}")


def _show_of_hub(
    fleet: Any,
    name: str,
    wait_s: float,
    bundles: tuple[Path, ...],
    out: Path,
    *,
    everything: bool,
    as_json: bool,
) -> NoReturn:
    with one_line_errors(ReviewError, OSError):
        told, answer = _of_hub().answer_of(fleet, name, wait_s)
        written = _of_hub().keep(answer, out, bundles) if answer is not None else []
    if as_json and answer is not None:
        click.echo(msgspec.json.format(msgspec.json.encode(answer, order="sorted")).decode())
    else:
        click.echo("\n".join(_of_hub().lines(name, told, answer)))
        if everything and answer is not None and answer.record is not None:
            _show_rest(answer.record)
        for path in written:
            click.echo(f"  kept: {path}")
    good = answer is not None and answer.record is not None and answer.record.decision.result == "PASSED"
    raise SystemExit(0 if good else 1)


def _say(what: str) -> None:
    click.echo(what, err=True)


def _show(made: record.Record, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(made, order="sorted")).decode())
    else:
        click.echo("\n".join(record.lines(made)))
