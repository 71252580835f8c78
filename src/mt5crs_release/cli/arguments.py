"""The words that the tool takes."""

from __future__ import annotations

import argparse
from pathlib import Path

from mt5crs_release.desired.name import is_instance_name
from mt5crs_release.storage.paths import default_root
from mt5crs_release.version import SOURCES, VERSION

_LOCK_WAIT_S = 30.0
_KEEP = 3
_CONFIRM_TIMEOUT_S = 120.0


def parser() -> argparse.ArgumentParser:
    """Build the command line of the tool; the command reference is made from it."""
    whole = argparse.ArgumentParser(
        prog="mt5crs-release",
        description="Stages, activates, confirms and rolls back generations of a service on this host.",
        epilog="Exit status: 0 ok, 1 failed (the previous state runs again, or it says why not), 2 refused.",
    )
    whole.add_argument("--version", action="version", version=f"mt5crs-release {VERSION} (sources {SOURCES})")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object")
    common.add_argument(
        "--instance",
        type=_instance,
        default="",
        metavar="NAME",
        help="the services of this instance, named without it (strategy for strategy@NAME)",
    )
    common.add_argument(
        "--root", default=str(default_root()), metavar="DIR", help="work below DIR (for tests)"
    )
    locking = argparse.ArgumentParser(add_help=False)
    locking.add_argument(
        "--lock-timeout",
        type=_seconds,
        default=_LOCK_WAIT_S,
        metavar="S",
        help="wait for another run (default 30)",
    )
    dry = argparse.ArgumentParser(add_help=False)
    dry.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
    formats = argparse.ArgumentParser(add_help=False)
    formats.add_argument(
        "--accept-state-format",
        type=int,
        metavar="N",
        help="the state has been restored to format N: allow older code",
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, about: str, *parents: argparse.ArgumentParser, service: str | None = "SERVICE"
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about, parents=[common, *parents])
        if service == "SERVICE":
            command.add_argument("service")
        elif service:
            command.add_argument("service", nargs="?")
        return command

    stage = add(
        "stage",
        "Put a generation on the host; its specification comes on standard input.",
        locking,
        dry,
        formats,
    )
    stage.add_argument("--bundle", type=Path, metavar="FILE", help="uploaded bundle with the code")
    stage.add_argument(
        "--content", metavar="DIGEST", help="content digest of a bundle that is on the host already"
    )
    activate = add(
        "activate", "Make a staged generation run, provisional until confirmed.", locking, dry, formats
    )
    activate.add_argument("--generation", metavar="G", help="default: the one staged last")
    activate.add_argument(
        "--confirm-timeout",
        type=_seconds,
        default=_CONFIRM_TIMEOUT_S,
        metavar="S",
        help="seconds until it reverts by itself (default 120); 0 confirms at once",
    )
    activate.add_argument("--deployment", metavar="ID", help="the deployment this belongs to, for `undo`")
    activate.add_argument("--force", action="store_true", help="also a generation that has failed before")
    activate.add_argument(
        "--standby",
        action="store_true",
        help="blue/green: first let it observe beside what runs; go on only if both hold the same state",
    )
    activate.add_argument(
        "--former-key",
        action="store_true",
        help="its gateway gets another key later in this deployment: until it is confirmed it takes both",
    )
    activate.add_argument(
        "--shadow",
        type=_seconds,
        metavar="S",
        help="then let it run in the shadow of what runs for S seconds, called alike, its orders going "
        "nowhere; go on only if it is promoted",
    )
    activate.add_argument(
        "--agreement",
        type=float,
        default=100.0,
        metavar="PERCENT",
        help="of the decisions that must agree (default 100)",
    )
    activate.add_argument(
        "--least", type=int, default=1, metavar="N", help="decisions that it takes to say so (default 1)"
    )
    activate.add_argument(
        "--promotion",
        choices=("rule", "command"),
        default="rule",
        help="who promotes it: these figures (default), or `shadow SERVICE promote` within the time",
    )
    confirm = add("confirm", "Keep the provisional generation.", locking)
    confirm.add_argument("--generation", metavar="G", help="fail unless it is this one")
    extend = add("extend", "Give the provisional generation more time: its deployment goes on.", locking)
    extend.add_argument("--generation", metavar="G", help="fail unless it is this one")
    extend.add_argument(
        "--confirm-timeout",
        type=_seconds,
        default=_CONFIRM_TIMEOUT_S,
        metavar="S",
        help="seconds from now until it reverts by itself (default 120)",
    )
    left = add("revert", "Leave the provisional generation now.", locking)
    left.add_argument("--confirmed", metavar="G", help="leave G as well if it runs, though it was confirmed")
    rollback = add("rollback", "Return to a generation that was confirmed once.", locking, dry, formats)
    rollback.add_argument("--to", metavar="G", help="default: the one that ran before")
    undo = add(
        "undo",
        "Roll back every service of this host that still runs what a deployment brought, all as one.",
        locking,
        service=None,
    )
    undo.add_argument("--deployment", metavar="ID", help="default: the newest on this host")
    step = undo.add_mutually_exclusive_group()
    step.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
    step.add_argument(
        "--hold",
        type=_seconds,
        metavar="S",
        help="only move and restart; returns by itself in S seconds unless judged and confirmed",
    )
    step.add_argument("--judge", action="store_true", help="wait until all that is held is healthy")
    step.add_argument("--back", action="store_true", help="return to what ran before the undo")
    undo.add_argument(
        "--access",
        action="store_true",
        help="access lists go back, too: who was shut out since gets in again",
    )
    access = add("access", "Put an earlier access list in force; code and .env stay.", locking, dry)
    access.add_argument(
        "--to", metavar="G", help="generation that brought it (default: what runs, or the one before that)"
    )
    add("check", "Wait until what runs is healthy; without SERVICE: all services.", locking, service="?")
    add(
        "intact",
        "Compare every byte of what runs, and of all runtimes, with what was built and staged.",
        service=None,
    )
    add("status", "What runs; without SERVICE: all services.", service="?")
    add("list", "All generations of a service.")
    shadowing = add("shadow", "A new version in the shadow of what runs: how far it is, and what of it.")
    shadowing.add_argument("action", choices=("show", "promote", "drop"))
    shadowing.add_argument("--by", default="", metavar="NAME", help="who says so (default: who runs this)")
    prune = add("prune", "Remove old generations and what only they used.", locking, dry, service="?")
    prune.add_argument(
        "--keep", type=int, default=_KEEP, metavar="N", help="spare confirmed generations (default 3)"
    )
    recover = add("recover", "Finish or undo what an interrupted run left.", locking, service="?")
    recover.add_argument(
        "--boot", action="store_true", help="during boot: queue services instead of waiting for them"
    )
    recover.add_argument(
        "--watch", action="store_true", help="as the watchdog timer does; silent while a run is at work"
    )
    recover.add_argument("--force", action="store_true", help="also after it has failed too often")
    run = add("run", "Windows: be the service, start what is current and look after it.")
    run.add_argument("--stop", action="store_true", help="instead: stop the one that runs, and wait for it")
    run.add_argument("--as-task", action="store_true", help="started by a logon task, not as a service")
    deployment = add(
        "deployment",
        "On the Hub: the fleet's deployment lock and the record of every deployment.",
        service=None,
    )
    deployment.add_argument(
        "action",
        choices=("open", "beat", "close", "list", "show"),
        help="open and close read a record on standard input",
    )
    deployment.add_argument("id", nargs="?", metavar="ID")
    deployment.add_argument("--phase", metavar="P", help="beat: what the deployment is doing")
    deployment.add_argument(
        "--provisional",
        action="append",
        default=[],
        metavar="HOST:SERVICE:GENERATION",
        help="beat: what waits for its confirmation",
    )
    deployment.add_argument(
        "--gone", metavar="WHY", help="beat: the deployer is dead, its lock is free to take"
    )
    logging = add(
        "audit-log",
        "On the Hub: the audit log of the fleet. On other hosts: what they have seen of it.",
        service=None,
    )
    logging.add_argument(
        "action",
        choices=("append", "read", "witness", "witnessed"),
        help='append reads {"acts": […]} on standard input, witness {"log", "n", "hash"}',
    )
    storing = add(
        "store",
        "On the Hub: the release store, from which the fleet's hosts fetch bundles.",
        locking,
        service=None,
    )
    storing.add_argument(
        "action",
        choices=("look", "put", "serve"),
        help='look and serve read {"files": [{"sha256", "size"}]} on standard input, put the bytes of one; '
        "serve ends with its input",
    )
    storing.add_argument("--sha256", metavar="DIGEST", help="put: the file's SHA-256")
    storing.add_argument("--size", type=int, metavar="BYTES", help="put: the size of the whole file")
    storing.add_argument(
        "--offset", type=int, default=0, metavar="BYTES", help="put: go on there (default 0)"
    )
    add(
        "fetch",
        "Fetch bundles from the Hub's release store; where it is comes on standard input.",
        locking,
        service=None,
    )
    verifying = add(
        "verify",
        "Check every byte of a release file, offline: bundle, images, SBOM, provenance.",
        service=None,
    )
    verifying.add_argument("file", type=Path, metavar="FILE")
    verifying.add_argument(
        "--signers",
        type=Path,
        metavar="FILE",
        help="whose signatures count (default: those this host trusts)",
    )
    verifying.add_argument(
        "--provenance",
        type=Path,
        metavar="FILE",
        help="the statement that names FILE (default: one beside it)",
    )
    add(
        "install-units",
        "Install the tool's units: what reverts at boot, what compares hourly.",
        dry,
        service=None,
    )
    return whole


def _instance(text: str) -> str:
    if text and not is_instance_name(text):
        raise argparse.ArgumentTypeError("must be lower-case letters, digits and -, at most 20")
    return text


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be between 0 and 86400 seconds")
    return value
