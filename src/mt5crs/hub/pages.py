"""What the Hub answers to a GET: the page, and JSON for programs. Nothing here changes anything."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib import resources
from typing import Any, Protocol
from urllib.parse import parse_qs

from mt5crs.service.database import UnusableError
from mt5crs.service.endpoint import Answer, Request

MOST_TRADES, MOST_POINTS = 10_000, 500
_LONGEST_TEXT = 100
_MOST_HOURS = 24 * 366
_DIGITS = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_SAFE = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_RUNBOOK_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The runbook is one file with its style in it, and nothing else."""
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class BadQueryError(ValueError):
    """A parameter that cannot be used; the text says which and what is expected."""


class Content(Protocol):
    """Where the answers come from."""

    def fleet(self) -> Mapping[str, Any]:
        """Everything but trades, curves and alerts."""

    def trades(
        self, *, since_msc: int, after: int, limit: int, newest: bool, gateway: str | None, magic: str | None
    ) -> Mapping[str, Any]:
        """Deals, oldest first; the newest ones of all, or those after an id."""

    def curve(self, gateway: str, since: float, points: int) -> Mapping[str, Any] | None:
        """Balance and equity of a gateway's account; None: there is no such gateway."""

    def alerts(self) -> Mapping[str, Any]:
        """Every alert."""

    def dead_letters(self) -> Mapping[str, Any]:
        """What the signed webhook did not accept yet, or at all."""

    def incidents(self) -> Mapping[str, Any]:
        """Incidents, newest first."""

    def levels(self, month: str | None) -> Mapping[str, Any]:
        """Service levels of a month (YYYYMM), or of the last 30 days."""

    def deployments(self) -> Mapping[str, Any]:
        """The latest deployments."""

    def halts(self) -> Mapping[str, Any]:
        """Halts that the Hub was asked for."""

    def runbook(self) -> bytes | None:
        """The runbook of the release that monitoring runs, as HTML; None if it is not there."""


class Pages:
    """A site for the end point."""

    def __init__(self, content: Content, failed: Callable[[str], None]) -> None:
        """`failed(reason)` hears of answers that could not be made."""
        self._content, self._failed = content, failed
        self._files = {path: (_read(name), kind) for path, (name, kind) in _FILES.items()}

    def __call__(self, request: Request) -> Answer | None:
        """Answer a request; never raises."""
        if not _is_address(request.host):
            # Somebody else's page, in a reader's browser, can have its own name point here; no address can.
            said = "open the Hub by its address\n"
            return Answer("421 Misdirected Request", "text/plain; charset=utf-8", said.encode(), _SAFE)
        try:
            return self._answer(request)
        except BadQueryError as error:
            return _json({"error": str(error)}, "400 Bad Request")
        except UnusableError as error:
            self._failed(str(error))
            return _json({"error": str(error)}, "503 Service Unavailable")
        except Exception as error:  # whoever asks is told, and the others are served
            self._failed(repr(error))
            told = {"error": "the Hub failed to answer; its journal says why"}
            return _json(told, "500 Internal Server Error")

    def _answer(self, request: Request) -> Answer | None:
        if request.path in self._files:
            body, kind = self._files[request.path]
            return Answer("200 OK", kind, body, (*_SAFE, ("Content-Security-Policy", _POLICY)))
        if request.path == "/runbook":
            return self._runbook()
        if request.path == "/api/fleet":
            return _json(self._content.fleet())
        if request.path == "/api/trades":
            return _json(self._content.trades(**_trades(request.query)))
        if request.path == "/api/equity":
            return self._curve(request.query)
        if request.path == "/api/alerts/state":
            return _json(self._content.alerts())
        if request.path == "/api/alerts/dead-letters":
            return _json(self._content.dead_letters())
        if request.path == "/api/halts":
            return _json(self._content.halts())
        if request.path == "/api/incidents":
            return _json(self._content.incidents())
        if request.path == "/api/levels":
            return _json(self._content.levels(_month(_asked(request.query, {"month"}).get("month"))))
        if request.path == "/api/deployments":
            return _json(self._content.deployments())
        if request.path == "/api/stream":
            body = b"retry: 2000\n\n" + message("hello", {"now": time.time()})
            return Answer("200 OK", "text/event-stream", body, _SAFE, feed=True)
        return None

    def _runbook(self) -> Answer:
        found = self._content.runbook()
        if found is None:
            said = b"there is no runbook on this host yet: it comes with monitoring, deploy that\n"
            return Answer("404 Not Found", "text/plain; charset=utf-8", said, _SAFE)
        policy = (*_SAFE, ("Content-Security-Policy", _RUNBOOK_POLICY))
        return Answer("200 OK", "text/html; charset=utf-8", found, policy)

    def _curve(self, query: str) -> Answer:
        asked = _asked(query, {"gateway", "hours"})
        hours = _whole("hours", asked.get("hours", "24"), 1, _MOST_HOURS)
        if "gateway" not in asked:
            raise BadQueryError("gateway is missing; name one that /api/fleet lists")
        curve = self._content.curve(asked["gateway"], time.time() - hours * 3600, MOST_POINTS)
        if curve is None:
            raise BadQueryError("gateway is none of this fleet; name one that /api/fleet lists")
        return _json(curve)


def message(event: str, data: Any) -> bytes:
    """A message of a feed (server-sent events): JSON has no ends of lines in it."""
    return f"event: {event}\ndata: {_text(data)}\n\n".encode()


def _trades(query: str) -> dict[str, Any]:
    asked = _asked(query, {"since", "after", "limit", "last", "gateway", "magic"})
    if "last" in asked and {"after", "limit"} & set(asked):
        raise BadQueryError("last is given with after or limit; give it alone")
    limit = "last" if "last" in asked else "limit"
    return {
        "since_msc": _moment(asked.get("since", "0")),
        "after": _whole("after", asked.get("after", "0"), 0, 2**62),
        "limit": _whole(limit, asked.get(limit, "1000"), 1, MOST_TRADES),
        "newest": "last" in asked,
        "gateway": asked.get("gateway"),
        "magic": asked.get("magic"),
    }


def _asked(query: str, known: set[str]) -> dict[str, str]:
    """Parameters, each once. Raises BadQueryError."""
    try:
        found = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=20)
    except ValueError as error:
        raise BadQueryError(f"the query cannot be read: {error}") from None
    for name, values in found.items():
        if name not in known:
            raise BadQueryError(f"{name[:_LONGEST_TEXT]} is unknown; there are {', '.join(sorted(known))}")
        if len(values) != 1 or len(values[0]) > _LONGEST_TEXT:
            raise BadQueryError(f"{name} is given more than once, or too long")
    return {name: values[0] for name, values in found.items()}


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not _DIGITS.match(text) or not least <= int(text) <= most:
        raise BadQueryError(
            f"{name} is {text[:_LONGEST_TEXT]!r}, expected a whole number from {least} to {most}"
        )
    return int(text)


def _month(text: str | None) -> str | None:
    if text is None:
        return None
    if not re.fullmatch(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])", text, re.ASCII):
        raise BadQueryError(f"month is {text!r}, expected YYYYMM")
    if text > time.strftime("%Y%m", time.gmtime()):
        raise BadQueryError(f"month {text} has not begun")
    return text


def _moment(text: str) -> int:
    """Milliseconds, or a time like 2026-01-31T18:00:00Z; both by the broker's clock, as deals have it."""
    if _DIGITS.match(text):
        return int(text)
    try:
        found = datetime.fromisoformat(text.removesuffix("Z"))
        if found.tzinfo is not None:
            raise ValueError
        return max(0, int(found.replace(tzinfo=timezone.utc).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise BadQueryError(
            f"since is {text!r}, expected milliseconds or a time such as 2026-01-31T18:00:00, both by the "
            "broker's clock"
        ) from None


def _is_address(host: str) -> bool:
    if host in ("localhost", ""):  # HTTP/1.0 names no host
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _json(value: Any, status: str = "200 OK") -> Answer:
    return Answer(status, "application/json", (_text(value) + "\n").encode(), _SAFE)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath("page", name).read_bytes()
