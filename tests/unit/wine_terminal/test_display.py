"""Whether a display server is there is asked of the host."""

from __future__ import annotations

import socket

from mt5crs.wine_terminal.display import answers


def test_a_display_that_answers_and_one_that_does_not() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0/tmp/.X11-unix/X4711")
        server.listen()
        assert answers(":4711") is True
    assert answers(":4712") is False
