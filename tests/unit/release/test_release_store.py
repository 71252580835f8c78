"""The release store, with real HTTPS on loopback: fetched whole, resumed, or refused in one sentence."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mt5crs_release.distribution import fetching, partial, release_store, store_server
from mt5crs_release.distribution.fetching import fetch
from mt5crs_release.distribution.pacing import Pace
from mt5crs_release.distribution.partial import Part, Wanted, WrongContentError
from mt5crs_release.distribution.release_store import ReleaseStore
from mt5crs_release.distribution.store_server import StoreServer
from mt5crs_release.errors import BusyError, FailedError, RefusedError, ReleaseError
from mt5crs_release.storage.lock import Lock
from mt5crs_release.storage.paths import Host
from tests.release_host.host import FakeHost

CONTENT = bytes(range(256)) * 4096
"""1 MiB."""
DIGEST = hashlib.sha256(CONTENT).hexdigest()
WANT = Wanted(DIGEST, len(CONTENT), "mt5crs-1.tar")
FAST = 1e9
TOKEN = "token-of-this-deployment"


class Certificate(NamedTuple):
    file: Path
    key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Certificate]:
    """Two, made as the Hub makes its own."""
    found = []
    for name in ("ours", "theirs"):
        directory = tmp_path_factory.mktemp(name)

        @contextlib.contextmanager
        def kept(prefix: str, to: Path = directory) -> Iterator[str]:
            assert prefix == "mt5crs-store-"
            yield str(to)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_server.tempfile, "TemporaryDirectory", kept)
            store_server._own_certificate()
        found.append(Certificate(directory / "certificate.pem", directory / "key.pem"))
    return found


@pytest.fixture
def hub(tmp_path: Path) -> ReleaseStore:
    store = ReleaseStore(Host(tmp_path / "hub"))
    assert put(store, CONTENT)["changed"]
    return store


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path / "host")
    made.bundles.mkdir(parents=True)
    return made


def put(store: ReleaseStore, content: bytes, offset: int = 0, cut_at: int | None = None) -> dict[str, Any]:
    want = Wanted(hashlib.sha256(content).hexdigest(), len(content))
    return store.put(want, offset, io.BytesIO(content[offset:cut_at]).read, wait_s=0)


class Serving(NamedTuple):
    server: Any
    request: dict[str, Any]


Serve = Callable[..., Serving]


@pytest.fixture
def serve(hub: ReleaseStore, certificates: list[Certificate]) -> Iterator[Serve]:
    """Starts the real server on a free port; `request` is what a host is told."""
    running: list[StoreServer] = []

    def start(
        make: type[StoreServer] = StoreServer, host_bytes_s: float = FAST, total_bytes_s: float = FAST
    ) -> Serving:
        own = certificates[0]
        context = store_server.server_context(own.file, own.key)
        files = hub.opened([WANT])
        server = make(("127.0.0.1", 0), context, TOKEN, files, host_bytes_s, total_bytes_s)
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        running.append(server)
        return Serving(server, told(server.server_address[1], own))

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def told(port: int, certificate: Certificate, *files: Wanted) -> dict[str, Any]:
    return {
        "address": "127.0.0.1",
        "port": port,
        "certificate": certificate.file.read_text(),
        "token": TOKEN,
        "within_s": 30,
        "files": [want._asdict() for want in files or (WANT,)],
    }


def part_of(host: Host) -> Path:
    return host.bundles / f"{DIGEST}.part"


def fetched(host: Host) -> bool:
    return (host.bundles / WANT.name).read_bytes() == CONTENT


# --- the upload to the Hub


def test_a_cut_upload_goes_on_where_it_was(tmp_path: Path) -> None:
    store = ReleaseStore(Host(tmp_path))
    with pytest.raises(FailedError, match="cut after 400000 of 1048576 bytes"):
        put(store, CONTENT, cut_at=400_000)
    assert store.look([WANT], wait_s=0)["files"][DIGEST] == {
        "bytes": 400_000,
        "whole": False,
        "damaged": False,
    }
    with pytest.raises(RefusedError, match=r"400000 bytes of .* are here, the upload goes on at 3"):
        put(store, CONTENT, offset=3)
    assert put(store, CONTENT, offset=400_000)["bytes"] == len(CONTENT) - 400_000
    assert store.look([WANT], wait_s=0)["files"][DIGEST] == {"bytes": len(CONTENT), "whole": True}
    assert store.directory.stat().st_mode & 0o777 == 0o700


def test_what_is_not_the_file_it_claims_to_be_is_not_kept(tmp_path: Path) -> None:
    store = ReleaseStore(Host(tmp_path))
    for content, why in ((CONTENT[:-1] + b"?", "SHA-256"), (CONTENT + b"?", "more than the 1048576 bytes")):
        with pytest.raises(WrongContentError, match=why):
            store.put(WANT, 0, io.BytesIO(content).read, wait_s=0)
        assert store.look([WANT], wait_s=0)["files"][DIGEST]["bytes"] == 0


def test_a_file_that_was_tampered_with_in_the_store_is_wanted_anew(hub: ReleaseStore) -> None:
    path = hub.path(WANT)
    path.write_bytes(b"!" + CONTENT[1:])
    assert hub.look([WANT], wait_s=0)["files"][DIGEST] == {"bytes": 0, "whole": False, "damaged": True}
    assert not path.exists()
    path.symlink_to("/etc/passwd")
    assert hub.look([WANT], wait_s=0)["files"][DIGEST]["damaged"]
    with pytest.raises(RefusedError, match="not in the store"):
        hub.opened([WANT])


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, host: Host, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = serve().request
    usage = shutil.disk_usage(tmp_path)._replace(free=50 * 1000**2)
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FailedError, match="50 MB free, 68 MB are needed") as caught:
        put(ReleaseStore(Host(tmp_path / "other")), CONTENT)
    assert "mt5crs-release prune" in caught.value.remedy
    with pytest.raises(FailedError, match="50 MB free, 68 MB are needed"):
        fetch(host, request, wait_s=0)


def test_the_store_keeps_what_was_used_last_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ReleaseStore(Host(tmp_path))
    kinds = {b"c": ("core", ""), b"a": ("strategy", "alpha"), b"b": ("strategy", "beta")}

    def manifest(path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        kind, name = kinds[content[:1]]
        return {"kind": kind, "name": name, "content": content.decode()}

    monkeypatch.setattr(release_store, "peek_manifest", manifest)
    monkeypatch.setattr(ReleaseStore, "_needed", lambda _: {"c0"})
    began = time.time() - 1000
    for number, content in enumerate((b"c0", b"c1", b"c2", b"c3", b"c4", b"a0", b"b0")):
        put(store, content)
        path = store.path(Wanted(hashlib.sha256(content).hexdigest(), len(content)))
        os.utime(path, (began + number, began + number))
    old, fresh = store.directory / f"{'0' * 64}.part", store.directory / f"{'1' * 64}.part"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    fresh.write_bytes(b"")
    store.prune(3, dry_run=True)
    assert old.exists()
    assert old.name in store.prune(3)
    left = sorted(path.read_bytes() for path in store.directory.glob("*.tar"))
    assert left == [b"a0", b"b0", b"c0", b"c2", b"c3", b"c4"]  # c0: a generation of the Hub is made of it
    assert fresh.exists()
    assert not old.exists()


# --- fetching


def test_a_host_fetches_once_and_then_has_it(host: Host, serve: Serve) -> None:
    server, request = serve()
    assert fetch(host, request, wait_s=0) == {
        "changed": True,
        "bytes": len(CONTENT),
        "files": [{"name": WANT.name, "bytes": len(CONTENT), "resumed_at": 0, "from": "hub"}],
    }
    assert fetched(host)
    assert (host.bundles / WANT.name).stat().st_mode & 0o777 == 0o644
    again = fetch(host, request, wait_s=0)
    assert (again["changed"], again["bytes"], again["files"][0]["from"]) == (False, 0, "here")
    assert server.sent == {"127.0.0.1": len(CONTENT)}


def test_the_hub_takes_its_own_without_a_copy(hub: ReleaseStore, serve: Serve) -> None:
    server, request = serve()
    hub.host.bundles.mkdir(parents=True)
    assert fetch(hub.host, request, wait_s=0)["files"][0]["from"] == "own store"
    assert (hub.host.bundles / WANT.name).samefile(hub.path(WANT))
    assert server.sent == {}


class Cutting(StoreServer):
    """Ends each connection after 300 kB; counts them."""

    connections = 0

    def pace(self, peer: str, count: int) -> None:  # noqa: ARG002
        gone = self.sent.get("now", 0)
        if gone + count > 300_000:
            self.sent["now"] = 0
            type(self).connections += 1
            raise OSError("cut")
        self.sent["now"] = gone + count


def test_a_cut_fetch_goes_on_where_it_was(host: Host, serve: Serve) -> None:
    _, request = serve(Cutting, 1e6)  # blocks of 100 kB
    Cutting.connections = 0
    with pytest.raises(FailedError, match=r"cut off 3 times, last after 900000 of 1048576 bytes"):
        fetch(host, request, wait_s=0)
    assert Cutting.connections == 3
    assert part_of(host).stat().st_size == 900_000
    assert fetch(host, request, wait_s=0)["files"][0] == {
        "name": WANT.name,
        "bytes": len(CONTENT) - 900_000,
        "resumed_at": 900_000,
        "from": "hub",
    }
    assert fetched(host)
    assert not part_of(host).exists()


def test_a_file_tampered_with_while_it_is_served_is_refused(
    hub: ReleaseStore, host: Host, serve: Serve
) -> None:
    request = serve().request
    with hub.path(WANT).open("r+b") as stream:
        stream.write(b"!")
    with pytest.raises(WrongContentError, match=f"expected was {DIGEST[:12]}"):
        fetch(host, request, wait_s=0)
    assert not any(host.bundles.glob("*.tar"))
    assert not part_of(host).exists()


def test_who_has_another_certificate_gets_no_token(
    host: Host, serve: Serve, certificates: list[Certificate]
) -> None:
    server, request = serve()
    asked: list[str] = []
    server.note = lambda *arguments: asked.append(str(arguments))
    request["certificate"] = certificates[1].file.read_text()
    with pytest.raises(FailedError, match="not the Hub's store of this deployment: its certificate differs"):
        fetch(host, request, wait_s=0)
    assert asked == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"token": "another"}, "answers '401'"),
        ({"files": [{"sha256": "0" * 64, "size": 5, "name": "a.tar"}]}, "answers '404'"),
        ({"files": [WANT._replace(size=len(CONTENT) + 1)._asdict()]}, "wanted was 206 'bytes 0-1048576/"),
        ({"files": [WANT._replace(size=len(CONTENT) - 1)._asdict()]}, "wanted was 206 'bytes 0-1048574/"),
        ({"port": 1}, "does not answer: Connection refused"),
    ],
)
def test_a_store_that_does_not_give_it_is_one_sentence(
    host: Host, serve: Serve, changed: dict[str, Any], why: str
) -> None:
    request = serve().request
    with pytest.raises(FailedError, match=why) as caught:
        fetch(host, {**request, **changed}, wait_s=0)
    assert "uploads the bundle directly" in caught.value.remedy
    assert not any(host.bundles.glob("*.tar"))


@pytest.mark.parametrize(
    "changed",
    [
        {"files": []},
        {"files": [WANT._replace(name="../x.tar")._asdict()]},
        {"files": [WANT._replace(name=".x.tar")._asdict()]},
        {"files": [WANT._replace(sha256="0")._asdict()]},
        {"files": [WANT._replace(size=0)._asdict()]},
        {"files": [{**WANT._asdict(), "size": True}]},
        {"files": ["x"]},
        {"certificate": "none"},
        {"token": ""},
        {"port": "8084"},
    ],
)
def test_a_request_that_cannot_be_is_refused(host: Host, serve: Serve, changed: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        fetch(host, {**serve().request, **changed}, wait_s=0)


class Dripping(StoreServer):
    """Sends 4 KB at a time, each a moment after the other."""

    def pace(self, peer: str, count: int) -> None:  # noqa: ARG002
        time.sleep(0.03)


def test_a_store_that_drips_is_left(host: Host, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_WINDOW_S", 0.1)
    request = serve(Dripping, 4096.0).request
    with pytest.raises(FailedError, match=r"too slow: [0-9]+ of 1048576 bytes came"):
        fetch(host, {**request, "least_bytes_s": 1e6}, wait_s=0)
    held = part_of(host).stat().st_size
    assert 0 < held < len(CONTENT)
    with pytest.raises(FailedError, match="too slow"):
        fetch(host, {**request, "within_s": 0}, wait_s=0)
    assert part_of(host).stat().st_size > held


def test_a_listener_that_says_nothing_is_left(
    host: Host, certificates: list[Certificate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_BEGIN_S", 0.1)
    began = time.monotonic()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(FailedError, match="does not answer"),
    ):
        fetch(host, told(silent.getsockname()[1], certificates[0]), wait_s=0)
    assert time.monotonic() - began < fetching._SILENCE_S / 2  # that is for each piece, this for all of them


def test_a_second_fetch_waits_for_the_first(host: Host, serve: Serve) -> None:
    server, request = serve()
    with Lock(host.bundles / ".fetch.lock", "fetch", 0), pytest.raises(BusyError, match="`fetch`"):
        fetch(host, request, wait_s=0)
    done: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: done.append(fetch(host, request, wait_s=10))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(entry["files"][0]["from"] for entry in done) == ["here", "hub"]
    assert server.sent == {"127.0.0.1": len(CONTENT)}


@pytest.mark.parametrize("kind", ["link", "directory", "two names", "too long"])
def test_what_lies_where_the_part_belongs_is_not_followed(
    tmp_path: Path, host: Host, serve: Serve, kind: str
) -> None:
    victim, part = tmp_path / "victim", part_of(host)
    victim.write_bytes(b"precious")
    if kind == "link":
        part.symlink_to(victim)
    elif kind == "directory":
        part.mkdir()
    elif kind == "two names":
        part.hardlink_to(victim)
    else:
        part.write_bytes(CONTENT + b"?")
    (host.bundles / WANT.name).symlink_to(victim)
    fetch(host, serve().request, wait_s=0)
    assert fetched(host)
    assert not (host.bundles / WANT.name).is_symlink()
    assert victim.read_bytes() == b"precious"


def test_a_full_disk_keeps_what_came(host: Host, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    request, append = serve().request, Part.append

    def full(part: Part, block: bytes) -> None:
        if part.held > 200_000:
            raise OSError(28, "No space left on device")
        append(part, block)

    with monkeypatch.context() as patch:
        patch.setattr(Part, "append", full)
        with pytest.raises((OSError, ReleaseError), match="No space left on device"):
            fetch(host, request, wait_s=0)
    assert part_of(host).stat().st_size > 200_000
    assert fetch(host, request, wait_s=0)["files"][0]["resumed_at"] > 200_000


# --- how fast


def test_a_pace_is_kept_and_not_saved_up() -> None:
    clock = [100.0]
    pace = Pace(1000.0, lambda: clock[0])
    assert [pace.take(500) for _ in range(3)] == [0.0, 0.5, 1.0]
    clock[0] += 60
    assert [pace.take(500) for _ in range(2)] == [0.0, 0.5]


def test_hosts_together_stay_below_the_total(host: Host, tmp_path: Path, serve: Serve) -> None:
    request = serve(StoreServer, FAST, 5e6).request
    others = [host, Host(tmp_path / "second")]
    began = time.monotonic()
    threads = [threading.Thread(target=fetch, args=[one, request], kwargs={"wait_s": 0}) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all(fetched(one) for one in others)
    assert time.monotonic() - began > (2 * len(CONTENT) - 2 * 262_144) / 5e6


def test_one_peer_has_few_connections(hub: ReleaseStore, serve: Serve) -> None:
    server = serve().server
    server._open["127.0.0.1"] = store_server._MOST_OF_ONE
    assert not server.verify_request(None, ("127.0.0.1", 1))
    assert server.verify_request(None, ("127.0.0.2", 1))


# --- the commands


def test_served_by_the_tool_until_its_input_ends(tmp_path: Path, host: Host) -> None:
    hub = FakeHost.create(tmp_path / "root")
    root = ["--json", "--root", str(hub.root)]
    tool = [sys.executable, "-m", "mt5crs_release"]
    environment = {**os.environ, "PYTHONPATH": str(Path(release_store.__file__).parents[2])}
    environment["TMPDIR"] = str(tmp_path)
    uploading = [*tool, "store", "put", *root, "--sha256", DIGEST, "--size", str(len(CONTENT))]
    done = subprocess.run(uploading, input=CONTENT, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    request = {"address": "127.0.0.1", "port": 0, "host_mb_s": 100, "total_mb_s": 100, "within_s": 60}
    request["files"] = [{"sha256": DIGEST, "size": len(CONTENT)}]
    with subprocess.Popen(
        [*tool, "store", "serve", *root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as serving:
        assert serving.stdin is not None
        assert serving.stdout is not None
        serving.stdin.write(json.dumps(request).encode() + b"\n")
        serving.stdin.flush()
        said = json.loads(serving.stdout.readline())
        fetch(
            host,
            {**said, "address": "127.0.0.1", "within_s": 20, "files": [WANT._asdict()]},
            wait_s=0,
        )
        serving.stdin.close()
        assert json.loads(serving.stdout.read())["sent"] == {"127.0.0.1": len(CONTENT)}
        assert serving.wait(10) == 0
    assert fetched(host)
    kept = json.loads((hub.base / "store/access.jsonl").read_text())
    assert (kept["peer"], kept["file"], kept["status"], kept["bytes"]) == (
        "127.0.0.1",
        DIGEST,
        206,
        len(CONTENT),
    )
    assert said["token"] not in (hub.base / "store/access.jsonl").read_text()
    assert not list(tmp_path.glob("mt5crs-store-*"))
