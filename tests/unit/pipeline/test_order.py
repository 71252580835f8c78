"""Which stage may run follows from the records, and from nothing else."""

import msgspec
import pytest

from pipeline import order
from pipeline.record import Record
from pipeline.source import Source
from tests.unit.pipeline.told import SOURCE, record, step

OTHER = Source("d" * 40, "8" * 40)


def test_the_first_stage_needs_no_record() -> None:
    assert order.refusal("quality", {}, SOURCE) is None


@pytest.mark.parametrize("stage", order.STAGES[1:])
def test_a_stage_needs_the_records_of_all_before_it(stage: str) -> None:
    all_before: dict[str, Record | None] = {name: record(name) for name in order.earlier(stage)}
    assert order.refusal(stage, all_before, SOURCE) is None
    for missing in all_before:
        why = order.refusal(stage, {**all_before, missing: None}, SOURCE)
        assert why == f"{stage} cannot begin, since {missing} has no record: run `make pipeline-{missing}`"


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (record("quality", of=OTHER), "is about commit dddddddddddd, not cccccccccccc"),
        (record("quality", of=Source(SOURCE.commit, OTHER.tree)), "is about commit"),
        (record("quality", step("failed", "unit tests")), "quality failed (unit tests)"),
        (record("build"), "is one of build in format 1"),
        (msgspec.structs.replace(record("quality"), format=2), "in format 2"),
    ],
    ids=["other commit", "other tree", "failed", "another stage's", "newer format"],
)
def test_a_record_that_does_not_stand_for_the_stage_is_refused(before: Record, why: str) -> None:
    said = order.refusal("build", {"quality": before}, SOURCE)
    assert said is not None
    assert why in said
    assert said.endswith("run `make pipeline-quality`")
    assert "\n" not in said


def test_what_was_not_checked_lets_the_next_stage_begin_but_not_production() -> None:
    open_point = record("quality", step(), step("not checked", "scan", "advisories were not reached"))
    assert open_point.outcome == "not checked"
    assert order.refusal("build", {"quality": open_point}, SOURCE) is None
    why = order.unchecked([open_point, record("build")])
    assert why is not None
    assert why.startswith(
        "production takes only what was looked at, and quality says advisories were not reached: "
    )
    assert order.unchecked([record("quality"), record("build")]) is None


def test_what_was_built_has_to_be_there_as_it_was_built() -> None:
    made = record("build", made={"dist/a.tar": "1" * 64})
    assert order.changed(made, {"dist/a.tar": "1" * 64}) is None
    assert "has changed: run `make pipeline-build`" in str(order.changed(made, {"dist/a.tar": "2" * 64}))
    assert "is gone" in str(order.changed(made, {}))


def test_a_stage_is_as_good_as_its_worst_step() -> None:
    assert order.outcome_of([step(), step("not checked"), step("failed")]) == "failed"
    assert order.outcome_of([step(), step("not checked")]) == "not checked"
    assert order.outcome_of([step()]) == "passed"
    assert order.outcome_of([]) == "failed", "a stage that ran nothing has shown nothing"
