"""OpenAI's responses: what is passed on of a request, and how an answer is read.

The provider would keep each response and take it up again by its id; it is told not to, and what
would need it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from httpx2 import ServerSentEvent

from interlock.agents.upstream import Api
from interlock.domain.canonical import Json, JsonObject, parse
from interlock.domain.errors import InputError, JsonError
from interlock.serve.model_proxy.openai import check_image, check_parts, check_tools, error_body
from interlock.serve.model_proxy.wire import (
    Members,
    Told,
    count_in,
    event,
    object_in,
    objects,
    positive,
    text_in,
)

_MEMBERS: Final = Members(
    passed=frozenset(
        {
            "model",
            "input",
            "instructions",
            "stream",
            "temperature",
            "top_p",
            "max_output_tokens",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "reasoning",
            "text",
            "truncation",
            "include",
        }
    ),
    # They tell the provider who asks, or let it keep what is said; or they only word the stream.
    dropped=frozenset(
        {
            "user",
            "safety_identifier",
            "metadata",
            "store",
            "prompt_cache_key",
            "prompt_cache_retention",
            "stream_options",
        }
    ),
)
_ITEMS: Final = frozenset({"message", "function_call", "function_call_output", "reasoning"})
_PARTS: Final = frozenset({"input_text", "output_text", "refusal", "input_image", "text"})
_INCLUDED: Final = frozenset({"reasoning.encrypted_content"})
_LAST: Final = frozenset({"response.completed", "response.incomplete"})
_BROKEN: Final = frozenset({"response.failed", "error"})
_DELTAS: Final = frozenset(
    {
        "response.output_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    }
)


class OpenAiResponses:
    """The API of `POST /v1/responses`, without the responses that a provider keeps."""

    api: Api = "openai"
    path = "/responses"
    is_free = False

    def checked(self, body: JsonObject) -> JsonObject:
        """Return what may be sent on of a request; raises `InputError` naming what may not."""
        if body.get("store") is True:
            raise InputError("`store` would have the provider keep the answer; leave it out")
        # Members that are null ask for nothing.
        request = _MEMBERS.of({name: value for name, value in body.items() if value is not None})
        given = request.get("input")
        if not isinstance(given, str):
            for item in objects(given, "input"):
                _check_item(item)
        check_tools(request)
        included = request.get("include", [])
        if not isinstance(included, list) or not _INCLUDED.issuperset(map(str, included)):
            raise InputError("`include` is passed on for `reasoning.encrypted_content` only")
        return request

    def prepared(self, body: JsonObject, model: str) -> JsonObject:
        """Return a checked request as it goes to the provider, which is to keep nothing."""
        return {**body, "model": model, "store": False}

    def most_output(self, body: JsonObject) -> int | None:
        """Return the most tokens of the answer."""
        return positive(body, "max_output_tokens")

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Return none: this API needs no header of the caller."""
        return {}

    def read(self, body: JsonObject) -> Told:
        """Return what an answer that is not streamed tells."""
        told = Told(is_whole=True)
        _note(told, body)
        return told

    def reading(self, request: JsonObject) -> _Reading:  # noqa: ARG002
        """Return what reads the streamed answer to a request."""
        return _Reading()

    def error(self, status: int, code: str, message: str) -> JsonObject:
        """Return the body of an error."""
        return error_body(status, code, message)

    def error_event(self, status: int, code: str, message: str) -> bytes:  # noqa: ARG002
        """Return the event by which a stream breaks off."""
        told: JsonObject = {"type": "error", "code": code, "message": message, "param": None}
        return event(told, name="error")


class _Reading:
    """Reads events; the last one has the whole response."""

    def __init__(self) -> None:
        self.told = Told()
        self._response: JsonObject = {}
        self._texts: dict[tuple[int, str], str] = {}
        self._last: JsonObject = {"type": "response.completed"}

    def take(self, event: ServerSentEvent) -> bytes | None:
        """Take note of an event; the last one is kept back until the answer is recorded."""
        value = parse(event.data)
        if not isinstance(value, dict):
            raise JsonError("an event of the stream is no object")
        kind = text_in(value, "type")
        if "response" in value:
            self._response = object_in(value, "response")
            _note(self.told, self._response)
        if kind in _BROKEN:
            error = object_in(self._response, "error") if kind == "response.failed" else value
            self.told.problem = text_in(error, "message") or "no reason given"
            return None
        if kind in _LAST:
            self._last = value
            self.told.is_whole = True
            return None
        if kind in _DELTAS:
            self._add(kind, value)
        return _event(value, name=kind)

    def end(self) -> bytes:
        """Return the event that ends the stream."""
        return _event(self._last, name=text_in(self._last, "type"))

    def reply(self) -> JsonObject:
        """Return the response; of one that broke off what came of it, in order."""
        if self.told.is_whole:
            return self._response
        output: list[Json] = [
            {"type": kind.removeprefix("response.").removesuffix(".delta"), "text": text}
            for (_, kind), text in sorted(self._texts.items())
        ]
        return {**self._response, "output": output}

    def _add(self, kind: str, value: JsonObject) -> None:
        place = (count_in(value, "output_index") or 0, kind)
        text = text_in(value, "delta")
        self._texts[place] = self._texts.get(place, "") + text
        self.told.characters += len(text)


_event = event


def _note(told: Told, body: JsonObject) -> None:
    told.model = text_in(body, "model") or told.model
    usage = object_in(body, "usage")
    if usage:
        told.input_tokens = count_in(usage, "input_tokens")
        told.output_tokens = count_in(usage, "output_tokens")


def _check_item(item: JsonObject) -> None:
    """Raise `InputError` for what the provider would look up, fetch or do."""
    if item.get("type", "message") not in _ITEMS:
        raise InputError(
            "`input` is messages, calls of your own functions, their outputs and reasoning; what"
            " the provider keeps or does itself is not passed on"
        )
    for name in ("content", "output"):
        content = item.get(name)
        if content is None or isinstance(content, str) or item.get("type") == "reasoning":
            continue
        for part in check_parts(content, name, known=_PARTS):
            if part.get("type") == "input_image":
                check_image(text_in(part, "image_url"))
