"""What is posted to the Hub, and who may: its own Alertmanager rings, and is believed nothing; its messages
go on to the signed webhook; operators halt and acknowledge, by name, with a token and a reason.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol

import msgspec

from mt5crs.hub.webhook import NoNotificationError
from mt5crs.service.database import UnusableError
from mt5crs.service.endpoint import Answer, Request, Site

WEBHOOK = "/api/alerts/webhook"
NOTIFICATIONS, LETTERS = "/api/alerts/notifications", "/api/alerts/dead-letters"
HALT, ACKNOWLEDGE = "/api/halt", "/api/alerts/acknowledge"
_TEXT = "text/plain; charset=utf-8"
_Reason = Annotated[str, msgspec.Meta(min_length=3, max_length=200)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class HaltAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Halt a magic number of a gateway; null: all that are traded there."""

    gateway: _Name
    magic: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,18}\Z")] | None
    reason: _Reason


class Acknowledged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say that somebody looks after an alert, by its id; false_alarm: there is nothing behind it."""

    id: _Name
    reason: _Reason
    false_alarm: bool = False


class LettersAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Try notifications again that were given up, or forget them; null: all of them."""

    act: Literal["retry", "forget"]
    ids: Annotated[list[_Name], msgspec.Meta(max_length=1000)] | None


class NotThereError(ValueError):
    """What was asked for does not exist; the text says what there is."""


class Actions(Protocol):
    """Who does what operators ask for."""

    def halt(self, who: str, asked: HaltAsked) -> Mapping[str, Any]:
        """Have it halted. Raises NotThereError."""

    def acknowledge(self, who: str, asked: Acknowledged) -> Mapping[str, Any]:
        """Keep it. Raises NotThereError, UnusableError."""

    def forward(self, body: bytes) -> None:
        """Have a notification delivered. Raises NotThereError, NoNotificationError."""

    def letters(self, asked: LettersAsked) -> Mapping[str, Any]:
        """Do so with what was given up."""


class Posts:
    """A site: posts are taken here, everything else goes on to the pages."""

    def __init__(
        self,
        pages: Site,
        token: str,
        ring: Callable[[], None],
        told: Callable[[str, str, str], None],
        actions: Actions | None = None,
        operators: Mapping[str, str] | None = None,
        alerts_from: str = "",
    ) -> None:
        """`ring()` has the alerts looked at now. `told(path, status, reason)` hears of each post.

        token: what Alertmanager shows; empty: nobody may post. operators: name → SHA-256 (hex) of the token.
        alerts_from: the address of an Alertmanager that posts beside this host's; empty: none does.
        """
        self._pages, self._token, self._ring, self._told = pages, token, ring, told
        self._actions, self._operators = actions, dict(operators or {})
        self._alerts_from = alerts_from

    def __call__(self, request: Request) -> Answer | None:
        """Answer a request; never raises."""
        if request.method != "POST":
            return self._pages(request)
        if request.path in (HALT, ACKNOWLEDGE) and self._actions is not None:
            who = self._who(request.token) or ""
            status, said = self._operated(request, who, self._actions)
            self._told(request.path, status[:3], "" if status < "4" else str(said["error"]))
            return Answer(status, "application/json", json.dumps(said).encode() + b"\n", who=who)
        of_webhook = request.path in (NOTIFICATIONS, LETTERS) and self._actions is not None
        if request.path != WEBHOOK and not of_webhook:
            self._told("other", "404", "")
            return None
        if problem := self._problem(request):
            status = problem.partition(" ")[0]
            self._told(request.path, status, problem)
            return Answer(problem, _TEXT, b"only the Hub's own Alertmanager posts here\n")
        if of_webhook and self._actions is not None:
            status, said = self._of_webhook(request, self._actions)
            self._told(request.path, status[:3], "" if status < "4" else str(said["error"]))
            return Answer(status, "application/json", json.dumps(said).encode() + b"\n")
        # What the post says is not looked at: Prometheus is asked which alerts fire. So neither one that was
        # made up nor one that is sent again can halt anything.
        self._ring()
        self._told(WEBHOOK, "202", "")
        return Answer("202 Accepted", _TEXT, b"looking\n")

    def _of_webhook(self, request: Request, actions: Actions) -> tuple[str, Mapping[str, Any]]:
        """HTTP status and JSON of what goes to the signed webhook, or is done with what did not get there."""
        try:
            if request.path == LETTERS:
                return "200 OK", actions.letters(msgspec.json.decode(request.body, type=LettersAsked))
            actions.forward(request.body)
        except NotThereError as error:
            return "404 Not Found", {"error": str(error)}
        except (msgspec.MsgspecError, NoNotificationError) as error:
            return "400 Bad Request", {"error": str(error)}
        except Exception as error:  # Alertmanager tries again, and counts it
            return "500 Internal Server Error", {"error": f"the Hub failed: {error!r}"}
        return "202 Accepted", {}

    def _operated(self, request: Request, who: str, actions: Actions) -> tuple[str, Mapping[str, Any]]:
        """HTTP status and JSON of what an operator asks for."""
        if not (request.secret or request.here):
            said = "a token is not taken over a line that others can read; open the page by https://"
            return "403 Forbidden", {"error": said}
        if not who:
            return "401 Unauthorized", {"error": "no operator has this token (hub_operators)"}
        try:
            if request.path == HALT:
                return "202 Accepted", actions.halt(who, msgspec.json.decode(request.body, type=HaltAsked))
            asked = msgspec.json.decode(request.body, type=Acknowledged)
            return "200 OK", actions.acknowledge(who, asked)
        except msgspec.MsgspecError as error:
            return "400 Bad Request", {"error": f"{error}; see docs/hub.md"}
        except NotThereError as error:
            return "404 Not Found", {"error": str(error)}
        except UnusableError as error:
            return "503 Service Unavailable", {"error": str(error)}
        except Exception as error:  # whoever asks is told, and the others are served
            return "500 Internal Server Error", {"error": f"the Hub failed: {error!r}"}

    def _who(self, token: str) -> str | None:
        """Whose token it is. Every operator is compared with, so that the time taken tells nothing."""
        shown = hashlib.sha256(token.encode()).hexdigest() if token else ""
        found = [name for name, digest in self._operators.items() if hmac.compare_digest(shown, digest)]
        return found[0] if found else None

    def _problem(self, request: Request) -> str:
        """Why a post is refused, as an HTTP status; empty if it is not."""
        if not request.here and not (self._alerts_from and request.peer == self._alerts_from):
            return "403 Forbidden"
        if not self._token or not hmac.compare_digest(request.token.encode(), self._token.encode()):
            return "401 Unauthorized"
        return ""
