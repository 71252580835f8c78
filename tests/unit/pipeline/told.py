"""Records as a stage would have left them."""

from pipeline.record import Outcome, Record, Step
from pipeline.source import Source

SOURCE = Source("c" * 40, "7" * 40)


def step(outcome: Outcome = "passed", name: str = "lint", detail: str = "") -> Step:
    return Step(
        name=name,
        command=["make", name],
        outcome=outcome,
        status=0,
        seconds=1.0,
        log="x/1.log",
        detail=detail,
    )


def record(stage: str, *steps: Step, of: Source = SOURCE, made: dict[str, str] | None = None) -> Record:
    from pipeline.order import outcome_of

    done = list(steps) or [step()]
    return Record(
        stage=stage,
        commit=of.commit,
        tree=of.tree,
        began="2026-01-02T03:04:05Z",
        seconds=60.0,
        outcome=outcome_of(done),
        steps=done,
        tools={"git": "git version 2"},
        made=made or {},
    )
