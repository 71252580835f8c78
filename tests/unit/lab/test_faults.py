import pytest

from lab.errors import LabError
from lab.faults import cut_pairs, cut_ruleset, table_name
from lab.plan import make_plan

PLAN = make_plan("x", "10.203.7.0/24", 4)


def test_cut_without_peers_is_from_every_other_host_but_not_from_the_controller() -> None:
    assert cut_pairs(PLAN, "gtw-01", []) == [
        ("10.203.7.31", "10.203.7.11"),
        ("10.203.7.31", "10.203.7.21"),
        ("10.203.7.31", "10.203.7.22"),
    ]


def test_controller_can_be_a_peer() -> None:
    assert cut_pairs(PLAN, "hub-01", ["controller"]) == [("10.203.7.11", "10.203.7.1")]


@pytest.mark.parametrize(
    ("host", "peer", "said"), [("inf-01", "inf-01", "itself"), ("inf-01", "inf-9", "has no host")]
)
def test_senseless_cuts_are_refused(host: str, peer: str, said: str) -> None:
    with pytest.raises(LabError, match=said):
        cut_pairs(PLAN, host, [peer])


def test_rules_drop_both_directions_on_every_path_over_the_bridge() -> None:
    script = cut_ruleset("a-b", [("10.203.7.11", "10.203.7.21")]).splitlines()

    assert script[-1] == (
        "add element bridge mt5crs_lab_a_b cut { 10.203.7.11 . 10.203.7.21, 10.203.7.21 . 10.203.7.11 }"
    )
    for hook in ("input", "forward", "output"):
        assert f"add rule bridge mt5crs_lab_a_b {hook} ether type ip ip saddr . ip daddr @cut drop" in script


def test_labs_have_tables_of_their_own() -> None:
    assert len({table_name(name) for name in ("default", "a-b", "ab", "a-b-c")}) == 4
