"""Reads the records of order flow from the hosts of a lab, while nothing is under way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from deploy.fleet.inventory import resolve
from tests.faults.fleet.audit import Books, Deal, Submission
from tests.lab.engines import Fleet

READ = """
import json, sqlite3, sys
asked = json.loads(sys.argv[1])
answers = {}
for name, (path, query, values) in asked.items():
    books = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    rows = books.execute(query, values).fetchall()
    answers[name] = [[v.hex() if isinstance(v, bytes) else v for v in row] for row in rows]
print(json.dumps(answers))
"""
BROKER = "/var/lib/mt5crs/gateway/sim/broker.db"
GATEWAY = "/var/lib/mt5crs/gateway/journal.db"
RECONCILER = "/var/lib/mt5crs/reconciler/reconciler.db"
STRATEGY = "/var/lib/mt5crs/strategy/intents.db"
STRATEGY_UNIT = "mt5crs-strategy.service"
DEALS = "SELECT data FROM deals WHERE json_extract(data, '$.magic') = ? ORDER BY ticket"
POSITIONS = "SELECT data FROM positions WHERE json_extract(data, '$.magic') = ?"
SUBMISSIONS = (
    "SELECT client_order_id, comment_id, epoch, state, request, sent_msc, account FROM submissions "
    "WHERE magic = ? ORDER BY sent_msc, epoch"
)


@contextmanager
def quiet(fleet: Fleet) -> Iterator[None]:
    """No strategy trades while the body runs; those that ran are started again afterwards."""
    hosts = fleet.hosts("strategy")
    for host in hosts:
        fleet.lab.exec(host, ["systemctl", "stop", STRATEGY_UNIT], timeout_s=60)
    try:
        yield
    finally:
        for host in hosts:
            fleet.lab.exec(host, ["systemctl", "start", STRATEGY_UNIT], timeout_s=60)


def all_books(fleet: Fleet) -> list[Books]:
    """The records of every Inf host's magic number."""
    resolved = resolve(fleet.inventory, {}).hosts
    return [
        books_of(fleet, host, int(str(resolved[host]["strategy_magic_number"])))
        for host in fleet.hosts("strategy")
    ]


def deals_so_far(fleet: Fleet) -> int:
    """How many deals the broker has executed."""
    rows = ask(fleet, "gtw-01", n=(BROKER, "SELECT count(*) FROM deals", []))["n"]
    return int(rows[0][0])


def books_of(fleet: Fleet, host: str, magic: int) -> Books:
    """The records of a magic number that a host trades, or traded."""
    broker = ask(
        fleet,
        "gtw-01",
        deals=(BROKER, DEALS, [magic]),
        positions=(BROKER, POSITIONS, [magic]),
        submissions=(
            GATEWAY,
            SUBMISSIONS,
            [magic],
        ),
    )
    inf = ask(
        fleet,
        host,
        intents=(STRATEGY, "SELECT client_order_id, state FROM intent WHERE magic = ?", [magic]),
        record=(RECONCILER, "SELECT body FROM state WHERE magic = ?", [magic]),
    )
    return Books(
        magic=magic,
        deals=[_deal(json.loads(row[0])) for row in broker["deals"]],
        positions=_positions([json.loads(row[0]) for row in broker["positions"]]),
        submissions=[
            Submission(
                name,
                comment,
                int(epoch),
                state,
                json.loads(request).get("volume"),
                # What was refused has a moment too, by another clock than the broker's.
                sent=sent_msc > 0 and state != "refused",
                account=account,
            )
            for name, comment, epoch, state, request, sent_msc, account in broker["submissions"]
        ],
        intents=dict(inf["intents"]),
        reconciled=_recorded(inf["record"]),
    )


def _deal(data: dict[str, Any]) -> Deal:
    return Deal(
        ticket=data["ticket"],
        order=data["order"],
        position=data["position_id"],
        entry=data["entry"],
        volume=data["volume"],
        comment=data["comment"],
    )


def _positions(rows: list[dict[str, Any]]) -> dict[int, float]:
    return {row["identifier"]: row["volume"] for row in rows}


def _recorded(rows: list[list[Any]]) -> dict[int, float]:
    """Positions of the reconciler's own record."""
    if not rows:
        return {}
    return _positions(msgspec.msgpack.decode(bytes.fromhex(rows[0][0]))["positions"])


def ask(fleet: Fleet, host: str, **asked: tuple[str, str, list[int]]) -> dict[str, list[list[Any]]]:
    """Name → rows, for a database, a query and its values each."""
    command = ["/usr/bin/python3", "-c", READ, json.dumps(asked)]
    answers: dict[str, list[list[Any]]] = json.loads(fleet.lab.exec(host, command).stdout)
    return answers
