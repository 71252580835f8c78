"""A lost answer is read from the host: activated, gone back, still at it, or never begun."""

from typing import Any

from deploy.remote.resuming import NOT_BEGUN, answer_of


def listed(state: str, *, current: bool = False, reason: str = "") -> dict[str, Any]:
    new = {"generation": "2-b", "state": state, "current": current, "reason": reason, "version": "1"}
    return {"generations": [{"generation": "1-a", "state": "confirmed", "current": not current}, new]}


def test_activated_meanwhile() -> None:
    answer = answer_of(listed("provisional", current=True), "2-b")
    assert answer is not None
    assert (answer["state"], answer["generation"]) == ("provisional", "2-b")
    assert "error" not in answer


def test_gone_back_meanwhile() -> None:
    answer = answer_of(listed("failed", reason="unhealthy: no ledger"), "2-b")
    assert answer is not None
    assert "no ledger" in answer["error"]["message"]
    assert answer["generation"] == "1-a"


def test_gone_back_to_and_still_one_to_go_back_to() -> None:
    """What was confirmed once is not failed for good; what it says of itself tells whether it was tried."""
    answer = answer_of(listed("confirmed", reason="unhealthy: no gateway"), "2-b")
    assert answer is not None
    assert "no gateway" in answer["error"]["message"]
    assert answer_of(listed("confirmed"), "2-b") is NOT_BEGUN


def test_still_at_it() -> None:
    assert answer_of(listed("activating", current=True), "2-b") is None
    assert answer_of(listed("reverting"), "2-b") is None


def test_never_begun() -> None:
    assert answer_of(listed("staged"), "2-b") is NOT_BEGUN
    assert answer_of(listed("confirmed"), "3-c") is NOT_BEGUN
