"""Brings bundles to hosts by way of the Hub's release store: one upload, fetched by every host that lacks it.

Alike for both engines, over the run's connections (`deploy.remote.ssh`). Nothing here ends a run: a host that
did not get its bundles is named with the reason, and its engine uploads them directly.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.controller.programs import MissingProgramError
from deploy.remote import ssh
from deploy.rollout.distribution import AT_ONCE, Store, digest_of
from deploy.rollout.generation import Bundle
from deploy.rollout.transfers import CONTROLLER, Transfer
from mt5crs.foreign_text import shown

_SHORT_S = 60.0
_BEGIN_S = 40.0
_END_S = 10.0
_TRIES = 3
_SLOWEST_UPLOAD_BYTES_S = 100_000
_REFUSED = 2
_OLDER = "its release tool is older than the release store; a deployment of its baseline brings it"
Needs = Mapping[str, Sequence[Bundle]]
"""Host → the bundles that it lacks."""


class NoStoreError(RuntimeError):
    """The Hub's store cannot be used in this run; the text says why."""


@dataclass
class Delivery:
    """What a run's hosts have got from the Hub, and why the others have not."""

    transfers: list[Transfer] = field(default_factory=list)
    there: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Host → names of the bundles that it has by now."""
    why: dict[str, str] = field(default_factory=dict)
    """Host → why its engine has to upload directly."""
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    path: Path
    sha256: str
    size: int


def deliver(store: Store | str, reached: Mapping[str, Mapping[str, Any]], needs: Needs) -> Delivery:
    """Bring every host the bundles that it lacks; `reached`: how each host is reached."""
    done = Delivery()
    if not needs:
        return done
    if isinstance(store, str):
        done.why = dict.fromkeys(needs, store)
        done.said.append(f"bundles go directly to each host: {store}")
        return done
    files = {bundle.path.name: _file_of(bundle) for of in needs.values() for bundle in of}
    try:
        _upload(store, list(files.values()), done)
        size = max(sum(files[bundle.path.name].size for bundle in of) for of in needs.values())
        pace = store.pace(len(needs), size)
        rounds = -(-len(needs) // AT_ONCE)
        with _served(store, list(files.values()), rounds * (pace.within_s + 2 * _SHORT_S)) as source:
            source |= {"within_s": pace.within_s, "least_bytes_s": pace.least_bytes_s}
            with ThreadPoolExecutor(min(len(needs), AT_ONCE)) as pool:
                fetching = [
                    pool.submit(_fetch, store, host, reached[host], _of(needs[host], files), source, done)
                    for host in needs
                ]
                for one in fetching:
                    one.result()
    except NoStoreError as error:
        reason = f"the release store of {store.name}: {shown(str(error))}"
        done.said.append(f"bundles go directly to hosts: {reason}")
        done.why |= {host: reason for host in needs if host not in done.there}
    return done


def _file_of(bundle: Bundle) -> _File:
    return _File(bundle.path, digest_of(bundle.path), bundle.path.stat().st_size)


def _of(bundles: Sequence[Bundle], files: Mapping[str, _File]) -> dict[str, _File]:
    return {bundle.path.name: files[bundle.path.name] for bundle in bundles}


def _listed(files: Sequence[_File]) -> list[dict[str, Any]]:
    return [{"sha256": file.sha256, "size": file.size} for file in files]


def _held(store: Store, files: Sequence[_File]) -> dict[str, int]:
    """How many bytes of each file the store has. NoStoreError when it cannot say."""
    request = json.dumps({"files": _listed(files)})
    command = [ssh.TOOL, "store", "look", "--json"]
    reply = ssh.run(store.connection, command, stdin=request, timeout_s=_SHORT_S)
    if reply.status == _REFUSED and reply.document is None:
        raise NoStoreError(_OLDER)
    told = (reply.document or {}).get("files")
    if reply.status != 0 or not isinstance(told, dict):
        raise NoStoreError(reply.why)
    return {file.sha256: _count((told.get(file.sha256) or {}).get("bytes")) for file in files}


def _upload(store: Store, files: Sequence[_File], done: Delivery) -> None:
    """Put into the store what it lacks, going on where it was cut. NoStoreError when that fails."""
    held = _held(store, files)
    for file in files:
        began, first, why = time.monotonic(), held[file.sha256], ""
        for _ in range(_TRIES):
            if held[file.sha256] >= file.size:
                break
            why = _put(store, file, held[file.sha256])
            held |= _held(store, [file])
        sent = max(0, held[file.sha256] - first)
        seconds = round(time.monotonic() - began, 3)
        resumed = first if sent else 0
        done.transfers.append(
            Transfer(store.name, file.path.name, CONTROLLER, sent, seconds, resumed, to_store=True)
        )
        if held[file.sha256] < file.size:
            raise NoStoreError(why)


def _put(store: Store, file: _File, offset: int) -> str:
    """Upload the rest of a file; return why not, empty when it is there."""
    command = [ssh.TOOL, "store", "put", "--json", "--sha256", file.sha256, "--size", str(file.size)]
    command += ["--offset", str(offset)]
    timeout_s = _SHORT_S + (file.size - offset) / _SLOWEST_UPLOAD_BYTES_S
    try:
        # Unbuffered: ssh reads on from where this file is.
        with file.path.open("rb", buffering=0) as content:
            content.seek(offset)
            reply = ssh.run(store.connection, command, stdin=content, timeout_s=timeout_s)
    except OSError as error:
        raise NoStoreError(f"{file.path.name} cannot be read here: {error.strerror}") from None
    return "" if reply.status == 0 else reply.why


@contextmanager
def _served(store: Store, files: Sequence[_File], within_s: float) -> Iterator[dict[str, Any]]:
    """The store, served for as long as this lasts: where, and how it is known. NoStoreError if it is not."""
    request = {
        "address": store.address,
        "port": store.port,
        "host_mb_s": store.host_mb_s,
        "total_mb_s": store.total_mb_s,
        "within_s": within_s,
        "files": _listed(files),
    }
    try:
        process = ssh.begin(store.connection, [ssh.TOOL, "store", "serve", "--json"])
    except (OSError, MissingProgramError) as error:
        raise NoStoreError(f"ssh could not be started: {error}") from None
    assert process.stdin is not None  # noqa: S101 -- a pipe
    try:
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            pass  # it has ended; what it said comes next
        told = _first_document(process, _BEGIN_S)
        if "certificate" not in told:
            reason = told.get("error")
            said = reason.get("message") if isinstance(reason, dict) else None
            raise NoStoreError(str(said or "it does not say where it is served"))
        yield {
            "address": store.address,
            **{name: told.get(name) for name in ("port", "certificate", "token")},
        }
    finally:
        try:
            process.stdin.close()
            process.wait(_END_S)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()


def _first_document(process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any]:
    """The first JSON object that a framed command prints. NoStoreError when none comes in time."""
    assert process.stdout is not None  # noqa: S101 -- a pipe
    output, end = b"", time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([process.stdout], [], [], left)
        read = os.read(process.stdout.fileno(), 65536) if ready else b""
        output += read
        answer = ssh.unframed(output.decode(errors="replace"))
        if answer and "\n" in answer:
            return _document(answer.partition("\n")[0])
        if ready and not read:
            break
    raise NoStoreError("it gave no answer")


def _document(line: str) -> dict[str, Any]:
    """The object as it is: a certificate has ends of lines, which nobody is shown."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _fetch(
    store: Store,
    host: str,
    variables: Mapping[str, Any],
    files: Mapping[str, _File],
    source: Mapping[str, Any],
    done: Delivery,
) -> None:
    """Have a host fetch its bundles, and note how that went."""
    listed = [{"name": name, "sha256": of.sha256, "size": of.size} for name, of in files.items()]
    request = json.dumps({**source, "files": listed})
    began = time.monotonic()
    command = [ssh.TOOL, "fetch", "--json"]
    reply = ssh.run(variables, command, stdin=request, timeout_s=float(source["within_s"]) + _SHORT_S)
    seconds = round(time.monotonic() - began, 3)
    told = (reply.document or {}).get("files")
    if reply.status != 0 or not isinstance(told, list):
        older = reply.status == _REFUSED and reply.document is None
        done.why[host] = shown(_OLDER if older else reply.why)
        done.said.append(f"{host}: its bundles go there directly: {done.why[host]}")
        return
    for entry in told:
        if isinstance(entry, dict) and entry.get("name") in files:
            counts = (_count(entry.get(name)) for name in ("bytes", "resumed_at"))
            came, resumed = counts
            done.transfers.append(Transfer(host, str(entry["name"]), store.name, came, seconds, resumed))
    done.there[host] = tuple(files)


def _count(value: object) -> int:
    """A number of bytes that a host told; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
