"""The comparison of two versions, for people: counts, a plot, and what is not known."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from deploy.reporting import shadow_page
from mt5crs.probes.agreement import Agreement
from tests.unit.probes.test_agreement import call, order


def told(found: Agreement, **more: Any) -> dict[str, Any]:
    return {
        "generation": "0002-ab",
        "shadow": {
            "state": "running",
            "began": 100.0,
            "now": 130.0,
            "window_s": 60.0,
            "promoted": None,
            "reason": "",
            **found.as_json(),
            **more,
        },
    }


def seeded() -> Agreement:
    found = Agreement(0.5)
    found.take_running([call(1, order()), call(2, order(volume=0.1)), call(3, order("CLOSE", ticket=7))])
    found.take_new([call(1, order()), call(2, order(volume=0.2)), call(3)])
    found.end()
    return found


def test_differences_are_told_with_counts() -> None:
    text = shadow_page.text({"inf-01": told(seeded())})
    assert "inf-01: 0002-ab runs in the shadow, 30 s are left: 1 of 3 decisions agree (33.3 %)" in text
    assert "       1  another volume" in text
    assert "CLOSE BUY EURUSD #7" in text
    assert text.count("not known: ") == 3


def test_nothing_is_never_a_percentage() -> None:
    none = Agreement(1)
    none.take_running([call(1)])
    none.take_new([call(1)])
    told_of = {"inf-01": told(none), "inf-02": {"unknown": "no answer"}, "inf-03": {"shadow": None}}
    for text in (shadow_page.text(told_of), shadow_page.html(told_of)):
        assert "no decisions yet in 1 callbacks, so nothing is known" in text
        assert "%)" not in text
        assert "not known: no answer" in text
        assert "no strategy has run in the shadow here" in text
    assert "There was no decision" not in shadow_page.text(told_of)


def test_the_page_is_whole_and_shows_foreign_text_as_text() -> None:
    found = Agreement(1)
    found.take_running([call(1, order(symbol="<script>"), order())])
    found.take_new([call(1, order(symbol="<script>"))])
    found.end()
    page = shadow_page.html({"inf-01": told(found, state="ended", promoted=False, reason="50 % <b>")})
    assert "<script>" not in page
    assert "<b>" not in page
    assert "http" not in page.replace("http-equiv", "")
    drawn: list[str] = []

    class Marks(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "circle":
                drawn.append(str(dict(attrs)["class"]))

    Marks().feed(page)
    assert sorted(drawn) == ["agree", "agree", "only"]
