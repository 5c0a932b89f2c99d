"""Anthropic's messages: what is passed on of a request, and how an answer is read."""

from __future__ import annotations

from collections.abc import Mapping
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
    positive,
    text_in,
)

VERSION: Final = "2023-06-01"
_MEMBERS: Final = Members(
    passed=frozenset(
        {
            "model",
            "messages",
            "max_tokens",
            "system",
            "stream",
            "temperature",
            "top_p",
            "top_k",
            "stop_sequences",
            "tools",
            "tool_choice",
            "thinking",
            "output_config",
        }
    ),
    # It tells the provider who asks.
    dropped=frozenset({"metadata"}),
)
_COUNTED: Final = Members(
    passed=frozenset(
        {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
    )
)
_BLOCKS: Final = frozenset(
    {"text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking"}
)
_SOURCES: Final = frozenset({"base64", "text", "content"})
_BETAS: Final = frozenset(
    {"fine-grained-tool-streaming-2025-05-14", "interleaved-thinking-2025-05-14"}
)
"""Betas that change only how an answer is worded."""
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SERVER_ERROR: Final = 500
_INPUT: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class AnthropicMessages:
    """The API of `POST /v1/messages`."""

    api: Api = "anthropic"
    path = "/v1/messages"
    is_free = False

    def checked(self, body: JsonObject) -> JsonObject:
        """Return what may be sent on of a request; raises `InputError` naming what may not."""
        request = _checked(_MEMBERS, body)
        if positive(request, "max_tokens") is None:
            raise InputError("`max_tokens` is missing")
        return request

    def prepared(self, body: JsonObject, model: str) -> JsonObject:
        """Return a checked request for the provider's name of the model."""
        return {**body, "model": model}

    def most_output(self, body: JsonObject) -> int | None:
        """Return the most tokens of the answer."""
        return positive(body, "max_tokens")

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the version, and the betas if all of them are known; raises `InputError`."""
        betas = [beta.strip() for beta in given.get("anthropic-beta", "").split(",")]
        named = [beta for beta in betas if beta]
        for beta in named:
            if beta not in _BETAS:
                raise InputError(f"`anthropic-beta` `{beta[:80]}` is not passed on; leave it out")
        version = given.get("anthropic-version", VERSION)
        if version != VERSION:
            raise InputError(f"`anthropic-version` is `{VERSION}`")
        return {"anthropic-version": VERSION} | (
            {"anthropic-beta": ",".join(named)} if named else {}
        )

    def read(self, body: JsonObject) -> Told:
        """Return what an answer that is not streamed tells."""
        told = Told(is_whole=True)
        _note(told, body)
        return told

    def reading(self, request: JsonObject) -> _Reading:  # noqa: ARG002
        """Return what reads the streamed answer to a request."""
        return _Reading()

    def error(self, status: int, code: str, message: str) -> JsonObject:
        """Return the body of an error; `code` is ours, beside what the API has."""
        other = "api_error" if status >= _SERVER_ERROR else "invalid_request_error"
        error: JsonObject = {
            "type": _TYPES.get(status, other),
            "message": f"{message} ({code})",
            "code": code,
        }
        return {"type": "error", "error": error}

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """Return the event by which a stream breaks off."""
        return event(self.error(status, code, message), name="error")


class AnthropicCount(AnthropicMessages):
    """The API of `POST /v1/messages/count_tokens`: how large a message would be, without asking."""

    path = "/v1/messages/count_tokens"
    is_free = True

    def checked(self, body: JsonObject) -> JsonObject:
        """Return what may be sent on: what a message may hold, but for what is about its answer."""
        return _checked(_COUNTED, body)

    def most_output(self, body: JsonObject) -> int | None:  # noqa: ARG002
        """Return 0: nothing is worded."""
        return 0

    def read(self, body: JsonObject) -> Told:  # noqa: ARG002
        """Return that the answer is whole; the tokens that it tells were not used."""
        return Told(is_whole=True, input_tokens=0, output_tokens=0)


def _checked(members: Members, body: JsonObject) -> JsonObject:
    request = members.of(body)
    for message in objects(request.get("messages"), "messages"):
        _check_content(message.get("content"))
    _check_content(request.get("system", ""))
    for tool in objects(request.get("tools", []), "tools"):
        if tool.get("type", "custom") != "custom":
            raise InputError(
                "`tools` are functions of your own; what the provider would do itself goes"
                " through the gateway"
            )
    return request


class _Reading:
    """Reads events, and puts their deltas together to a message."""

    def __init__(self) -> None:
        self.told = Told()
        self._message: JsonObject = {}
        self._blocks: dict[int, JsonObject] = {}
        self._end: JsonObject = {"type": "message_stop"}

    def take(self, event: ServerSentEvent) -> bytes | None:
        """Take note of an event; the last one is kept back until the answer is recorded."""
        value = parse(event.data)
        if not isinstance(value, dict):
            raise JsonError("an event of the stream is no object")
        kind = text_in(value, "type")
        match kind:
            case "error":
                self.told.problem = text_in(object_in(value, "error"), "message") or "no reason"
                return None
            case "message_stop":
                self.told.is_whole = True
                return None
            case "message_start":
                self._message = object_in(value, "message")
                _note(self.told, self._message)
                # What is told of the answer's tokens here is of its first one only.
                self.told.output_tokens = None
            case "message_delta":
                self._message |= object_in(value, "delta")
                _note(self.told, value)
            case "content_block_start" | "content_block_delta":
                self._add(value)
            case _:
                pass
        return _event(value, name=kind)

    def end(self) -> bytes:
        """Return the event that ends the stream."""
        return _event(self._end, name="message_stop")

    def reply(self) -> JsonObject:
        """Return the message, as far as it came."""
        content: list[Json] = [_block(self._blocks[index]) for index in sorted(self._blocks)]
        usage: JsonObject = {
            "input_tokens": self.told.input_tokens,
            "output_tokens": self.told.output_tokens,
        }
        return {**self._message, "content": content, "usage": usage}

    def _add(self, value: JsonObject) -> None:
        index = count_in(value, "index") or 0
        if value["type"] == "content_block_start":
            self._blocks[index] = dict(object_in(value, "content_block"))
            return
        block, delta = self._blocks.setdefault(index, {}), object_in(value, "delta")
        for name in ("text", "thinking", "partial_json"):
            if text := text_in(delta, name):
                block[name] = text_in(block, name) + text
                self.told.characters += len(text)
        if "signature" in delta:
            block["signature"] = delta["signature"]


_event = event


def _block(streamed: JsonObject) -> JsonObject:
    """Return a block as it comes whole: the input of a call is JSON, if all of it came."""
    block = dict(streamed)
    written = block.pop("partial_json", None)
    if isinstance(written, str):
        try:
            block["input"] = parse(written)
        except JsonError:
            block["input"] = written
    return block


def _note(told: Told, body: JsonObject) -> None:
    told.model = text_in(body, "model") or told.model
    usage = object_in(body, "usage")
    # What was cached counts as input: it is paid for, at a price of its own.
    counts = [count for name in _INPUT if (count := count_in(usage, name)) is not None]
    if count_in(usage, "input_tokens") is not None:
        told.input_tokens = sum(counts)
    output = count_in(usage, "output_tokens")
    if output is not None:
        told.output_tokens = output


def _check_content(content: Json) -> None:
    if content is None or isinstance(content, str):
        return
    for block in objects(content, "content"):
        if block.get("type") not in _BLOCKS:
            raise InputError(
                "the blocks of a message are texts, images, documents and calls of your own tools;"
                " others are not passed on"
            )
        source = block.get("source")
        if isinstance(source, dict):
            if source.get("type") not in _SOURCES:
                raise InputError(
                    "an image or document is given with its content; the provider would fetch"
                    " another"
                )
            _check_content(source.get("content"))
        if block.get("type") == "tool_result":
            _check_content(block.get("content"))
