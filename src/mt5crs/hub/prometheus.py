"""Asks Prometheus and Alertmanager on the Hub. They are only read."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from mt5crs.hub.alerts import Fired, key_of

_TIMEOUT_S = 3.0
_MOST_BYTES = 16 * 1024 * 1024
_LONGEST = 2000


class NoAnswerError(Exception):
    """Nothing usable was said; the text says by whom and why."""


def get(base: str, path: str) -> Any:
    """What a JSON interface answers. Raises NoAnswerError."""
    parts = urlsplit(base)
    try:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", parts.path.rstrip("/") + path)
            answer = connection.getresponse()
            body = answer.read(_MOST_BYTES + 1)
        finally:
            connection.close()
        if answer.status != 200:
            raise NoAnswerError(f"{base} answers {answer.status}; see its journal")
        if len(body) > _MOST_BYTES:
            raise NoAnswerError(f"{base} answers more than {_MOST_BYTES >> 20} MB; look what alerts so much")
        return json.loads(body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswerError(f"{base} gives no usable answer ({error}); look whether it runs") from error


def alerts(base: str) -> list[Fired]:
    """What Prometheus knows to be pending or firing. Raises NoAnswerError."""
    found = _data(base, "/api/v1/alerts").get("alerts")
    if not isinstance(found, list):
        raise NoAnswerError(f"{base} lists no alerts; is it a Prometheus?")
    return [each for each in map(_fired, found) if each is not None]


def query(base: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of every series of an instant vector. Raises NoAnswerError."""
    found = _data(base, f"/api/v1/query?query={quote(expression)}").get("result")
    if not isinstance(found, list):
        raise NoAnswerError(f"{base} has no result for {expression}")
    return list(_series(found))


def silenced(base: str) -> dict[str, bool]:
    """Whether each alert that Alertmanager has is held back (silenced or inhibited), by its key.

    Raises NoAnswerError.
    """
    found = get(base, "/api/v2/alerts")
    if not isinstance(found, list):
        raise NoAnswerError(f"{base} lists no alerts; is it an Alertmanager?")
    told: dict[str, bool] = {}
    for each in found:
        if isinstance(each, dict) and isinstance(each.get("status"), dict):
            told[key_of(_texts(each.get("labels")))] = each["status"].get("state") == "suppressed"
    return told


def _data(base: str, path: str) -> dict[str, Any]:
    answer = get(base, path)
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):
        raise NoAnswerError(f"{base} answers something else than a Prometheus does")
    return data


def _fired(each: Any) -> Fired | None:
    if not isinstance(each, dict) or each.get("state") not in ("pending", "firing"):
        return None
    labels, notes = _texts(each.get("labels")), _texts(each.get("annotations"))
    return Fired(
        labels=labels,
        state=each["state"],
        since=str(each.get("activeAt", ""))[:64],
        value=_number(each.get("value")),
        summary=notes.get("summary", ""),
        description=notes.get("description", ""),
        runbook_url=notes.get("runbook_url", ""),
    )


def _series(found: list[Any]) -> Iterator[tuple[dict[str, str], float]]:
    for each in found:
        if isinstance(each, dict) and isinstance(each.get("value"), list) and len(each["value"]) == 2:
            value = _number(each["value"][1])
            if value is not None:
                yield _texts(each.get("metric")), value


def _texts(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {str(name)[:_LONGEST]: str(value)[:_LONGEST] for name, value in found.items()}


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if value - value == 0 else None
