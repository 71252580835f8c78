"""The release store of the Hub: bundles by their SHA-256, uploaded once and fetched by the fleet's hosts.

It is a cache that nobody has to trust: a host compares what it fetched with what the deployment named, then
checks the signature as it does for a direct upload. Nothing is lost with it: a rollback needs no bundle.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mt5crs_release.bundles.bundle import CORE, peek_manifest
from mt5crs_release.distribution.partial import PART, Part, Wanted, digest_of, open_regular, require_room
from mt5crs_release.errors import FailedError, RefusedError
from mt5crs_release.generations import state
from mt5crs_release.storage import store
from mt5crs_release.storage.lock import Lock
from mt5crs_release.storage.paths import Host

KEEP = 3
"""Bundles of each kind (and each strategy) that stay, as many as generations do."""
_OLD_PART_S = 86400.0
_BLOCK = 1 << 18


class ReleaseStore:
    """The directory of the store. Only root reads it: strategies may be confidential."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.directory = host.store

    def path(self, want: Wanted) -> Path:
        """Return where a whole bundle lies."""
        return self.directory / f"{want.sha256}.tar"

    def look(self, files: list[Wanted], *, wait_s: float) -> dict[str, Any]:
        """Return for each file how many of its bytes are here, and whether it is whole and unchanged.

        What was changed since it came is removed.
        """
        found = {}
        with self._locked("look", wait_s):
            for want in files:
                path = self.path(want)
                if digest_of(path) == want.sha256:
                    os.utime(path)
                    found[want.sha256] = {"bytes": want.size, "whole": True}
                    continue
                damaged = path.is_symlink() or path.exists()
                if damaged:
                    path.unlink()
                with Part(self.directory, want) as part:
                    found[want.sha256] = {"bytes": part.held, "whole": False, "damaged": damaged}
        return {"changed": False, "files": found}

    def put(
        self, want: Wanted, offset: int, read: Callable[[int], bytes], *, wait_s: float
    ) -> dict[str, Any]:
        """Take a file, or what is missing of it, from ``read``; when it is whole, old ones go.

        :raises RefusedError: it does not go on where the file ends
        :raises FailedError: the upload was cut (what came stays), the disk is full, or it is another file
        """
        with self._locked("put", wait_s):
            require_room(self.directory, want.size - offset)
            with Part(self.directory, want) as part:
                if part.held != offset:
                    raise RefusedError(
                        f"{part.held} bytes of {want.sha256[:12]}… are here, the upload goes on at {offset}",
                        remedy="ask with `store look` where to go on",
                    )
                while block := read(_BLOCK):
                    part.append(block)
                if part.held < want.size:
                    raise FailedError(
                        f"the upload was cut after {part.held} of {want.size} bytes",
                        remedy="repeat it: it goes on from there",
                    )
                part.publish(self.path(want))
            removed = self.prune(KEEP)
        return {"changed": True, "bytes": want.size - offset, "removed": removed}

    def opened(self, files: list[Wanted]) -> dict[str, tuple[int, int]]:
        """Return descriptor and size of every file, by SHA-256.

        :raises RefusedError: one is not here
        """
        found: dict[str, tuple[int, int]] = {}
        for want in files:
            try:
                descriptor = open_regular(self.path(want))
            except OSError:
                raise RefusedError(
                    f"{want.sha256[:12]}… is not in the store", remedy="upload it first with `store put`"
                ) from None
            if os.fstat(descriptor).st_size != want.size:
                raise RefusedError(
                    f"{want.sha256[:12]}… has another size in the store", remedy="`store look` removes it"
                )
            found[want.sha256] = descriptor, want.size
        return found

    def prune(self, keep: int, *, dry_run: bool = False) -> list[str]:
        """Remove all but the ``keep`` last used bundles of each kind, those of the Hub's own generations, and
        uploads that were begun a day ago. The caller holds the lock, or all locks of the host.
        """
        if not self.directory.is_dir():
            return []
        needed, kept, going = self._needed(), dict[str, int](), []
        for path in sorted(self.directory.glob("*.tar"), key=lambda path: -path.lstat().st_mtime):
            manifest = peek_manifest(path) or {}
            kind = f"{manifest.get('kind', CORE)} {manifest.get('name', '')}" if manifest else "no bundle"
            kept[kind] = kept.get(kind, 0) + 1
            if kept[kind] > keep and manifest.get("content") not in needed:
                going.append(path)
        for path in self.directory.glob(f"*{PART}"):
            if path.lstat().st_mtime < time.time() - _OLD_PART_S:
                going.append(path)
        for path in going if not dry_run else ():
            path.unlink()
        if going and not dry_run:
            store.sync_directory(self.directory)
        return sorted(path.name for path in going)

    def _needed(self) -> set[str]:
        """Contents that generations of this host are made of."""
        entries = [
            entry
            for name in self.host.of_machine()
            for entry in state.load(name, self.host.service(name).state).generations.values()
        ]
        return {content for entry in entries for content in (entry.bundle, entry.extra) if content}

    def _locked(self, what: str, wait_s: float) -> Lock:
        store.ensure_directory(self.directory, 0o700)
        return Lock(self.directory / ".lock", f"store {what}", wait_s)
