"""A provider of models on loopback, which speaks both wires and does as the last message says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

LIMIT_S = 20
KEY = "the-key-of-the-provider"
WORDS = ("The", " answer", " is", " 42.")
IN, OUT = 1200, 300
_BUSY = 429
_REFUSALS = {
    "limit": (_BUSY, "slow down"),
    "refuse": (400, f"too long for {KEY}"),
    "fail": (500, "an inner secret"),
    "keys": (401, f"no such key {KEY}"),
}


class Provider:
    """Answers `hello` well; `hang`, `cut`, `limit`, `refuse`, `fail` and `keys` as they say."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.began = threading.Event()
        self.left = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def forget(self) -> None:
        """Forget all that was asked."""
        self.requests.clear()
        self.headers.clear()
        self.began.clear()
        self.left.clear()

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join(LIMIT_S)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, provider: Provider) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.provider = provider

    def handle_error(self, *_args: object) -> None:
        """Say nothing of clients that leave."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Note the request, and do as its last message says."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        provider = self.server.provider
        provider.requests.append(request)
        provider.headers.append({name.lower(): text for name, text in self.headers.items()})
        answer, events = _SPOKEN[self.path]
        said = request["input"] if "input" in request else request["messages"][-1]["content"]
        what = said if isinstance(said, str) else said[-1]["content"]
        if what in _REFUSALS:
            self._refuse(*_REFUSALS[what])
        elif request.get("stream"):
            self._stream(events(), what)
        elif what == "hang":
            self._hang()
        else:
            self._json(200, answer())

    def _refuse(self, status: int, message: str) -> None:
        error = {"error": {"message": message, "type": "some_error", "code": None}}
        self._json(status, error, **({"Retry-After": "7"} if status == _BUSY else {}))

    def _json(self, status: int, body: object, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: list[bytes], what: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in events[:3] if what in {"hang", "cut"} else events:
            self.wfile.write(event)
        if what == "hang":
            self._hang()

    def _hang(self) -> None:
        provider = self.server.provider
        provider.began.set()
        self.connection.settimeout(LIMIT_S)
        try:
            has_left = not self.connection.recv(1)
        except ConnectionError:
            # It had not read all that was sent.
            has_left = True
        if has_left:
            provider.left.set()

    def log_message(self, *_args: object) -> None:
        """Write nothing."""


def _openai_answer() -> object:
    message = {"role": "assistant", "content": "".join(WORDS)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": IN, "completion_tokens": OUT, "total_tokens": IN + OUT},
    }


def openai_events() -> list[dict[str, Any]]:
    """Return the chunks of an answer with a text and a call."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny-1"}
    chunks: list[dict[str, Any]] = [
        head | {"choices": [{"index": 0, "delta": {"content": word}}], "usage": None}
        for word in WORDS
    ]
    for arguments in ('{"n":', "7}"):
        call = {"index": 0, "function": {"arguments": arguments}}
        if arguments.startswith("{"):
            call |= {"id": "call_1", "type": "function"}
            call["function"] = {"name": "look", "arguments": arguments}
        chunks.append(head | {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    usage = {"prompt_tokens": IN, "completion_tokens": OUT, "total_tokens": IN + OUT}
    chunks.append(head | {"choices": [], "usage": usage})
    return chunks


def _chat_stream() -> list[bytes]:
    return [b": ping\n\n", *map(_data, openai_events()), b"data: [DONE]\n\n"]


def _response_stream() -> list[bytes]:
    return [*map(_data, response_events())]


def _anthropic_stream() -> list[bytes]:
    return [*map(_data, anthropic_events())]


def _data(value: dict[str, Any]) -> bytes:
    name = f"event: {value['type']}\n" if "type" in value else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()


def _anthropic_answer() -> object:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny-1",
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": IN - 200,
            "cache_creation_input_tokens": 50,
            "cache_read_input_tokens": 150,
            "output_tokens": OUT,
        },
    }


def anthropic_events() -> list[dict[str, Any]]:
    """Return the events of an answer with a text and a call."""
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny-1",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": IN, "output_tokens": 1},
    }
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": word},
            }
            for word in WORDS
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": call},
        *(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": part},
            }
            for part in ('{"n":', "7}")
        ),
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": OUT},
        },
        {"type": "message_stop"},
    ]
    return events


def response(*, is_done: bool = True) -> dict[str, Any]:
    """Return a response with a text and a call, or as it stands when it begins."""
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look"}
    output = [
        {"type": "message", "id": "m_1", "role": "assistant", "status": "completed"}
        | {"content": [text]},
        call | {"arguments": '{"n":7}', "status": "completed"},
    ]
    usage = {
        "input_tokens": IN,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": OUT,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": IN + OUT,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed" if is_done else "in_progress",
        "model": "tiny-1",
        "output": output if is_done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if is_done else None,
    }


def response_events() -> list[dict[str, Any]]:
    """Return the events of that response."""
    message = {"type": "message", "id": "m_1", "role": "assistant", "status": "in_progress"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look"}
    part = {"type": "output_text", "text": "", "annotations": []}
    at_text = {"item_id": "m_1", "output_index": 0, "content_index": 0}
    at_call = {"item_id": "fc_1", "output_index": 1}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(is_done=False)},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": message | {"content": []},
        },
        {"type": "response.content_part.added", "part": part} | at_text,
        *(
            {"type": "response.output_text.delta", "delta": word, "logprobs": []} | at_text
            for word in WORDS
        ),
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": call | {"arguments": "", "status": "in_progress"},
        },
        *(
            {"type": "response.function_call_arguments.delta", "delta": delta} | at_call
            for delta in ('{"n":', "7}")
        ),
        {"type": "response.completed", "response": response()},
    ]
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


_SPOKEN: dict[str, tuple[Callable[[], object], Callable[[], list[bytes]]]] = {
    "/v1/chat/completions": (_openai_answer, _chat_stream),
    "/v1/responses": (response, _response_stream),
    "/v1/messages": (_anthropic_answer, _anthropic_stream),
    "/v1/messages/count_tokens": (lambda: {"input_tokens": IN}, list),
}
