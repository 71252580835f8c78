"""The second bundle of a generation (a strategy's): verified like the first; its data unpacked once.

Data lies in a directory of its own, named by its content, so that a model of 2 GB is on the disk once,
however many generations have it; each links to it and brings it back with itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mt5crs_release.bundles import runtime_files, runtime_marker
from mt5crs_release.bundles.bundle import DATA, STRATEGY, Bundle
from mt5crs_release.desired.digest import SHORT
from mt5crs_release.desired.spec import ExtraBundle
from mt5crs_release.errors import RefusedError
from mt5crs_release.storage import store
from mt5crs_release.storage.paths import COMPLETE, TEMPORARY, Host


def data_name(data: str) -> str:
    """Return the name of the directory, beside the runtimes, that holds the data with this digest."""
    return f"{data[:SHORT]}-data"


@contextmanager
def opened(host: Host, extra: ExtraBundle) -> Iterator[Bundle]:
    """The bundle that a specification names, verified.

    :raises RefusedError: it is not on the host, not signed, damaged, for other hosts, or not the one named
    """
    with Bundle(host.bundles / extra.file, host.allowed_signers) as bundle:
        bundle.check_kind(STRATEGY)
        bundle.check_platform()
        if (bundle.content, bundle.code, bundle.data) != (extra.content, extra.code, extra.data):
            raise RefusedError(
                f"{extra.file} has the content {bundle.content}, expected was {extra.content}",
                remedy="upload the bundle the deployment was planned with; nothing was changed",
            )
        yield bundle


def build_data(host: Host, extra: ExtraBundle, beat: Callable[[str], None]) -> None:
    """Unpack the data of ``extra`` unless it is there, unchanged. The caller holds the lock of the runtimes.

    :raises RefusedError: as :func:`opened`
    :raises OSError: the disk is full; what was begun is removed
    """
    if extra.data is None:
        return
    target = host.runtimes / data_name(extra.data)
    record = runtime_marker.read(host, target.name)
    if record is not None and record.get("content") == extra.data and not runtime_files.problems(target):
        return
    with opened(host, extra) as bundle:
        store.ensure_directory(host.runtimes)
        store.sweep(host.runtimes)
        temporary = host.runtimes / f"{TEMPORARY}data.{os.getpid()}"
        try:
            temporary.mkdir(0o755)
            beat("unpacking the strategy's data")
            bundle.unpack(temporary, data=True)
            made = temporary / DATA
            for path in made.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o444)
            record = {"files": runtime_files.record(made), "content": extra.data, "bundle": extra.file}
            store.sync_file_system(made)
            store.write_new(made / COMPLETE, json.dumps(record).encode(), 0o644)
            if target.exists():
                # What runs has its files open or has read them; they stay until the next build.
                target.rename(host.runtimes / f"{TEMPORARY}changed.{os.getpid()}")
            store.publish_directory(made, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
