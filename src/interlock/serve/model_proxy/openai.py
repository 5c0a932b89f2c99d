"""OpenAI's chat completions: what is passed on of a request, and how an answer is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from httpx2 import ServerSentEvent

from interlock.agents.upstream import Api
from interlock.domain.canonical import Json, JsonObject, parse
from interlock.domain.errors import InputError, JsonError
from interlock.serve.model_proxy.wire import (
    Members,
    Told,
    count_in,
    event,
    object_in,
    objects,
    objects_in,
    positive,
    text_in,
)

_MEMBERS: Final = Members(
    passed=frozenset(
        {
            "model",
            "messages",
            "stream",
            "stream_options",
            "temperature",
            "top_p",
            "n",
            "max_tokens",
            "max_completion_tokens",
            "stop",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "seed",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "response_format",
            "reasoning_effort",
            "verbosity",
        }
    ),
    # They tell the provider who asks, or let it keep what is said.
    dropped=frozenset({"user", "safety_identifier", "metadata", "store", "prompt_cache_key"}),
)
_PARTS: Final = frozenset({"text", "refusal", "image_url"})
_MOST_CHOICES: Final = 8
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}
_SERVER_ERROR: Final = 500


def check_tools(request: JsonObject) -> None:
    """Raise `InputError` for a tool that is no function of the agent's own."""
    for tool in objects(request.get("tools", []), "tools"):
        if tool.get("type") != "function":
            raise InputError(
                "`tools` are functions of your own; what the provider would do itself goes"
                " through the gateway"
            )


def check_parts(parts: Json, what: str, *, known: Collection[str]) -> Iterator[JsonObject]:
    """Yield the parts of a message; raises `InputError` for one of another kind."""
    for part in objects(parts, what):
        if part.get("type") not in known:
            raise InputError("the parts of a message are text or images; others are not passed on")
        yield part


def check_image(address: str) -> None:
    """Raise `InputError` for an image that the provider would fetch."""
    if not address.startswith("data:"):
        raise InputError("an image is given as `data:`; the provider would fetch another address")


def error_body(status: int, code: str, message: str) -> JsonObject:
    """Return an error as all APIs of OpenAI tell it."""
    other = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    kind = _TYPES.get(status, other)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class OpenAiChat:
    """The API of `POST /v1/chat/completions`."""

    api: Api = "openai"
    path = "/chat/completions"
    is_free = False

    def checked(self, body: JsonObject) -> JsonObject:
        """Return what may be sent on of a request; raises `InputError` naming what may not."""
        if body.get("store") is True:
            raise InputError("`store` would have the provider keep the answer; leave it out")
        request = _MEMBERS.of(body)
        for message in objects(request.get("messages"), "messages"):
            _check_content(message)
        check_tools(request)
        if (positive(request, "n") or 1) > _MOST_CHOICES:
            raise InputError(f"`n` is at most {_MOST_CHOICES}")
        return request

    def prepared(self, body: JsonObject, model: str) -> JsonObject:
        """Return a checked request for the provider's name of the model; usage is always asked."""
        sent = {name: value for name, value in body.items() if name != "stream_options"}
        sent["model"] = model
        if body.get("stream") is True:
            sent["stream_options"] = {"include_usage": True}
        return sent

    def most_output(self, body: JsonObject) -> int | None:
        """Return the most tokens of the answer, over all its choices."""
        bounds = (positive(body, name) for name in ("max_completion_tokens", "max_tokens"))
        named = [bound for bound in bounds if bound is not None]
        return max(named) * (positive(body, "n") or 1) if named else None

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Return none: this API needs no header of the caller."""
        return {}

    def read(self, body: JsonObject) -> Told:
        """Return what an answer that is not streamed tells."""
        told = Told(is_whole=True)
        _note(told, body)
        return told

    def reading(self, request: JsonObject) -> _Reading:
        """Return what reads the streamed answer to a request."""
        return _Reading(
            tells_usage=object_in(request, "stream_options").get("include_usage") is True
        )

    def error(self, status: int, code: str, message: str) -> JsonObject:
        """Return the body of an error."""
        return error_body(status, code, message)

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """Return the event by which a stream breaks off."""
        return event(self.error(status, code, message))


class _Reading:
    """Reads chunks, and puts their deltas together to a completion."""

    def __init__(self, *, tells_usage: bool) -> None:
        self.told = Told()
        self._tells_usage = tells_usage
        self._head: JsonObject = {}
        self._choices: dict[int, JsonObject] = {}
        self._usage: Json = None

    def take(self, event: ServerSentEvent) -> bytes | None:
        """Take note of a chunk; usage is handed on only if the agent has asked for it."""
        if event.data == "[DONE]":
            self.told.is_whole = True
            return None
        chunk = parse(event.data)
        if not isinstance(chunk, dict):
            raise JsonError("an event of the stream is no object")
        if chunk.get("error"):
            self.told.problem = text_in(object_in(chunk, "error"), "message") or "no reason given"
            return None
        _note(self.told, chunk)
        self._head = {name: chunk[name] for name in ("id", "created", "model") if name in chunk}
        self._usage = chunk.get("usage") or self._usage
        for part in objects_in(chunk, "choices"):
            self._add(part)
        if not self._tells_usage:
            if chunk.get("usage") and not chunk.get("choices"):
                return None
            chunk.pop("usage", None)
        return _event(chunk)

    def end(self) -> bytes:
        """Return the line that ends the stream."""
        return b"data: [DONE]\n\n"

    def reply(self) -> JsonObject:
        """Return the completion, as far as it came."""
        choices: list[Json] = [self._choices[index] for index in sorted(self._choices)]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": self._usage,
        }

    def _add(self, part: JsonObject) -> None:
        index = count_in(part, "index") or 0
        blank: JsonObject = {"index": index, "message": {"role": "assistant", "content": ""}}
        choice = self._choices.setdefault(index, blank | {"finish_reason": None})
        message, delta = object_in(choice, "message"), object_in(part, "delta")
        for name in ("content", "refusal"):
            if text := text_in(delta, name):
                message[name] = text_in(message, name) + text
                self.told.characters += len(text)
        for call in objects_in(delta, "tool_calls"):
            self._add_call(message, call)
        choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]

    def _add_call(self, message: JsonObject, delta: JsonObject) -> None:
        calls = message.setdefault("tool_calls", [])
        # INVARIANT: only this function writes the member.
        assert isinstance(calls, list)
        index = count_in(delta, "index")
        known = (call for call in calls if isinstance(call, dict) and call["index"] == index)
        call = next(known, None)
        if call is None:
            call = {"index": index, "type": "function", "function": {"name": "", "arguments": ""}}
            calls.append(call)
        if delta.get("id"):
            call["id"] = delta["id"]
        function, more = object_in(call, "function"), object_in(delta, "function")
        for name in ("name", "arguments"):
            text = text_in(more, name)
            function[name] = text_in(function, name) + text
            self.told.characters += len(text)


_event = event


def _note(told: Told, body: JsonObject) -> None:
    told.model = text_in(body, "model") or told.model
    usage = object_in(body, "usage")
    if usage:
        told.input_tokens = count_in(usage, "prompt_tokens")
        told.output_tokens = count_in(usage, "completion_tokens")


def _check_content(message: JsonObject) -> None:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    for part in check_parts(content, "content", known=_PARTS):
        if part.get("type") == "image_url":
            check_image(text_in(object_in(part, "image_url"), "url"))
