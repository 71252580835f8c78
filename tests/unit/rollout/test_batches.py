"""The steps of a roll-out: which hosts, in which order, how many at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.rollout.batches import (
    ALL_AT_ONCE,
    BASELINE,
    CANARY,
    GATEWAY,
    HUB,
    INF,
    KINDS,
    MONITORING,
    STRATEGIES,
    Link,
    OrderError,
    Policy,
    Spoken,
    Step,
    at_once,
    order_of,
    steps,
    waiting,
)

CONTROL, GTW = "hub-01", "gtw-01"
REVIEW = "review"


def fleet(inf: int, gateways: int = 1) -> dict[str, list[str]]:
    """Hosts by kind of step."""
    traders = [f"inf-{number:02}" for number in range(1, inf + 1)]
    doors = [f"gtw-{number:02}" for number in range(1, gateways + 1)]
    everyone = [CONTROL, *traders, *doors]
    return {
        BASELINE: everyone,
        GATEWAY: doors,
        INF: traders,
        **{kind: [CONTROL] for kind in (HUB, REVIEW)},
        MONITORING: everyone,
    }


def hosts_of(made: tuple[Step, ...], kind: str) -> list[tuple[str, ...]]:
    return [step.hosts for step in made if step.kind == kind]


def test_rolling_through_the_lab() -> None:
    members = fleet(2)
    made = steps(Policy(), members, members)
    assert [(step.kind, step.hosts) for step in made] == [
        (BASELINE, (CONTROL, "inf-01", "inf-02", GTW)),
        (GATEWAY, (GTW,)),
        (INF, ("inf-01",)),
        (INF, ("inf-02",)),
        (HUB, (CONTROL,)),
        (REVIEW, (CONTROL,)),
        (MONITORING, (CONTROL, "inf-01", "inf-02", GTW)),
    ]
    assert [step.name for step in made] == [
        "1/7 hub-01 … gtw-01 (4)",
        "2/7 gtw-01",
        "3/7 inf-01",
        "4/7 inf-02",
        "5/7 hub-01",
        "6/7 hub-01",
        "7/7 hub-01 … gtw-01 (4)",
    ]
    assert made[2].services == ("reconciler", "strategy")


def test_who_trades_as_it_will_be() -> None:
    members = fleet(2)
    made = steps(
        Policy(), members, {BASELINE: [GTW, "inf-01"], GATEWAY: [GTW], INF: ["inf-01"], HUB: [CONTROL]}
    )
    everyone = members[BASELINE]
    assert waiting(made, 0, everyone) == set(everyone)
    assert waiting(made, 1, everyone) == {CONTROL, GTW, "inf-01", "inf-02"}
    assert waiting(made, 2, everyone) == {CONTROL, "inf-01", "inf-02"}
    assert waiting(made, 3, everyone) == set(), "the Hub and the monitoring trade nothing"


def test_canary_widens_and_ends_each_stage() -> None:
    members = fleet(40)
    made = [step for step in steps(Policy(CANARY), members, members) if step.kind == INF]
    assert [(len(step.hosts), step.stage_ends) for step in made] == [
        (2, True),
        (6, True),
        (10, False),
        (2, True),
        (10, False),
        (10, True),
    ]


def test_all_at_once_is_one_step_of_each_kind() -> None:
    members = fleet(9)
    made = steps(Policy(ALL_AT_ONCE), members, members)
    assert [len(step.hosts) for step in made] == [11, 1, 9, 1, 1, 11]


def test_only_hosts_with_something_to_do() -> None:
    members = fleet(4)
    assert steps(Policy(), members, {}) == ()
    made = steps(Policy(CANARY), members, {INF: ["inf-03"]})
    assert [(step.kind, step.hosts) for step in made] == [(INF, ("inf-03",))]


@pytest.mark.parametrize(
    ("hosts", "percent", "expected"),
    [(1, 25, 1), (2, 25, 1), (2, 100, 1), (8, 25, 2), (40, 25, 10), (3, 1, 1)],
)
def test_how_many_may_be_down(hosts: int, percent: int, expected: int) -> None:
    assert at_once(hosts, percent) == expected


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Policy, dict[str, list[str]], dict[str, list[str]]]:
    members = fleet(draw(st.integers(1, 60)), draw(st.integers(1, 5)))
    busy = {kind: draw(st.lists(st.sampled_from(hosts), unique=True)) for kind, hosts in members.items()}
    stages = sorted(draw(st.sets(st.integers(1, 99), max_size=5)))
    policy = Policy(draw(st.sampled_from(STRATEGIES)), (*stages, 100), draw(st.integers(1, 100)))
    return policy, members, busy


@given(rollouts())
def test_every_host_with_something_to_do_is_in_exactly_one_step(
    rollout: tuple[Policy, dict[str, list[str]], dict[str, list[str]]],
) -> None:
    policy, members, busy = rollout
    made = steps(policy, members, busy)
    for kind in KINDS:
        placed = [host for batch in hosts_of(made, kind) for host in batch]
        assert sorted(placed) == sorted(busy[kind])
        assert placed == [host for host in members[kind] if host in set(placed)], (
            "the inventory's order is kept"
        )
    assert all(step.hosts for step in made)


@given(rollouts())
def test_no_more_hosts_than_allowed_are_down_together(
    rollout: tuple[Policy, dict[str, list[str]], dict[str, list[str]]],
) -> None:
    policy, members, busy = rollout
    for step in steps(policy, members, busy):
        of = len(members[step.kind])
        if policy.strategy == ALL_AT_ONCE or step.kind in (BASELINE, HUB, REVIEW, MONITORING):
            continue
        assert len(step.hosts) <= max(1, of * policy.max_unavailable_percent / 100)
        assert of == 1 or len(step.hosts) < of


@given(rollouts(), st.sampled_from([(GATEWAY, INF), (INF, GATEWAY)]))
def test_kinds_keep_their_order(
    rollout: tuple[Policy, dict[str, list[str]], dict[str, list[str]]], order: tuple[str, str]
) -> None:
    kinds = [step.kind for step in steps(*rollout, order)]
    assert kinds == sorted(kinds, key=(BASELINE, *order, HUB, REVIEW, MONITORING).index)


@given(rollouts())
def test_canary_reaches_no_further_than_its_stage(
    rollout: tuple[Policy, dict[str, list[str]], dict[str, list[str]]],
) -> None:
    policy, members, busy = rollout
    policy = Policy(CANARY, policy.canary_steps, policy.max_unavailable_percent)
    for kind in (GATEWAY, INF):
        made = [step for step in steps(policy, members, busy) if step.kind == kind]
        reached, sizes = 0, []
        for step in made:
            reached += len(step.hosts)
            if step.stage_ends:
                sizes.append(reached)
        allowed = {-(-len(busy[kind]) * percent // 100) for percent in policy.canary_steps} - {0}
        assert sizes == sorted(allowed)
        assert not made or made[-1].stage_ends


ONE, TWO, BOTH = Spoken(1, 1), Spoken(2, 2), Spoken(1, 2)


def link(inf_now: Spoken | None, inf: Spoken, gateway_now: Spoken | None, gateway: Spoken) -> Link:
    return Link("inf-01", GTW, inf_now, inf, gateway_now, gateway)


def test_the_gateway_is_first_unless_the_versions_say_otherwise() -> None:
    assert order_of([]) == (GATEWAY, INF)
    assert order_of([link(ONE, ONE, ONE, ONE)]) == (GATEWAY, INF)
    assert order_of([link(ONE, BOTH, ONE, BOTH)]) == (GATEWAY, INF)
    assert order_of([link(None, TWO, None, TWO)]) == (GATEWAY, INF)
    # The new gateway has forgotten version 1, the old one knows both.
    assert order_of([link(ONE, TWO, BOTH, TWO)]) == (INF, GATEWAY)


def test_inf_hosts_are_first_when_the_gateway_gets_another_key() -> None:
    rotated = replace(link(ONE, ONE, ONE, ONE), new_key=True)
    assert order_of([rotated, link(None, ONE, None, ONE)]) == (INF, GATEWAY)
    assert order_of([replace(link(ONE, BOTH, BOTH, BOTH), new_key=True)]) == (INF, GATEWAY)
    # The old gateway does not understand what comes: a key cuts off for a moment, a version for good.
    assert order_of([replace(link(ONE, TWO, ONE, BOTH), new_key=True)]) == (GATEWAY, INF)


def test_versions_that_no_order_bridges_are_refused() -> None:
    with pytest.raises(OrderError, match=r"neither order works.*release\s+in between"):
        order_of([link(ONE, TWO, ONE, TWO)])


def test_versions_that_do_not_fit_in_the_end_are_refused() -> None:
    with pytest.raises(OrderError, match="inf-01 will speak protocol 2, which the gateway gtw-01"):
        order_of([link(ONE, TWO, ONE, ONE)])


VERSIONS = st.sampled_from([ONE, TWO, BOTH, Spoken(2, 3), Spoken(1, 3)])


@given(st.lists(st.builds(link, VERSIONS, VERSIONS, VERSIONS, VERSIONS), max_size=3))
def test_an_order_never_leaves_a_pair_that_cannot_talk(links: list[Link]) -> None:
    try:
        first, _ = order_of(links)
    except OrderError:
        return
    for pair in links:
        client, server = (
            (pair.inf_now, pair.gateway_then) if first == GATEWAY else (pair.inf_then, pair.gateway_now)
        )
        assert client is not None
        assert server is not None
        assert server.least <= client.most <= server.most
        assert pair.inf_then is not None
        assert pair.gateway_then is not None
        assert pair.gateway_then.least <= pair.inf_then.most <= pair.gateway_then.most
