"""Stage: put a desired generation on the host, complete and on disk, without touching what runs."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mt5crs_release.bundles import runtime_marker, verdict
from mt5crs_release.bundles.bundle import CORE, Bundle
from mt5crs_release.bundles.extra_bundle import build_data, data_name, opened
from mt5crs_release.bundles.runtime import build_runtime, find_runtime, lock_runtimes, runtime_name
from mt5crs_release.desired.digest import fixed_digest, generation_digest, generation_name, runtime_digest
from mt5crs_release.desired.name import plain
from mt5crs_release.desired.spec import ExtraBundle, Spec
from mt5crs_release.errors import RefusedError
from mt5crs_release.generations import access, generation, installed, machine
from mt5crs_release.generations.session import Session
from mt5crs_release.generations.state import Generation
from mt5crs_release.lifecycle.activation import check_state_format
from mt5crs_release.lifecycle.recovery import recover
from mt5crs_release.storage import store
from mt5crs_release.storage.journal import timestamp


def stage(
    session: Session,
    spec: Spec,
    *,
    bundle: Path | None,
    content: str | None,
    accept_state_format: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Stage ``spec`` with the code of ``bundle``; nothing happens when an equal usable generation is there.

    :param bundle: bundle file; its signature and hashes are checked first
    :param content: instead of the file: content digest of a bundle whose runtime is on the host
    :raises RefusedError: bad input, or the bundle is refused
    :raises FailedError: the runtime could not be built
    """
    if spec.service != plain(session.service):
        raise RefusedError(
            f"the specification is for {spec.service}, the command for {session.service}",
            remedy="pipe the specification of the service you name; nothing was changed",
        )
    _check_code(spec, bundle, content)
    if not dry_run:
        recover(session)
    check_state_format(session, spec.state_format, accept_state_format)
    code: dict[str, Any] | None = None
    admitted: dict[str, Any] | None = None
    if bundle is not None and (not dry_run or bundle.exists()):
        code, admitted = _runtime(session, spec, bundle, dry_run=dry_run)
        if content is not None and code["content"] != content:
            raise RefusedError(
                f"{bundle.name} has the content {code['content']}, expected was {content}",
                remedy="upload the bundle the deployment was planned with; nothing was changed",
            )
    elif content is not None:
        admitted = _admit(session, spec, content)
        if not dry_run:
            _unpack_data(session, spec)
        found = find_runtime(session.host, _runtime_of(content, spec.extra))
        if found is None and not dry_run:
            raise RefusedError(
                f"the code {content[:12]} is not on this host",
                remedy="upload its bundle and stage with --bundle; nothing was changed",
            )
        code = {"content": content, "version": found["version"] if found else None}
    return _record(session, spec, code, admitted, dry_run=dry_run)


def _admit(session: Session, spec: Spec, content: str) -> dict[str, Any] | None:
    """Return why this code may be staged; ``None`` when no verdict is wanted, or it runs confirmed already.

    :raises RefusedError: a verdict is wanted, and there is neither one nor an override
    """
    if spec.review is None:
        return None
    current = session.state.generations.get(session.state.current or "")
    same = current is not None and current.digest == generation_digest(spec.raw, content)
    if same and current is not None and current.state == machine.CONFIRMED:
        return None
    session.enter("checking the verdict of the review")
    extra = spec.extra.content if spec.extra else None
    signers = session.host.allowed_signers
    return verdict.admit(spec.review, content, signers, datetime.now(timezone.utc), extra)


def _unpack_data(session: Session, spec: Spec) -> None:
    """Before a runtime is built, since it is quick: a second bundle that is refused is so at once."""
    if spec.extra is not None:
        with lock_runtimes(session.host, f"stage {session.service}"):
            build_data(session.host, spec.extra, session.enter)


def _check_code(spec: Spec, bundle: Path | None, content: str | None) -> None:
    if spec.code and bundle is None and content is None:
        raise RefusedError(
            f"{spec.service} runs code, so it needs --bundle FILE", remedy="name the uploaded bundle"
        )
    if not spec.code and (bundle is not None or content is not None):
        raise RefusedError(
            f"{spec.service} is configuration only (code: false), so it takes no bundle",
            remedy="leave --bundle out",
        )


def _runtime_of(content: str, extra: ExtraBundle | None) -> str:
    return runtime_digest(content, None if extra is None else extra.code)


def _runtime(
    session: Session, spec: Spec, path: Path, *, dry_run: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    session.enter("verifying the bundle")
    with Bundle(path, session.host.allowed_signers) as bundle:
        bundle.check_kind(CORE)
        bundle.check_platform()
        admitted = _admit(session, spec, bundle.content)
        code = {"content": bundle.content, "version": bundle.version}
        if dry_run:
            return code, admitted
        _unpack_data(session, spec)
        with ExitStack() as stack:
            second = None
            if spec.extra is not None and spec.extra.code is not None:
                second = stack.enter_context(opened(session.host, spec.extra))
            stack.enter_context(lock_runtimes(session.host, f"stage {session.service}"))
            build_runtime(session.host, bundle, session.enter, second)
        return code, admitted


def _record(
    session: Session,
    spec: Spec,
    code: dict[str, Any] | None,
    admitted: dict[str, Any] | None,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    content = code["content"] if code else None
    digest = generation_digest(spec.raw, content)
    same = [entry for entry in session.state.in_order() if entry.digest == digest]
    entry = same[-1] if same else None
    why_new = _unusable(session, entry)
    if entry is not None and why_new is None:
        chosen = session.state.desired != entry.name
        if chosen and not dry_run:
            session.state.desired = entry.name
            session.save()
            session.record("chosen", generation=entry.name, **_reviewed(admitted))
        # What runs already is not to be activated: only a deployment that did not come to it chose another.
        changed = chosen and entry.name != session.state.current
        said = _result(session, entry, changed=changed, reason="an equal generation is there already")
        return {**said, **_reviewed(admitted)}
    counter = session.state.counter + 1
    entry = Generation(
        name=generation_name(counter, digest),
        digest=digest,
        state=machine.STAGED,
        bundle=content,
        version=_version(code, spec.extra) if code else None,
        runtime=runtime_name(_runtime_of(content, spec.extra)) if content else None,
        extra=spec.extra.content if spec.extra else None,
        data=data_name(spec.extra.data) if spec.extra and spec.extra.data else None,
        state_format=spec.state_format,
        staged_at=timestamp(),
        fixed=fixed_digest(spec.raw, content),
    )
    reason = why_new or (
        "first generation" if session.state.current is None else "code, configuration or units changed"
    )
    if not dry_run:
        session.enter("writing the generation")
        try:
            generation.write(session.paths.generations, entry.name, spec, digest, entry.runtime, entry.data)
        except BaseException:
            store.sweep(session.paths.generations)
            raise
        session.state.counter = counter
        session.state.generations[entry.name] = entry
        session.state.desired = entry.name
        session.save()
        told = {"version": entry.version, "reason": reason, **_reviewed(admitted)}
        session.record("staged", generation=entry.name, **told)
    return {**_result(session, entry, changed=True, reason=reason), **_reviewed(admitted)}


def _reviewed(admitted: dict[str, Any] | None) -> dict[str, Any]:
    return {} if admitted is None else {"review": admitted}


def _unusable(session: Session, entry: Generation | None) -> str | None:
    """Return why an equal generation must be made anew; ``None`` when it can be used (or there is none)."""
    if entry is None:
        return None
    if entry.state == machine.FAILED:
        return f"{entry.name} is equal but has failed"
    damage = generation.problems(session.paths.generation(entry.name))
    for what, name in (("runtime", entry.runtime), ("data", entry.data)):
        if name is not None and runtime_marker.built_at(session.host, name) > entry.staged_at:
            # What runs may have been started from what was changed: a new generation starts it anew.
            damage.append(f"its {what} was built anew since")
    runs = entry.name == session.state.current and session.state.transaction is None
    if runs and not damage:
        damage += installed.problems(session.host, session.paths, session.content(entry.name))
    if damage:
        return f"{entry.name} is equal but {', '.join(damage)}"
    if runs:
        told = access.describe(session.paths, session.content(entry.name))
        if told is not None and not told["own"]:
            return f"{entry.name} is equal but another access list is in force"
    return None


def _version(code: dict[str, Any], extra: ExtraBundle | None) -> str | None:
    """What people are shown: the core's version, and the strategy's with its name."""
    version: str | None = code["version"]
    return version if extra is None or version is None else f"{version} + {extra.name} {extra.version}"


def _result(session: Session, entry: Generation, *, changed: bool, reason: str) -> dict[str, Any]:
    return {
        "changed": changed,
        "service": session.service,
        "generation": entry.name,
        "digest": entry.digest,
        "bundle": entry.bundle,
        "version": entry.version,
        "reason": reason,
    }
