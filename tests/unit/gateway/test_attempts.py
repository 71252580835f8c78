"""Pauses between attempts to connect the terminal."""

from mt5crs.gateway.attempts import LONGEST_PAUSE_S, REFUSED_PAUSE_S, Attempts


def test_pauses_grow_while_attempts_fail() -> None:
    attempts, now, pauses = Attempts(), 100.0, []
    for _ in range(7):
        assert attempts.due(now)
        pauses.append(attempts.failed(now, refused=False))
        assert not attempts.due(now + pauses[-1] - 0.01)
        now += pauses[-1]
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10]


def test_a_connection_that_lasted_is_replaced_at_once() -> None:
    attempts = Attempts()
    assert attempts.due(0)
    attempts.succeeded(0)
    assert attempts.due(600)
    attempts.succeeded(600)
    assert attempts.due(1200)


def test_connections_that_do_not_last_are_made_ever_less_often() -> None:
    attempts, now, made = Attempts(), 0.0, []
    while now < 300:
        if attempts.due(now):
            made.append(now)
            attempts.succeeded(now)
        now += 0.25  # at which it is lost
    assert len(made) < 40
    assert made[-1] - made[-2] >= LONGEST_PAUSE_S


def test_a_refused_login_is_not_tried_at_once_again_and_then_forgotten() -> None:
    attempts = Attempts()
    assert attempts.due(0)
    assert attempts.failed(0, refused=True) == REFUSED_PAUSE_S
    assert not attempts.due(59)
    assert attempts.due(60)
    attempts.succeeded(60)
    assert attempts.due(70)
