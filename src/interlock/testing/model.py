"""A scripted model: a local server that speaks the OpenAI chat-completions protocol.

    python -m interlock.testing.model SCRIPT.yaml [--port N] [--port-file F]

Deterministic: the script (see `interlock.testing.script`) decides each answer. Served are
`POST /v1/chat/completions` (not streamed), `GET /v1/models`, and `GET /requests`, which lists the
rule that answered each request so far. A request that no rule fits is answered with 500 and a
message that names its last message.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.testing.httpd import JsonHandler, serve
from interlock.testing.process import ServerProcess, module_command
from interlock.testing.script import Answer, Script


class ScriptedModel(ServerProcess):
    """The scripted model as a process; give `base_url` to the OpenAI client, with any key."""

    def __init__(self, script: Path, *, folder: Path) -> None:
        super().__init__(module_command("interlock.testing.model", str(script)), folder=folder)

    @property
    def base_url(self) -> str:
        """The address that OpenAI clients want."""
        return f"{self.url}/v1"


class _Handler(JsonHandler):
    script: ClassVar[Script]
    lock: ClassVar[threading.Lock] = threading.Lock()
    answered: ClassVar[list[Json]] = []

    def do_GET(self) -> None:  # noqa: N802 - the standard library's name
        match self.path:
            case "/v1/models":
                model = {"id": self.script.model, "object": "model", "owned_by": "interlock"}
                self.send_json(200, {"object": "list", "data": [{**model, "created": 0}]})
            case "/requests":
                self.send_json(200, {"rules": list(self.answered)})
            case _:
                self._refuse(404, f"there is nothing at `{self.path}`")

    def do_POST(self) -> None:  # noqa: N802 - the standard library's name
        body = self.body()
        if self.path != "/v1/chat/completions":
            self._refuse(404, f"there is nothing at `{self.path}`")
            return
        try:
            request, messages = _read(body)
            with self.lock:
                answer = self.script.answer(messages)
                self.answered.append(answer.rule)
        except ValueError as error:
            self._refuse(400, str(error))
        except InputError as error:
            self._refuse(500, str(error))
        else:
            time.sleep(answer.latency_s)
            self._send(answer, request=request, body=body)

    def _send(self, answer: Answer, *, request: JsonObject, body: bytes) -> None:
        match answer.fault:
            case 429:
                self._refuse(429, "the script says: too many requests", Retry_After="1")
            case 500:
                self._refuse(500, "the script says: server error")
            case "cut" | None:
                data = json.dumps(_completion(answer, request=request, body=body)).encode()
                self.send_bytes(200, data[: len(data) // 2] if answer.fault else data)

    def _refuse(self, status: int, message: str, **headers: str) -> None:
        error: Json = {"message": message, "type": "scripted_model", "param": None, "code": None}
        self.send_json(status, {"error": error}, **headers)


def _read(body: bytes) -> tuple[JsonObject, list[JsonObject]]:
    """Return a request and its messages; raises `ValueError` if it is none that we answer."""
    request: Json = json.loads(body)
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise ValueError("the request has no list of messages")  # noqa: TRY004 - bad input
    if request.get("stream"):
        raise ValueError("answers are not streamed: ask without `stream`")
    messages = request["messages"]
    assert isinstance(messages, list)  # INVARIANT: checked above
    return request, [message for message in messages if isinstance(message, dict)]


def _completion(answer: Answer, *, request: JsonObject, body: bytes) -> Json:
    """Return the answer as the protocol has it; ids follow from the request."""
    identity = hashlib.sha256(body).hexdigest()[:24]
    message: JsonObject = {"role": "assistant", "content": answer.text}
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{identity[:12]}_{index}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for index, (name, arguments) in enumerate(answer.calls, start=1)
        ]
    return {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.get("model"),
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "tool_calls" if answer.calls else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
        },
    }


def main() -> None:
    """Serve the script that the arguments name."""
    parser = argparse.ArgumentParser(description="a scripted model with the OpenAI protocol")
    parser.add_argument("script", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="receives the port once it listens")
    args = parser.parse_args()
    try:
        _Handler.script = Script.load(args.script)
    except (OSError, InputError) as error:
        sys.exit(f"{args.script}: {error}")
    serve(_Handler, port=args.port, port_file=args.port_file)


if __name__ == "__main__":
    main()
