"""What a host does for backups: copies what it has, keeps copies (the Hub), puts a copy back.

Runs on the host, as root, with the system's own Python and nothing but its standard library; on Windows
(`take` alone) as an administrator, with the Python that a deployment brought. Prints one JSON object; a
failure is a sentence on standard error and exit status 1.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

_WINDOWS = os.name == "nt"
BASE = Path("C:/ProgramData/mt5crs" if _WINDOWS else "/opt/mt5crs")
STATE = BASE / "state" if _WINDOWS else Path("/var/lib/mt5crs")
KEPT = STATE / "backups"
FIGURES = Path("/var/lib/prometheus/node-exporter")
"""Debian's directory of text files that the node exporter serves."""
METADATA, PROVEN, MANIFEST = "metadata.json", "proven.json", "manifest.json"
EVENTS = 10_000
"""Newest lines of each service's journal that are copied."""
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
SEARCHED_BACK_MS = 26 * 3600_000
"""So long before the last order that a restored journal knows the broker's books are searched."""
_EPOCHS = 1_000_000
"""So much is added to lease epochs: none that was handed out after the copy may be handed out again."""
_PROGRAM_S = 60


class RefusedError(Exception):
    """It is not done; the text says why and what to do."""


# ---- copy ----


def take(instance: str = "") -> dict[str, Any]:
    """A copy of this host's configuration, state and events: a tar.gz with a manifest of what is in it.

    instance: of the services of that one (strategy@NAME) alone; else of those of none, and of the machine.
    """
    services = _services(instance)
    files = dict(_files(services))
    files |= {} if instance else dict(_of_machine())
    with tempfile.TemporaryDirectory(prefix="mt5crs-backup-") as scratch:
        for path in (path for name in services for path in sorted((STATE / name).glob("*.db"))):
            copy = Path(scratch) / f"{path.parent.name}-{path.name}"
            _copy_database(path, copy)
            files[f"state/{path.parent.name}/{path.name}"] = copy.read_bytes()
    for name in services:
        files[f"events/{name}.jsonl"] = _events(name)
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = {MANIFEST: json.dumps(manifest, sort_keys=True).encode(), **files}
    return {"content": base64.b64encode(_packed(whole)).decode(), "taken": time.time(), "files": len(files)}


def _files(services: list[str]) -> Iterator[tuple[str, bytes]]:
    for name in services:
        for path in (BASE / name).glob("*"):
            if path.is_file() and path.suffix in (".json", ".jsonl"):
                content = path.read_bytes()
                lines = content.splitlines(keepends=True)[-EVENTS:] if path.suffix == ".jsonl" else [content]
                yield f"config/{name}/{path.name}", b"".join(lines)
        current = _current(BASE / name)
        for path in sorted(current.iterdir()):
            within = [] if path.name == "venv" else [path] if path.is_file() else sorted(path.rglob("*"))
            for file in within:
                # No secret leaves a Windows host: what is printed there goes through Ansible.
                if file.is_file() and not file.is_symlink() and not (_WINDOWS and file.name == ".env"):
                    yield f"config/{name}/current/{file.relative_to(current).as_posix()}", file.read_bytes()


def _of_machine() -> Iterator[tuple[str, bytes]]:
    signers = BASE / "allowed_signers" if _WINDOWS else Path("/etc/mt5crs/allowed_signers")
    if signers.is_file():
        yield "other/etc/mt5crs/allowed_signers", signers.read_bytes()
    others = [*(STATE / "deployments").glob("*.json")]
    others += sorted((STATE / "audit-log").glob("*.json*"))
    others += [Path("/var/lib/prometheus/alertmanager") / name for name in ("silences", "nflog")]
    for path in others:
        if path.is_file():
            yield f"other{path}", path.read_bytes()


def _current(service: Path) -> Path:
    """The directory of a service's current generation; the pointer is a link, on Windows a small file."""
    pointer = service / "current"
    return service / pointer.read_text("utf-8") if pointer.is_file() else pointer.resolve()


def _events(service: str) -> bytes:
    """The newest lines that a service has logged."""
    if not _WINDOWS:
        unit = f"mt5crs-{service}.service"
        return _run("journalctl", "-u", unit, "-n", str(EVENTS), "-o", "cat", "--no-pager")
    log = STATE / service / "service.log"
    lines = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    return b"".join(lines[-EVENTS:])


def _services(instance: str) -> list[str]:
    names = sorted(path.parent.name for path in BASE.glob("*/current"))
    return [name for name in names if name.partition("@")[2] == instance]


def _copy_database(source: Path, target: Path) -> None:
    """A consistent copy while the service goes on writing (SQLite's backup API), in one file."""
    with closing(_opened(source, "ro")) as of, closing(sqlite3.connect(target)) as to:
        of.backup(to)
        to.execute("PRAGMA journal_mode=DELETE")


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)


def _packed(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def _run(*words: str) -> bytes:
    done = subprocess.run(words, capture_output=True, timeout=_PROGRAM_S, check=False)
    if done.returncode != 0:
        raise RefusedError(f"{words[0]} ended with status {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout


# ---- kept on the Hub ----


def keep(backup: str, host: str, content: bytes) -> dict[str, Any]:
    """Keep the (encrypted) copy of a host. It counts once `complete` has written the metadata."""
    directory = KEPT / _checked(backup, _ID)
    KEPT.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    _write(directory / f"{_checked(host, _NAME)}.vault", content)
    return {"kept": len(content)}


def complete(backup: str, metadata: bytes) -> dict[str, Any]:
    """Write what the backup is: from here on it counts."""
    made = float(json.loads(metadata)["time"])
    _write(KEPT / _checked(backup, _ID) / METADATA, metadata)
    _figure("backup", "When the newest backup of the fleet was made.", made)
    return {"complete": backup}


def listed() -> dict[str, Any]:
    """Every backup that counts, oldest first, and the last one that was proven by restoring it."""
    backups = [json.loads(path.read_text()) for path in sorted(KEPT.glob(f"*/{METADATA}"))]
    proven = KEPT / PROVEN
    return {"backups": backups, "proven": json.loads(proven.read_text()) if proven.exists() else None}


def fetch(backup: str, host: str) -> dict[str, Any]:
    """The copy of a host as it was kept."""
    path = KEPT / _checked(backup, _ID) / f"{_checked(host, _NAME)}.vault"
    return {"content": base64.b64encode(path.read_bytes()).decode()}


def prune(days: float) -> dict[str, Any]:
    """Remove backups that are older, but never the newest that counts; and what was never completed."""
    limit = time.time() - days * 86400
    counting = sorted(path.parent for path in KEPT.glob(f"*/{METADATA}"))
    spared = counting[-1:]
    removed = []
    for directory in sorted(path for path in KEPT.glob("*") if path.is_dir()):
        old = directory.stat().st_mtime < limit
        abandoned = directory not in counting and directory.stat().st_mtime < time.time() - 3600
        if directory not in spared and (old or abandoned):
            shutil.rmtree(directory)
            removed.append(directory.name)
    return {"removed": removed}


def prove(record: bytes) -> dict[str, Any]:
    """Note that a backup was restored and found good."""
    at = float(json.loads(record)["at"])
    _write(KEPT / PROVEN, record)
    _figure("restore_proven", "When a restore of a backup was last proven.", at)
    return {"proven": True}


def _figure(what: str, about: str, at: float) -> None:
    """Tell Prometheus a time; a Hub without that directory has no node exporter to tell."""
    if FIGURES.is_dir():
        name = f"mt5crs_{what}_timestamp_seconds"
        path = FIGURES / f"mt5crs_{what}.prom"
        _write(path, f"# HELP {name} {about}\n# TYPE {name} gauge\n{name} {at}\n".encode())
        path.chmod(0o644)


def _checked(text: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(text):
        raise RefusedError(f"{text!r} is no name of a backup or host")
    return text


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and durable."""
    staged = path.with_name(f".{path.name}.new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    held = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


# ---- put back ----


def restore(service: str, backup: str, content: bytes) -> dict[str, Any]:
    """Put the state of a service back from a copy. What was there is kept beside it."""
    unit = f"mt5crs-{_checked(service, _NAME)}.service"
    state = subprocess.run(["systemctl", "is-active", unit], capture_output=True, text=True, check=False)
    said = state.stdout.strip()
    if said not in ("inactive", "failed"):
        raise RefusedError(f"{unit} is {said or 'in an unknown state'}; stop it first: systemctl stop {unit}")
    return put_back(STATE / service, backup, state_of(service, content))


def state_of(service: str, content: bytes) -> dict[str, bytes]:
    """Content by file name of a service's state in a copy. RefusedError when it holds none, or is damaged."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        found = {}
        for member in archive.getmembers():
            source = archive.extractfile(member)
            if source is not None:
                found[member.name] = source.read()
    manifest = json.loads(found.get(MANIFEST, b"{}"))
    prefix = f"state/{service}/"
    files = {name.removeprefix(prefix): text for name, text in found.items() if name.startswith(prefix)}
    if not files:
        raise RefusedError(f"the copy holds no state of {service}")
    for name, text in files.items():
        if hashlib.sha256(text).hexdigest() != manifest.get(prefix + name) or "/" in name:
            raise RefusedError(f"{name} in the copy is damaged; take another backup")
    return files


def put_back(directory: Path, backup: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Replace a stopped service's files. Orders that only the present files know are taken over."""
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    owner = directory.stat()
    aside = directory.parent / f"{directory.name}.before-{backup}-{int(time.time())}"
    aside.mkdir(mode=0o700)
    merged: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(prefix=".restoring-", dir=directory.parent) as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
            if name in _TAKEN_OVER:
                merged[name] = _take_over(directory / name, Path(scratch) / name, _TAKEN_OVER[name])
        if "journal.db" in files:
            _mark_journal(Path(scratch) / "journal.db", backup)
        if "control.db" in files:
            _mark_control(Path(scratch) / "control.db", backup, whole=all(merged.values()))
        for name in files:
            for present in directory.glob(f"{name}*"):  # with its -wal and -shm
                shutil.move(present, aside / present.name)
            made = Path(scratch) / name
            os.chown(made, owner.st_uid, owner.st_gid)
            made.chmod(0o600)
            _write_through(made, directory / name)
    return {"restored": sorted(files), "taken_over": merged, "before": str(aside)}


def begin(service: str) -> dict[str, Any]:
    """Have a gateway that begins at nothing start halted: a journal without `control.db` beside it does.

    Nobody knows what the gateway before it was told. Ids that the journal does not know are looked for in
    the books for a day, as after `put_back`.
    """
    directory = STATE / _checked(service, _NAME)
    if any(directory.glob("*.db")):
        return {"begun": False}
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    _mark_journal(directory / "journal.db", "")
    return {"begun": True}


def _write_through(made: Path, target: Path) -> None:
    held = os.open(made, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
    made.replace(target)


_TAKEN_OVER = {
    "journal.db": ("submissions", "failures"),
    "control.db": ("leases", "halts"),
    "intents.db": ("intent",),
}
"""By file whose rows say what was sent: tables of which rows of the present file win."""


def _take_over(present: Path, restored: Path, tables: tuple[str, ...]) -> bool:
    """Take rows of the present file into the restored one; False when it is gone or damaged."""
    if not present.is_file():
        return False
    with tempfile.TemporaryDirectory(prefix=".present-", dir=restored.parent) as scratch:
        copy = Path(scratch) / present.name
        try:
            for each in present.parent.glob(f"{present.name}*"):
                shutil.copy2(each, copy.with_name(each.name))
            with closing(sqlite3.connect(copy)) as db:
                if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                    return False
            with closing(sqlite3.connect(restored, isolation_level=None)) as db:
                db.execute("ATTACH DATABASE ? AS present", (str(copy),))
                db.execute("BEGIN")
                for table in tables:
                    db.execute(f"INSERT OR REPLACE INTO main.{table} SELECT * FROM present.{table}")  # noqa: S608
                db.execute("COMMIT")
        except sqlite3.Error:
            return False
    return True


def _mark_journal(path: Path, backup: str) -> None:
    """Tell the gateway from when on submissions may be missing, by the broker's clock."""
    now = time.time_ns() // 1_000_000
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS restorations (backup TEXT NOT NULL, since_msc INTEGER NOT NULL,"
            " restored_msc INTEGER NOT NULL)"
        )
        # What was refused bears another clock's time.
        known = "SELECT MAX(sent_msc) FROM submissions WHERE state != 'refused'"
        last = db.execute(known).fetchone()[0] if backup else now
        since = max(0, (_made_msc(backup) if last is None else last) - SEARCHED_BACK_MS)
        db.execute("INSERT INTO restorations VALUES (?, ?, ?)", (backup, since, now))


def _made_msc(backup: str) -> int:
    """When a backup was made, by the clock of who made it; its name begins with that."""
    return calendar.timegm(time.strptime(backup[:16], "%Y%m%dT%H%M%SZ")) * 1000


def _mark_control(path: Path, backup: str, *, whole: bool) -> None:
    """No epoch of before is handed out again, and nothing is traded until a person has looked."""
    now = time.time_ns() // 1_000_000
    missing = "" if whole else " Orders since then may be missing: compare with the broker's books."
    reason = f"restored from backup {backup}.{missing} Look, then resume"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("UPDATE leases SET epoch = epoch + ?", (_EPOCHS,))
        db.execute("INSERT OR REPLACE INTO halts VALUES (0, ?, 'backup', ?)", (reason, now))
        db.execute("INSERT INTO acts VALUES (?, 'halt', 0, 'backup', ?)", (now, reason))
        db.execute("COMMIT")


def main(arguments: list[str]) -> int:
    """Do what the first argument names; what it needs beside comes on standard input."""
    verb, *rest = arguments
    try:
        if verb == "take":
            told = take(*rest)
        elif verb == "keep":
            told = keep(rest[0], rest[1], base64.b64decode(sys.stdin.read()))
        elif verb == "complete":
            told = complete(rest[0], sys.stdin.read().encode())
        elif verb == "list":
            told = listed()
        elif verb == "fetch":
            told = fetch(rest[0], rest[1])
        elif verb == "prune":
            told = prune(float(rest[0]))
        elif verb == "prove":
            told = prove(sys.stdin.read().encode())
        elif verb == "begin":
            told = begin(rest[0])
        else:
            told = restore(rest[0], rest[1], base64.b64decode(sys.stdin.read()))
    except (
        RefusedError,
        OSError,
        ValueError,
        sqlite3.Error,
        tarfile.TarError,
        subprocess.SubprocessError,
    ) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
