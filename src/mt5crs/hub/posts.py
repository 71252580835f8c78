"""What is posted to the Hub, and who may: its own Alertmanager rings, and is believed nothing."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from mt5crs.service.endpoint import Answer, Request, Site

WEBHOOK = "/api/alerts/webhook"
_TEXT = "text/plain; charset=utf-8"


class Posts:
    """A site: posts are taken here, everything else goes on to the pages."""

    def __init__(
        self, pages: Site, token: str, ring: Callable[[], None], told: Callable[[str, str, str], None]
    ) -> None:
        """`ring()` has the alerts looked at now. `told(path, status, reason)` hears of each post.

        token: what Alertmanager shows; empty: nobody may post.
        """
        self._pages, self._token, self._ring, self._told = pages, token, ring, told

    def __call__(self, request: Request) -> Answer | None:
        """Answer a request; never raises."""
        if request.method != "POST":
            return self._pages(request)
        if request.path != WEBHOOK:
            self._told("other", "404", "")
            return None
        if problem := self._problem(request):
            status = problem.partition(" ")[0]
            self._told(WEBHOOK, status, problem)
            return Answer(problem, _TEXT, b"only the Hub's own Alertmanager posts here\n")
        # What the post says is not looked at: Prometheus is asked which alerts fire. So neither one that was
        # made up nor one that is sent again can halt anything.
        self._ring()
        self._told(WEBHOOK, "202", "")
        return Answer("202 Accepted", _TEXT, b"looking\n")

    def _problem(self, request: Request) -> str:
        """Why a post is refused, as an HTTP status; empty if it is not."""
        if not request.here:
            return "403 Forbidden"
        if not self._token or not hmac.compare_digest(request.token.encode(), self._token.encode()):
            return "401 Unauthorized"
        return ""
