"""What a switch cost, from systemd's time stamps."""

from __future__ import annotations

from mt5crs_release.lifecycle.cutover import PROPERTIES, gaps


def stamps(stopping_s: float, stopped_s: float, ready_s: float) -> dict[str, int]:
    return dict(zip(PROPERTIES, (int(s * 1e6) for s in (stopping_s, stopped_s, ready_s)), strict=True))


def test_gap_and_stop_until_ready() -> None:
    assert gaps({"a.service": stamps(100.5, 100.6, 101.0)}, since=100.0) == {
        "a.service": {"gap_s": 0.5, "stopped_s": 0.4}
    }


def test_units_that_this_switch_did_not_restart_are_left_out() -> None:
    units = {
        "before.service": stamps(99.0, 99.1, 99.5),
        "first-start.service": stamps(0, 0, 100.5),
        "not-ready.service": stamps(100.5, 100.6, 99.0),
        "unknown.service": {},
    }
    assert gaps(units, since=100.0) == {}
