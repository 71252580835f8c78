"""What the services serve under /metrics is what Prometheus reads: its own promtool is the judge."""

import subprocess

import pytest

from mt5crs.service.metrics import Registry


def judged(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )


def filled() -> Registry:
    registry = Registry()
    registry.counter("mt5crs_orders_total", "Orders by outcome.", ("outcome",)).inc(
        'odd "quotes"\\\nhere', by=3
    )
    registry.gauge("mt5crs_ready", "Whether it is ready.").set(1)
    registry.gauge("mt5crs_balance_ratio", "Never set.")
    latency = registry.histogram("mt5crs_answer_seconds", "Time to an answer.", ("kind",))
    for seconds in (0.0001, 0.004, 0.3, 20):
        latency.observe(seconds, "PING")
    return registry


def test_promtool_accepts_what_is_served() -> None:
    verdict = judged(filled().render())
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_promtool_refuses_a_broken_line() -> None:
    broken = filled().render().replace('le="+Inf"', "le=+Inf")
    assert judged(broken).returncode != 0


def test_histogram_counts_each_observation_once_and_cumulates() -> None:
    lines = dict(line.rsplit(" ", 1) for line in filled().render().splitlines() if not line.startswith("#"))
    assert lines['mt5crs_answer_seconds_bucket{kind="PING",le="0.001"}'] == "1"
    assert lines['mt5crs_answer_seconds_bucket{kind="PING",le="9"}'] == "3"
    assert lines['mt5crs_answer_seconds_bucket{kind="PING",le="+Inf"}'] == "4"
    assert lines['mt5crs_answer_seconds_count{kind="PING"}'] == "4"


def test_a_counter_never_falls_and_a_name_is_taken_once() -> None:
    registry = Registry()
    counter = registry.counter("mt5crs_x_total", "X.")
    with pytest.raises(ValueError, match="cannot fall"):
        counter.inc(by=-1)
    with pytest.raises(ValueError, match="registered twice"):
        registry.gauge("mt5crs_x_total", "X again.")


def test_a_histogram_without_labels_begins_at_zero() -> None:
    """How far a series that is new has risen, Prometheus cannot tell."""
    registry = Registry()
    registry.histogram("seconds", "Help.", buckets=(1.0,))
    assert "seconds_count 0" in registry.render()


def test_a_gauge_is_replaced_by_all_its_labels() -> None:
    gauge = Registry().gauge("used", "Help.", ("magic", "limit"))
    gauge.replace({(1, "a"): 0.5, (1, "b"): 0.25})
    gauge.replace({(1, "b"): 1.0})
    assert gauge.samples() == ['used{magic="1",limit="b"} 1']
