"""`mt5crs audit`: is this installation whole? Four parts: imports, structure, function, unit tests."""

from __future__ import annotations

import importlib
import pkgutil
import sqlite3
import sys
import tempfile
import threading
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path

import click

import mt5crs
from mt5crs.operate.connection import json_option
from mt5crs.operate.env_modes import readable_by_others
from mt5crs.operate.report import Report, Warned, exit_status, show
from mt5crs.version import product_version

_EXPECTED = (OSError, ImportError, ValueError, sqlite3.Error)
_WINDOWS_ONLY = frozenset({"mt5crs.broker.mt5"})


class AuditError(ValueError):
    """A part of the installation is not as it must be."""


def audit_installation(env_file: Path | None) -> Report:
    """Run the four parts; each has at least one finding, named `part: check`."""
    report = Report(title=f"Audit of mt5crs {product_version()} in {sys.prefix}")
    report.run("imports: modules", _modules, _EXPECTED)
    report.run("imports: dependencies", _dependencies, _EXPECTED)
    report.run("structure: entry points", _entry_points, _EXPECTED)
    if env_file is not None:
        report.run("structure: .env", lambda: _env_file(env_file), _EXPECTED)
        report.run("structure: generation", lambda: _generation(env_file), _EXPECTED)
    report.run("function: durable storage", _storage, _EXPECTED)
    report.run("function: encrypted socket", _encrypted_round_trip, _EXPECTED)
    report.run("unit tests", _unit_tests, _EXPECTED)
    return report


def _modules() -> str:
    names = [
        module.name
        for module in pkgutil.walk_packages(mt5crs.__path__, "mt5crs.")
        if not module.name.endswith("__main__")
    ]
    broken = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if not any(name.startswith(skipped) for skipped in _WINDOWS_ONLY) or sys.platform == "win32":
                broken.append(f"{name}: {error}")
    if broken:
        raise AuditError("; ".join(broken) + "; deploy the release again")
    return f"{len(names)} modules"


def _dependencies() -> str:
    found = []
    for requirement in requires("mt5crs") or []:
        if "extra ==" in requirement:
            continue
        name = requirement.split(";")[0].strip()
        for character in "<>=!~ [":
            name = name.split(character)[0]
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError as error:
            raise AuditError(f"{name} is not installed; deploy the release again") from error
    return ", ".join(found)


def _entry_points() -> str:
    names = sorted(point.name for point in entry_points(group="mt5crs.strategies"))
    if "example" not in names:
        raise AuditError("the strategy `example` is not registered; the wheel was not installed properly")
    return f"strategies: {', '.join(names)}"


def _env_file(path: Path) -> str:
    from mt5crs.settings import envfile

    if wrong := readable_by_others(path):
        raise AuditError(wrong)
    return f"{path} is its owner's only, {len(envfile.read(path))} settings that can be read"


def _generation(env_file: Path) -> str:
    directory = env_file.resolve().parent
    missing = [name for name in ("manifest.json", "venv", "units") if not (directory / name).exists()]
    if missing:
        raise AuditError(f"{directory} lacks {', '.join(missing)}; deploy again or roll back")
    if not env_file.parent.is_symlink():
        raise Warned(f"{env_file.parent} is not the `current` link; this is not what the service runs on")
    return f"{env_file.parent} is {directory.name}"


def _storage() -> str:
    with tempfile.TemporaryDirectory() as directory:
        database = sqlite3.connect(Path(directory) / "audit.db", isolation_level=None)
        mode = database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE t (x INTEGER) STRICT")
        database.execute("INSERT INTO t VALUES (1)")
        database.close()
    if mode != "wal":
        raise AuditError(f"SQLite uses the journal mode {mode} here, not WAL; use a local file system")
    return f"SQLite {sqlite3.sqlite_version}, WAL, full sync"


def _encrypted_round_trip() -> str:
    """A CURVE server of ours answers its client and refuses a stranger's server key."""
    import zmq

    from mt5crs.protocol import curve

    public, secret = curve.new_keypair()
    _, client_secret = curve.new_keypair()
    wrong_public, _ = curve.new_keypair()
    context: curve.Context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    try:
        curve.server_options(server)
        server.setsockopt(zmq.CURVE_SERVER, 1)
        server.setsockopt(zmq.CURVE_SECRETKEY, curve.hex_to_z85(secret, "key"))
        port = server.bind_to_random_port("tcp://127.0.0.1")

        def echo() -> None:
            if server.poll(5000):
                server.send_multipart(server.recv_multipart())

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        answered = _exchange(context, port, public, client_secret)
        thread.join(6)
        if not answered:
            raise AuditError("an encrypted message did not come back; libzmq lacks CURVE, deploy again")
        if _exchange(context, port, wrong_public, client_secret, 300):
            raise AuditError("a connection with a wrong server key worked; do not use this libzmq")
    finally:
        context.destroy(0)
    return f"libzmq {zmq.zmq_version()}: CURVE works, a wrong key does not"


def _exchange(context: object, port: int, server_key: str, secret: str, timeout_ms: int = 5000) -> bool:
    import zmq

    from mt5crs.protocol import curve

    assert isinstance(context, zmq.Context)  # noqa: S101  (for the type checker)
    client = context.socket(zmq.DEALER)
    curve.secure_client(client, server_key, secret)
    client.connect(f"tcp://127.0.0.1:{port}")
    if not client.poll(timeout_ms, zmq.POLLOUT):
        return False
    client.send(b"audit")
    return bool(client.poll(timeout_ms)) and client.recv() == b"audit"


def _unit_tests() -> str:
    from mt5crs.checks import selftests

    result = selftests.run()
    bad = [str(case) for case, _ in (*result.failures, *result.errors)]
    if bad:
        raise AuditError(f"{len(bad)} of {result.testsRun} failed: {', '.join(bad)}; deploy again")
    return f"{result.testsRun} passed"


@click.command()
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also audit this .env and the generation it belongs to.",
)
@json_option
def audit(env_file: Path | None, as_json: bool) -> None:
    """Audit the installation in four parts. Exit 1 when one fails."""
    report = audit_installation(env_file)
    show(report, as_json=as_json)
    raise SystemExit(exit_status(report))
