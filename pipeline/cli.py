"""`python -m pipeline`: run stages, and the steps of them that are the pipeline's own."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import tomllib

from deploy.bundle.archive import ROOT
from deploy.bundle.signing import SigningError
from deploy.controller.programs import MissingProgramError
from deploy.rollout.batches import STRATEGIES
from pipeline import built, covered, load, ratios, running
from pipeline.errors import PipelineError
from pipeline.order import STAGES
from pipeline.page import NAME
from pipeline.record import DIRECTORY, Step
from pipeline.scans import command as scans
from pipeline.source import source_of
from pipeline.stages import PRODUCTION, STAGING, Options, lab_of

LAST_RELEASE = Path("pipeline/last_release.json")
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 well, 1 not, 3 something was not checked."""
    options = _parser().parse_args(arguments)
    runners: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "scan": _scan,
        "coverage": _coverage,
        "verify": _verify,
        "ratios": _ratios,
        "keep-figures": _keep_figures,
        "load": _load,
    }
    try:
        return runners[options.command](options)
    except (PipelineError, MissingProgramError, SigningError) as error:
        print(f"pipeline: {error}", file=sys.stderr)
    except running.StoppedError as stopped:
        print(
            f"\npipeline: interrupted in `{stopped.step}`, which was asked to stop and has ended; "
            "the stage has no record, and the same command begins it again",
            file=sys.stderr,
        )
        return _INTERRUPTED
    except KeyboardInterrupt:
        print("\npipeline: interrupted; the same command begins again", file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = error.filename or "a file could not be written"
        remedy = "make room on that disk" if full else "look at that file"
        print(f"pipeline: {where}: {error.strerror or error}; {remedy}, then try again", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run stages; one that has a record of this commit is not run again")
    run.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)} (default: all)")
    run.add_argument("--again", action="store_true", help="run a stage although it has its record")
    run.add_argument("--strategy", choices=sorted(STRATEGIES), default=Options.strategy)
    run.add_argument("--staging", type=Path, default=STAGING, help="inventory (default: a lab fleet)")
    run.add_argument("--production", type=Path, default=PRODUCTION, help="inventory (default: a lab fleet)")
    run.add_argument("--per-second", type=int, default=Options.requests_per_s, help="of the load test")
    run.add_argument("--seconds", type=int, default=Options.load_s, help="of the load test")
    scan = commands.add_parser("scan", help="secrets, weaknesses, licences, fixes that are missing")
    scan.add_argument("what", nargs="*", metavar="WHAT", help="sources, built (default: both)")
    scan.add_argument("--json", type=Path, help="write what was found to this file")
    coverage = commands.add_parser("coverage", help="judge what `coverage json` wrote")
    coverage.add_argument("document", type=Path)
    coverage.add_argument(
        "--labs", action="store_true", help="lab tests were measured, too: judge everything"
    )
    coverage.add_argument("--json", type=Path, help="write the figures to this file")
    commands.add_parser("verify", help="is every built file as it was signed?")
    commands.add_parser("ratios", help="compare the figures with those of the last release")
    commands.add_parser("keep-figures", help="keep the figures as those of the last release")
    loaded = commands.add_parser("load", help="ask gateways so many times a second")
    loaded.add_argument("--inventory", type=Path, required=True)
    loaded.add_argument("--per-second", type=int, default=Options.requests_per_s)
    loaded.add_argument("--seconds", type=int, default=Options.load_s)
    loaded.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def _run(options: argparse.Namespace) -> int:
    unknown = [stage for stage in options.stages if stage not in STAGES]
    if unknown:
        raise PipelineError(f"there is no stage {unknown[0]}: name some of {', '.join(STAGES)}")
    for name in ("staging", "production"):
        inventory: Path = getattr(options, name)
        if lab_of(inventory) is None and not (ROOT / inventory).is_file():
            raise PipelineError(
                f"{inventory} is no file: name the inventory of {name}, as inventory/{name}.yml"
            )
    chosen = Options(
        strategy=options.strategy,
        staging=options.staging,
        production=options.production,
        requests_per_s=options.per_second,
        load_s=options.seconds,
    )
    for stage in options.stages or STAGES:
        done = None if options.again or options.stages else running.standing(ROOT, stage)
        if done is not None:
            print(f"=== {stage}: {done.outcome} already, {done.began}, of this commit", flush=True)
            continue
        made = running.run(ROOT, stage, chosen)
        print(f"=== {stage}: {made.outcome} in {made.seconds:.0f} s; {DIRECTORY / NAME}", flush=True)
        if made.outcome == "failed":
            raise PipelineError(_why(stage, made.steps))
        for point in made.unchecked:
            print(f"=== {stage}: {point}; production will be refused", flush=True)
    return 0


def _why(stage: str, steps: Sequence[Step]) -> str:
    failed = next(step for step in steps if step.outcome == "failed")
    where = f" (output: {DIRECTORY / failed.log})" if failed.log else ""
    why = failed.detail or "no reason given"
    return f"{stage} failed at `{failed.name}`: {why}{where}; again: make pipeline-{stage}"


def _scan(options: argparse.Namespace) -> int:
    what = options.what or ["sources", "built"]
    unknown = [each for each in what if each not in ("sources", "built")]
    if unknown:
        raise PipelineError(f"there is nothing to scan called {unknown[0]}: name sources, built or both")
    return scans.run(ROOT, what, options.json, print)


def _coverage(options: argparse.Namespace) -> int:
    try:
        packages = covered.by_package(msgspec.json.decode(options.document.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{options.document} cannot be read ({error}): run `make coverage`") from None
    if not options.labs:
        left_out = sorted(set(packages) - set(covered.without_labs(packages)))
        packages = covered.without_labs(packages)
    print("\n".join(covered.table(packages)))
    if not options.labs and left_out:
        print(f"judged by `make coverage-labs`: {', '.join(left_out)}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(covered.figures(packages))) + b"\n")
    short = covered.shortfalls(packages)
    for each in short:
        print(f"pipeline: coverage: {each}", file=sys.stderr)
    return 1 if short else 0


def _verify(_: argparse.Namespace) -> int:
    for line in built.check(ROOT):
        print(line)
    return 0


def _ratios(_: argparse.Namespace) -> int:
    now = _measured()
    kept = ROOT / LAST_RELEASE
    if not kept.is_file():
        print("no release before this one kept its figures, so there is nothing to compare with")
        return 0
    try:
        release = ratios.of_release(msgspec.json.decode(kept.read_bytes()))
    except msgspec.DecodeError as error:
        raise PipelineError(f"{LAST_RELEASE} cannot be read ({error}): restore it from git") from None
    print(f"against {release.version} ({release.commit[:12]}):")
    print("\n".join(ratios.lines(now, release.figures)))
    worse = ratios.worse(now, release.figures)
    for each in worse:
        print(f"pipeline: worse than {release.version}: {each}")
    return 1 if worse else 0


def _keep_figures(_: argparse.Namespace) -> int:
    now, source = _measured(), source_of(ROOT)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    release = ratios.Release(
        version=version, commit=source.commit, figures=[each for each in now if each.unit == ratios.RATIO]
    )
    (ROOT / LAST_RELEASE).write_bytes(msgspec.json.format(msgspec.json.encode(release)) + b"\n")
    print(f"{LAST_RELEASE}: {len(release.figures)} ratios of {version}")
    return 0


def _measured() -> list[ratios.Figure]:
    path = ROOT / DIRECTORY / "bench.json"
    try:
        return ratios.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise PipelineError(
            f"{path} has no figures ({why}): "
            f"run `make bench BENCH='--quick --json {DIRECTORY / 'bench.json'}'`"
        ) from None


def _load(options: argparse.Namespace) -> int:
    return load.run(options.inventory, options.per_second, options.seconds, options.json, print)
