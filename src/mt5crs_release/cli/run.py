"""The command line: arguments in, one JSON object or a few sentences out, exit status 0, 1 or 2."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt5crs_release.errors import EXIT_OK, BusyError, FailedError, RefusedError, ReleaseError
from mt5crs_release.platform import system
from mt5crs_release.storage.paths import Host, default_root
from mt5crs_release.version import SOURCES, VERSION

if TYPE_CHECKING:
    from mt5crs_release.generations.session import Session

_LOCK_WAIT_S = 30.0
_KEEP = 3
_LONGEST_LINE = 1 << 20
_STOP_TIMEOUT_S = 60.0
_CONFIRM_TIMEOUT_S = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        try:
            answer = _run(options)
        except OSError as error:
            raise _from_os_error(error) from error
    except ReleaseError as error:
        _print_error(error, as_json=options.json)
        return error.exit_status
    _write(1, _as_json(answer) if options.json else _sentences(options.command, answer))
    return EXIT_OK


def _run(options: argparse.Namespace) -> dict[str, Any]:
    host = Host(Path(options.root))
    if options.command == "status":
        from mt5crs_release.lifecycle.status import status

        if options.service:
            _require(host, options.service)
        return status(host, options.service)
    if options.command == "list":
        from mt5crs_release.generations.state import load
        from mt5crs_release.lifecycle.status import list_generations

        _require(host, options.service)
        return list_generations(load(options.service, host.service(options.service).state))
    if options.command == "intact":
        from mt5crs_release.lifecycle.intact import check

        return check(host)
    if options.command == "verify":
        from mt5crs_release.bundles.provenance import verify

        return verify(options.file, options.signers or host.allowed_signers, options.provenance)
    if options.command == "run":
        return _launch(host, options)
    if host.root == default_root() and not system.here().may_change():
        raise RefusedError(
            f"`{options.command}` changes the host, so it must be run as root",
            remedy="use sudo (Windows: a session of an Administrator)",
        )
    from mt5crs_release import signals

    signals.listen()
    os.umask(0o022)
    runners = {
        "prune": _prune,
        "recover": _recover,
        "install-units": _install_units,
        "stage": _stage,
        "activate": _activate,
        "confirm": _confirm,
        "extend": _extend,
        "revert": _revert,
        "rollback": _rollback,
        "access": _access,
        "undo": _undo,
        "check": _check,
        "deployment": _deployment,
        "audit-log": _audit_log,
        "store": _store,
        "fetch": _fetch,
    }
    return runners[options.command](host, options)


def _deployment(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.records.deployments import Deployments

    kept = Deployments(host)
    if options.action == "list":
        return kept.listed()
    if options.action == "open":
        return kept.open(_document())
    if not options.id:
        raise RefusedError(
            f"`deployment {options.action}` needs the id of a deployment",
            remedy="see `mt5crs-release deployment list`",
        )
    if options.action == "show":
        return kept.show(options.id)
    if options.action == "close":
        return kept.close(options.id, _document())
    return kept.beat(options.id, options.phase, options.provisional, options.gone)


def _audit_log(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.records.audit_log import AuditLog

    log = AuditLog(host)
    if options.action == "read":
        return log.read()
    if options.action == "witnessed":
        return log.witnessed()
    document = _document()
    if options.action == "witness":
        return log.witness(document)
    acts, configuration = document.get("acts") or [], document.get("configuration")
    if not isinstance(acts, list) or not all(isinstance(act, dict) for act in acts):
        raise RefusedError("acts is no list of objects", remedy='send {"acts": [{"what": …}]}')
    return log.append(acts, configuration, str(document.get("deployment") or ""))


def _store(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    if sys.platform != "win32":
        from mt5crs_release.distribution.partial import wanted
        from mt5crs_release.distribution.release_store import ReleaseStore
        from mt5crs_release.distribution.store_server import serve

        kept = ReleaseStore(host)
        if options.action == "look":
            return kept.look(wanted(_document(), named=False), wait_s=options.lock_timeout)
        if options.action == "serve":
            return serve(host, _line(), lambda said: _write(1, _as_json(said)))
        if not options.sha256 or options.size is None:
            raise RefusedError("`store put` needs --sha256 and --size", remedy="name the file that follows")
        of = {"files": [{"sha256": options.sha256, "size": options.size}]}
        read = sys.stdin.buffer.read
        return kept.put(wanted(of, named=False)[0], options.offset, read, wait_s=options.lock_timeout)
    raise RefusedError("the release store is on the Hub, which runs Linux", remedy="run it there")


def _fetch(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.distribution.fetching import fetch

    return fetch(host, _document(), wait_s=options.lock_timeout)


def _line() -> dict[str, Any]:
    """Return the object on the first line of standard input, which stays open."""
    text = b""
    while not text.endswith(b"\n") and len(text) < _LONGEST_LINE:
        if not (more := os.read(0, 1)):
            break
        text += more
    return _parsed(text.decode(errors="replace"))


def _document() -> dict[str, Any]:
    return _parsed(sys.stdin.read())


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RefusedError("standard input is no JSON object", remedy="send one, as `--help` says")
    return found


def _require(host: Host, service: str) -> None:
    from mt5crs_release.generations.session import require_service

    require_service(host, service)


def _session(
    host: Host, options: argparse.Namespace, *, create: bool = False
) -> contextlib.AbstractContextManager[Session]:
    from mt5crs_release.generations.session import open_session

    command = f"{options.command} {options.service}"
    return open_session(
        host,
        options.service,
        command,
        wait_s=options.lock_timeout,
        create=create,
        dry_run=getattr(options, "dry_run", False),
    )


def _stage(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.desired.spec import read_spec
    from mt5crs_release.lifecycle.staging import stage

    # Read and checked before the lock is taken and before the service's directory is made.
    spec = read_spec(sys.stdin.read())
    with _session(host, options, create=True) as session:
        return stage(
            session,
            spec,
            bundle=options.bundle,
            content=options.content,
            accept_state_format=options.accept_state_format,
            dry_run=options.dry_run,
        )


def _activate(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.activation import activate

    with _session(host, options) as session:
        return activate(
            session,
            options.generation,
            confirm_timeout_s=options.confirm_timeout,
            force=options.force,
            accept_state_format=options.accept_state_format,
            dry_run=options.dry_run,
            with_standby=options.standby,
            deployment=options.deployment,
        )


def _undo(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle import undo

    deployment, wait_s = options.deployment or undo.newest(host), options.lock_timeout
    if options.hold is not None:
        return undo.hold(host, deployment, options.hold, wait_s=wait_s, give_back=options.access)
    if options.judge or options.back:
        return (undo.judge if options.judge else undo.back)(host, deployment, wait_s=wait_s)
    return (undo.ask if options.dry_run else undo.undo)(
        host, deployment, wait_s=wait_s, give_back=options.access
    )


def _check(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.check import check

    if options.service:
        _require(host, options.service)
    return check(host, options.service, wait_s=options.lock_timeout)


def _confirm(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.activation import confirm

    with _session(host, options) as session:
        return confirm(session, options.generation)


def _extend(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.activation import extend

    with _session(host, options) as session:
        return extend(session, options.generation, options.confirm_timeout)


def _revert(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.activation import ask_revert

    with _session(host, options) as session:
        return ask_revert(session, options.confirmed)


def _rollback(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.activation import rollback

    with _session(host, options) as session:
        return rollback(
            session,
            options.to,
            accept_state_format=options.accept_state_format,
            dry_run=options.dry_run,
            alone=options.to is None,
        )


def _access(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.activation import give_access_back

    with _session(host, options) as session:
        return give_access_back(session, options.to, dry_run=options.dry_run)


def _prune(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.pruning import prune

    if options.service:
        _require(host, options.service)
    return prune(host, options.service, options.keep, wait_s=options.lock_timeout, dry_run=options.dry_run)


def _install_units(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle.host_units import install_units
    from mt5crs_release.platform.linux.systemd import Systemd

    if not system.here().links_units:
        raise RefusedError(
            "Windows has no units", remedy="the baseline role registers the task that recovers at boot"
        )
    return install_units(host, Systemd(), dry_run=options.dry_run)


def _launch(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    if system.here().links_units:
        raise RefusedError("systemd starts services here", remedy=f"systemctl start mt5crs-{options.service}")
    _require(host, options.service)

    if options.stop:
        unit = f"mt5crs-{options.service}.service"
        services = system.here().services(host.base)
        ran = services.look([unit])[unit].active in ("active", "activating")
        services.stop([unit], _STOP_TIMEOUT_S)
        return {"changed": ran, "service": options.service, "generation": None, "reason": "stopped"}

    from mt5crs_release.lifecycle.launcher import run

    if run(host, options.service, as_task=options.as_task) != 0:
        raise FailedError(
            f"{options.service} died too often", remedy="see service.log and `mt5crs-release status`"
        )
    return {"changed": True, "service": options.service, "generation": None, "reason": "stopped"}


def _recover(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    """Recover one service or all; one that cannot be recovered does not keep the others from it."""
    from mt5crs_release.generations.session import open_session, require_service
    from mt5crs_release.lifecycle.recovery import look_after, recover

    if options.service:
        require_service(host, options.service)
    services: dict[str, Any] = {}
    failures: list[ReleaseError] = []
    for name in [options.service] if options.service else host.begun():
        wait_s = 0.0 if options.watch else options.lock_timeout
        try:
            with open_session(host, name, f"recover {name}", wait_s=wait_s, create=True) as session:
                done = (
                    look_after(session)
                    if options.watch
                    else recover(session, boot=options.boot, forced=options.force)
                )
                entry = session.state.generations.get(session.state.current or "")
                nothing = {
                    "action": "none",
                    "generation": session.state.current,
                    "state": entry.state if entry else None,
                    "reason": "nothing was left unfinished",
                }
                services[name] = {"changed": done is not None, **(done or nothing)}
        except BusyError:
            if not options.watch:
                raise
            services[name] = {"changed": False, "action": "none", "reason": "a run is at work"}
        except (ReleaseError, OSError) as error:
            failure = error if isinstance(error, ReleaseError) else _from_os_error(error)
            failures.append(failure)
            services[name] = {"changed": False, "action": "failed", "reason": failure.message}
    if failures:
        raise FailedError(
            "; ".join(failure.message for failure in failures),
            remedy="; ".join(dict.fromkeys(failure.remedy for failure in failures)),
            details={"services": services},
        )
    return {"changed": any(entry["changed"] for entry in services.values()), "services": services}


def _from_os_error(error: OSError) -> FailedError:
    remedies = {
        errno.ENOSPC: "free disk space (`mt5crs-release prune`, `journalctl --vacuum-size=100M`)",
        errno.EDQUOT: "raise the quota or free disk space, then repeat",
        errno.EROFS: "the file system is read-only: see dmesg, remount it, then repeat",
        errno.EIO: "the disk reports errors: see dmesg; replace it before you go on",
    }
    where = f" ({error.filename})" if error.filename else ""
    return FailedError(
        f"{error.strerror or error}{where}",
        remedy=remedies.get(error.errno or 0, "see the message, mend the cause, then repeat")
        + "; the running generation is unchanged, or the next run brings it back",
        details={"changed": False},
    )


def _print_error(error: ReleaseError, *, as_json: bool) -> None:
    if as_json:
        _write(1, _as_json({"changed": False, **error.as_json()}))
    lines = [f"mt5crs-release: {error.message}"]
    lines += [f"    {line}" for line in error.details.get("journal", [])]
    if error.remedy:
        lines.append(f"What to do: {error.remedy}.")
    _write(2, "\n".join(lines))


def _write(descriptor: int, text: str) -> None:
    """Write a line without Python's buffer: whoever asked may be gone, and what was done stands."""
    content = text.encode(errors="replace") + b"\n"
    with contextlib.suppress(OSError):
        while content:
            content = content[os.write(descriptor, content) :]


def _as_json(answer: dict[str, Any]) -> str:
    return json.dumps(answer, sort_keys=True)


def _sentences(command: str, answer: dict[str, Any]) -> str:
    if command == "status":
        return _status_table(answer)
    if command == "list":
        lines = [_generation_line(entry) for entry in answer["generations"]]
        return "\n".join(lines) or "no generations"
    if command == "prune":
        removed = answer["removed"]
        names = [*(name for names in removed["generations"].values() for name in names)]
        names += [*removed["runtimes"], *removed["bundles"], *removed["store"]]
        return f"removed {', '.join(names)}" if names else "nothing to remove"
    if command == "recover":
        return (
            "\n".join(f"{name}: {entry['reason']}" for name, entry in answer["services"].items())
            or "no services"
        )
    if command == "undo":
        told = [_sentences("rollback", entry) for entry in answer["services"].values()]
        return "\n".join(told) or f"nothing of deployment {answer['deployment']} runs on this host"
    if command == "deployment":
        return _deployment_text(answer)
    if command == "check":
        healthy = (f"{name} {entry['generation']}: healthy" for name, entry in answer["services"].items())
        return "\n".join(healthy) or "no services"
    if command == "verify":
        return _verified_text(answer)
    if command == "audit-log":
        return json.dumps(answer, indent=2, sort_keys=True)
    if command == "intact":
        same = [f"{what}: as it was built" for what in answer["looked_at"]]
        return (
            "\n".join([*same, *(f"{what}: no record to judge it by" for what in answer["unknown"])])
            or "nothing to look at"
        )
    if command in ("store", "fetch"):
        return json.dumps(answer, indent=2, sort_keys=True)
    if command == "install-units":
        return f"installed {', '.join(answer['units'])}" if answer["changed"] else "unchanged"
    change = "" if answer["changed"] else "unchanged: "
    seconds = f" ({answer['seconds']:.1f} s)" if "seconds" in answer else ""
    beside = f"; in standby: {answer['standby']['reason']}" if answer.get("standby") else ""
    return f"{answer['service']} {answer['generation']}: {change}{answer['reason']}{beside}{seconds}"


def _verified_text(answer: dict[str, Any]) -> str:
    if answer["kind"] == "provenance":
        return f"{answer['file']}: signature good; it names {', '.join(answer['subjects'])}"
    if answer["kind"] == "file":
        return f"{answer['file']}: every byte is as {answer['provenance']} says, whose signature is good"
    said = (
        f"{answer['kind']} {answer['version']}, content {answer['content'][:12]}, commit {answer['commit']}"
    )
    return f"{answer['file']}: signature good, every byte is as it was built; {said}"


def _status_table(answer: dict[str, Any]) -> str:
    lines = []
    for name, entry in answer["services"].items():
        units = ", ".join(f"{unit} {state}" for unit, state in entry["units"].items())
        pending = f"; reverts in {entry['deadline_in_s']:g} s" if entry["deadline_in_s"] is not None else ""
        changed = entry["intact"] is False and entry["current"] is not None
        damage = "; CHANGED BY HAND: stage again" if changed else ""
        access = entry["access"]
        if access is not None and not access["own"]:
            damage += f"; access list {access['serial']} is not the one it brought"
        beside = f"; {entry['standby']} stands by" if entry["standby"] else ""
        left = entry["left"]
        went = f"; {left['generation']} was left: {left['reason']}" if left else ""
        what = f"{entry['current'] or 'nothing'} {entry['state']}{pending}{beside}{damage}{went}"
        none = "units not known" if name in answer["unread"] else "no units"
        lines.append(f"{name}: {what}; {units or none}")
    if set(answer["unread"]) & set(answer["services"]):
        lines.append(
            "only root may read which units there are and whether anything was changed by hand: use sudo"
        )
    return "\n".join(lines) or "no services"


def _deployment_text(answer: dict[str, Any]) -> str:
    if "deployments" not in answer:
        return json.dumps(answer, indent=2, sort_keys=True)
    lines = [
        f"{str(entry['id'])[:8]}  {entry['started']}  {entry['action']}  {entry['outcome']}  "
        f"by {entry['who']}  {entry['sentence'] or ''}".rstrip()
        for entry in answer["deployments"]
    ]
    holder = answer["holder"]
    if holder is not None:
        lines.insert(
            0, f"deploying now: {holder['who']} on {holder['controller']}, phase '{holder['phase']}'"
        )
    return "\n".join(lines) or "no deployments"


def _generation_line(entry: dict[str, Any]) -> str:
    mark = "*" if entry["current"] else " "
    can = "  can be rolled back to" if entry["rollback"] else ""
    why = f"  left last time: {entry['reason']}" if entry["reason"] else ""
    version = entry["version"] or "configuration"
    return f"{mark} {entry['generation']}  {version}  {entry['state']}  staged {entry['staged_at']}{can}{why}"


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


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be between 0 and 86400 seconds")
    return value
