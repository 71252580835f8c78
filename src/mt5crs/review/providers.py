"""The dialects of providers over one interface: a request is made, a reply is read; nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from mt5crs.review.replies import BadReplyError
from mt5crs.settings.review import Model, Provider, Reviewer

MOST_TOKENS: Final = 10_000_000
"""Of one call; more than any model takes."""


class Request(NamedTuple):
    """What is sent: address, headers without the key, the header that has it, the body."""

    url: str
    headers: dict[str, str]
    key_header: str
    key_prefix: str
    body: dict[str, Any]


class Reply(NamedTuple):
    """What came back: the text, tokens as the provider counts them, who says to have answered."""

    text: str
    tokens_in: int
    tokens_out: int
    model: str


class Dialect(NamedTuple):
    """How a provider is asked and understood."""

    request: Callable[[str, Model, str, str, int], Request]
    reply: Callable[[Mapping[str, Any]], Reply]


def request(reviewer: Reviewer, model: Model, instructions: str, question: str, reply_tokens: int) -> Request:
    """The request for one question."""
    endpoint = reviewer.endpoint.rstrip("/")
    return DIALECTS[reviewer.provider].request(endpoint, model, instructions, question, reply_tokens)


def reply(provider: Provider, document: object) -> Reply:
    """Read the provider's JSON.

    :raises BadReplyError: it is not in its dialect, or the text was cut
    """
    if not isinstance(document, dict):
        raise BadReplyError("the provider's answer is no JSON object")
    try:
        found = DIALECTS[provider].reply(document)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise BadReplyError(f"the answer is not in the dialect of {provider}") from None
    if not isinstance(found.text, str):
        raise BadReplyError(f"the answer is not in the dialect of {provider}")
    return found


def _count(value: object) -> int:
    """Tokens as a provider may count them; nobody is believed more than a day's budget is worth."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_TOKENS:
        raise ValueError(value)
    return value


def _whole(reason: object, good: tuple[str, ...]) -> None:
    if reason not in good:
        raise BadReplyError(f"the answer is not whole (it ended with {str(reason)[:40]!r})")


def _anthropic_request(endpoint: str, model: Model, instructions: str, question: str, most: int) -> Request:
    body = {
        "model": model.name,
        "max_tokens": most,
        "temperature": 0,
        "system": [{"type": "text", "text": instructions, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": question}],
    }
    return Request(f"{endpoint}/v1/messages", {"anthropic-version": "2023-06-01"}, "x-api-key", "", body)


def _anthropic_reply(document: Mapping[str, Any]) -> Reply:
    _whole(document["stop_reason"], ("end_turn", "stop_sequence"))
    text = "".join(each["text"] for each in document["content"] if each["type"] == "text")
    usage = document["usage"]
    kept = sum(
        _count(usage.get(name) or 0) for name in ("cache_read_input_tokens", "cache_creation_input_tokens")
    )
    tokens = _count(usage["input_tokens"]) + kept, _count(usage["output_tokens"])
    return Reply(text, *tokens, str(document["model"]))


def _openai_request(endpoint: str, model: Model, instructions: str, question: str, most: int) -> Request:
    body = {
        "model": model.name,
        "max_completion_tokens": most,
        "temperature": 0,
        "response_format": {"type": "json_object"},
        "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": question}],
    }
    return Request(f"{endpoint}/v1/chat/completions", {}, "authorization", "Bearer ", body)


def _openai_reply(document: Mapping[str, Any]) -> Reply:
    choice, usage = document["choices"][0], document["usage"]
    _whole(choice["finish_reason"], ("stop",))
    tokens = _count(usage["prompt_tokens"]), _count(usage["completion_tokens"])
    return Reply(choice["message"]["content"], *tokens, str(document["model"]))


def _gemini_request(endpoint: str, model: Model, instructions: str, question: str, most: int) -> Request:
    body = {
        "systemInstruction": {"parts": [{"text": instructions}]},
        "contents": [{"role": "user", "parts": [{"text": question}]}],
        "generationConfig": {
            "temperature": 0,
            "maxOutputTokens": most,
            "responseMimeType": "application/json",
        },
    }
    url = f"{endpoint}/v1beta/models/{model.name}:generateContent"
    return Request(url, {}, "x-goog-api-key", "", body)


def _gemini_reply(document: Mapping[str, Any]) -> Reply:
    candidate, usage = document["candidates"][0], document["usageMetadata"]
    _whole(candidate["finishReason"], ("STOP",))
    text = "".join(part["text"] for part in candidate["content"]["parts"])
    out = sum(_count(usage.get(name) or 0) for name in ("candidatesTokenCount", "thoughtsTokenCount"))
    return Reply(text, _count(usage["promptTokenCount"]), out, str(document["modelVersion"]))


DIALECTS: Final[dict[Provider, Dialect]] = {
    "anthropic": Dialect(_anthropic_request, _anthropic_reply),
    "openai": Dialect(_openai_request, _openai_reply),
    "gemini": Dialect(_gemini_request, _gemini_reply),
}
