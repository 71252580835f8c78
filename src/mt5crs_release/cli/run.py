"""The command line: arguments in, one JSON object or a few sentences out, exit status 0, 1 or 2."""

from __future__ import annotations

import argparse
import contextlib
import errno
import getpass
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt5crs_release.cli.answers import json_text, print_error, sentences, without_instance, write
from mt5crs_release.cli.arguments import parser
from mt5crs_release.desired.name import instance_of, of_instance
from mt5crs_release.errors import EXIT_OK, BusyError, FailedError, RefusedError, ReleaseError
from mt5crs_release.storage.paths import Host, default_root
from mt5crs_release.systems import system

if TYPE_CHECKING:
    from mt5crs_release.generations.session import Session
    from mt5crs_release.lifecycle.shadow import Terms

_LONGEST_LINE = 1 << 20
_STOP_TIMEOUT_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        try:
            answer = _run(options)
        except OSError as error:
            raise _from_os_error(error) from error
    except ReleaseError as error:
        print_error(error, as_json=options.json, instance=options.instance)
        return error.exit_status
    if options.instance:
        answer = without_instance(answer)
    write(1, json_text(answer) if options.json else sentences(options.command, answer))
    return EXIT_OK


def _run(options: argparse.Namespace) -> dict[str, Any]:
    named = getattr(options, "service", None) or ""
    # The tool's own timer, and people who copy a unit's name, say strategy@trend.
    host = Host(Path(options.root), instance_of(named) or options.instance)
    if options.instance not in ("", host.instance):
        raise RefusedError(
            f"{named} is not of the instance {options.instance}",
            remedy="name one of the two; nothing was done",
        )
    if named and not instance_of(named):
        options.service = of_instance(named, host.instance)
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
        "shadow": _shadow,
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
            return serve(host, _line(), lambda said: write(1, json_text(said)))
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
            with_shadow=_terms(options),
            former_key=options.former_key,
            deployment=options.deployment,
        )


def _terms(options: argparse.Namespace) -> Terms | None:
    if options.shadow is None:
        return None
    from mt5crs_release.lifecycle.shadow import Terms

    if options.shadow < 1 or not 0 <= options.agreement <= 100 or options.least < 1:
        raise RefusedError(
            "a shadow needs at least 1 s, an agreement of 0 to 100 % and at least 1 decision",
            remedy="correct --shadow, --agreement or --least; nothing was changed",
        )
    return Terms(options.shadow, options.agreement, options.least, options.promotion)


def _shadow(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    from mt5crs_release.lifecycle import shadow

    _require(host, options.service)
    paths = host.service(options.service)
    if options.action == "show":
        return shadow.show(paths)
    by = options.by or os.environ.get("SUDO_USER") or getpass.getuser()
    return shadow.say(paths, options.action, by)


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
    from mt5crs_release.systems.linux.systemd import Systemd

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
