"""A model that a test plays: agents ask it over the interface of their provider, on loopback.

Refuses tools as providers do: names of 1 to 64 letters, digits, `_` and `-`, and objects as
arguments. Speaks OpenAI's chat completions and responses, and Gemini's `generateContent`.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import uuid
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from interlock.testing.httpd import JsonHandler

LIMIT_S = 30
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
Json = Any


class PlayedModel:
    """Answers each request as the test says; what the agent sends is what a model would read."""

    def __init__(self) -> None:
        self._asked: queue.Queue[tuple[str, Json]] = queue.Queue()
        self._said: queue.Queue[Json] = queue.Queue()

    def names(self) -> list[str]:
        """Return the names of the tools that the agent offers, once it asks."""
        self._path, request = self._asked.get(timeout=LIMIT_S)
        return [tool["name"] for tool in _tools(request)]

    def call(self, tool: str, arguments: Json) -> str:
        """Have the agent call a tool, and return what it then tells the model of the result."""
        self._said.put(_SAYS[self._path](tool, arguments))
        _, request = self._asked.get(timeout=LIMIT_S)
        return _told(request)

    def end(self, text: str) -> None:
        """Say something instead, which ends the agent's work."""
        self._said.put(_SAYS[self._path](None, text))

    def __enter__(self) -> Self:
        """Listen."""
        model = self

        class Handler(JsonHandler):
            def do_POST(self) -> None:  # noqa: N802  # the library's name
                request = json.loads(self.body())
                wrong = [tool["name"] for tool in _tools(request) if not _is_taken(tool)]
                if wrong:
                    self.send_json(400, {"error": {"message": f"invalid tools: {wrong}"}})
                    return
                model._asked.put((re.split("[/:]", self.path)[-1], request))
                self.send_json(200, model._said.get(timeout=LIMIT_S))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _tools(request: Json) -> list[Json]:
    """Return the functions that a request offers, whichever interface it is of."""
    tools = request.get("tools", [])
    return [
        function
        for tool in tools
        for function in tool.get("functionDeclarations") or [tool.get("function", tool)]
    ]


def _is_taken(tool: Json) -> bool:
    parameters = tool.get("parameters") or tool["parameters_json_schema"]
    is_object = parameters["type"].lower() == "object" and "properties" in parameters
    return is_object and _NAME.fullmatch(tool["name"]) is not None


def _told(request: Json) -> str:
    """Return the text of the last result of a tool."""
    if "contents" in request:
        (part,) = request["contents"][-1]["parts"]
        return "".join(block["text"] for block in part["functionResponse"]["response"]["content"])
    last = (request.get("messages") or request["input"])[-1]
    content = last.get("content", last.get("output"))
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _fresh() -> str:
    return f"call_{uuid.uuid4().hex}"


def _completion(tool: str | None, value: Json) -> Json:
    message: Json = {"role": "assistant", "content": value if tool is None else None}
    if tool is not None:
        function = {"name": tool, "arguments": json.dumps(value)}
        message["tool_calls"] = [{"id": _fresh(), "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini"}
    return {**head, "choices": [choice], "usage": usage}


def _response(tool: str | None, value: Json) -> Json:
    item: Json = {"id": "item_1", "status": "completed"}
    if tool is None:
        text = {"type": "output_text", "text": value, "annotations": []}
        item |= {"type": "message", "role": "assistant", "content": [text]}
    else:
        item |= {"type": "function_call", "call_id": _fresh(), "name": tool}
        item |= {"arguments": json.dumps(value)}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5-mini"}
    rest = {"output": [item], "tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
    return {**head, **rest, "status": "completed"}


def _content(tool: str | None, value: Json) -> Json:
    part = {"text": value} if tool is None else {"functionCall": {"name": tool, "args": value}}
    return {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}]}


_SAYS: dict[str, Callable[[str | None, Json], Json]] = {
    "completions": _completion,
    "responses": _response,
    "generateContent": _content,
}
