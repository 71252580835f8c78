"""The auditor of order flow sees what it is there for: each kind of damage makes it red."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.fleet.audit import Books, Deal, Submission, audit

OPENED = Deal(ticket=1, order=11, position=11, entry="IN", volume=0.1, comment="c-a")
CLOSED = Deal(ticket=2, order=12, position=11, entry="OUT", volume=0.1, comment="c-b")
HELD = Deal(ticket=3, order=13, position=13, entry="IN", volume=0.1, comment="c-c")
GOOD = Books(
    magic=7,
    deals=(OPENED, CLOSED, HELD),
    positions={13: 0.1},
    submissions=(
        Submission("a", "c-a", 1, "done", 0.1),
        Submission("b", "c-b", 1, "done", 0.1),
        Submission("c", "c-c", 2, "done", 0.1),
    ),
    intents={"a": "done", "b": "done", "c": "done"},
    reconciled={13: 0.1},
)


def test_sound_books_are_silent() -> None:
    assert audit(GOOD) == []


def test_an_order_refused_before_it_was_sent_has_no_place_in_the_order_of_epochs() -> None:
    refused = Submission("d", "c-d", 9, "refused", 0.1, sent=False)
    assert audit(replace(GOOD, submissions=(refused, *GOOD.submissions))) == []


def test_each_account_counts_its_own_epochs() -> None:
    elsewhere = tuple(replace(one, epoch=40 + at, account="a") for at, one in enumerate(GOOD.submissions[:2]))
    assert audit(replace(GOOD, submissions=(*elsewhere, *GOOD.submissions[2:]))) == []


DAMAGE = {
    "executed twice": (
        replace(GOOD, deals=(*GOOD.deals, replace(HELD, ticket=4, order=14, position=13))),
        "magic 7: doubled order: c-c was executed as orders [13, 14]",
    ),
    "executed for more than was asked": (
        replace(GOOD, deals=(OPENED, CLOSED, replace(HELD, volume=0.2)), positions={13: 0.2}),
        "magic 7: doubled order: c-c asked for 0.1 lots, 0.2 were executed",
    ),
    "unknown to the gateway": (
        replace(GOOD, submissions=GOOD.submissions[:2]),
        "magic 7: unknown order: c-c was executed, the gateway's journal did not send it",
    ),
    "refused by the gateway, executed all the same": (
        replace(GOOD, submissions=(*GOOD.submissions[:2], replace(GOOD.submissions[2], sent=False))),
        "magic 7: unknown order: c-c was executed, the gateway's journal did not send it",
    ),
    "unknown to the strategy": (
        replace(GOOD, intents={"a": "done", "b": "done"}),
        "magic 7: unknown order: c was executed, the strategy has no such intent",
    ),
    "taken for not executed": (
        replace(GOOD, intents={**GOOD.intents, "c": "never_sent"}),
        "magic 7: lost order: c was executed, the strategy holds it for never_sent",
    ),
    "done without a submission": (
        replace(GOOD, intents={**GOOD.intents, "d": "done"}),
        "magic 7: lost order: d is done for the strategy, the gateway's journal knows nothing of it",
    ),
    "position gone at the broker": (
        replace(GOOD, positions={}),
        "magic 7: lost position: 13 is 0.1 lots by its deals, 0 lots for the broker",
    ),
    "position gone at the reconciler": (
        replace(GOOD, reconciled={}),
        "magic 7: lost position: 13 is 0.1 lots by its deals, 0 lots for the reconciler",
    ),
    "position out of nothing": (
        replace(GOOD, positions={13: 0.1, 99: 0.3}),
        "magic 7: lost position: 99 is 0 lots by its deals, 0.3 lots for the broker",
    ),
    "old epoch after a new one": (
        replace(GOOD, submissions=(*GOOD.submissions[1:], GOOD.submissions[0])),
        "magic 7: stale epoch: a was sent under 1, after one under 2",
    ),
    "gateway does not know": (
        replace(GOOD, submissions=(*GOOD.submissions[:2], replace(GOOD.submissions[2], state="sent"))),
        "magic 7: unresolved: the gateway does not know what became of c",
    ),
    "strategy does not know": (
        replace(GOOD, intents={**GOOD.intents, "c": "unknown"}),
        "magic 7: unresolved: the strategy does not know what became of c",
    ),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damage_is_seen(damage: str) -> None:
    books, said = DAMAGE[damage]
    assert said in audit(books)
