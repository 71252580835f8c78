"""The same Ctrl-C that arrives twice is asked once; asked again later it counts."""

import pytest

from deploy.controller import stopping
from deploy.controller.stopping import ONE_PRESS_S, StopRequests
from deploy.operations import run


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopping.time, "monotonic", made)
    return made


def test_an_echo_is_not_asked_again(clock: Clock) -> None:
    requests = StopRequests()
    assert requests.is_new()
    clock.now += ONE_PRESS_S / 10
    assert not requests.is_new()
    assert requests.asked == 1
    clock.now += ONE_PRESS_S * 2
    assert requests.is_new()
    assert requests.asked == 2


def test_the_echo_does_not_end_a_run_that_gives_its_lock_back(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_requests", StopRequests())
    with pytest.raises(SystemExit):
        run._interrupted(2, None)
    run._interrupted(2, None)
    clock.now += ONE_PRESS_S * 2
    with pytest.raises(SystemExit):
        run._interrupted(2, None)
