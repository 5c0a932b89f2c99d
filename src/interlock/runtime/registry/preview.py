"""What a call with given arguments would send, shown to people; nothing here can send it."""

from __future__ import annotations

from typing import assert_never

from interlock.domain import uri
from interlock.domain.canonical import Json, JsonObject, canonical, parse
from interlock.domain.errors import InputError, JsonError
from interlock.domain.tool import Binding, HttpRequest, McpCall, PythonCall, SqlQuery
from interlock.tools.addresses import target_of
from interlock.tools.contract import Contract
from interlock.tools.requests import http as request
from interlock.tools.requests.sql import parameters_of

EFFECT_ID = "EFFECT-ID"
KEY = "IDEMPOTENCY-KEY"
_LINK = "ONE-TIME-LINK"


def preview(binding: Binding, arguments: JsonObject) -> JsonObject:
    """Return the request that these arguments make, without credentials and fixed headers.

    `EFFECT-ID`, `IDEMPOTENCY-KEY` and `ONE-TIME-LINK` stand where the effect's own will be. Raises
    `InputError` for arguments that break the contract or make no request.
    """
    tool = binding.tool
    Contract.of(tool.input_schema).check(arguments, what="arguments")
    match tool.request:
        case HttpRequest():
            return _http(binding, tool.request, arguments)
        case McpCall(kind="resource", upstream=template):
            words = {name: str(value) for name, value in arguments.items()}
            return {"resource": uri.expand(template, words)}
        case McpCall():
            given = {} if tool.request.key_argument is None else {tool.request.key_argument: KEY}
            _check_size(binding, len(canonical({**arguments, **given})))
            return {
                tool.request.kind: tool.request.upstream,
                "arguments": {**arguments, **given},
            }
        case PythonCall():
            return {"function": tool.request.function, "arguments": arguments}
        case SqlQuery():
            _check_size(binding, len(canonical(arguments)))
            values = parameters_of(tool.request, arguments, effect_id=EFFECT_ID, key=KEY)
            return {"statement": tool.request.statement, "parameters": values}
        case _:
            assert_never(tool.request)


def _http(binding: Binding, declared: HttpRequest, arguments: JsonObject) -> JsonObject:
    server, guard = binding.server, binding.tool.effect.guard
    target = target_of(server.url or "", server.environment)
    documents: JsonObject = {
        "in": arguments,
        "effect": {"id": EFFECT_ID, "key": KEY},
        "guard": {"link": f"{target.origin}{target.path}/{_LINK}"},
    }
    outgoing = request.build(declared, target, documents=documents, key=KEY, guard=guard)
    _check_size(binding, len(outgoing.content or b""))
    shown: JsonObject = {
        "method": outgoing.method,
        "url": f"{target.origin}{outgoing.target}",
        "headers": dict(outgoing.headers),
        "body": _readable(outgoing.content),
    }
    if guard is not None and guard.kind == "one_time_link":
        shown["before"] = guard.obtain
    return shown


def _check_size(binding: Binding, size: int) -> None:
    most = binding.tool.limits.request_bytes
    if size > most:
        raise InputError(f"the request has {size} bytes, and the tool permits {most}")


def _readable(content: bytes | None) -> Json:
    if content is None:
        return None
    try:
        return parse(content, max_bytes=len(content))
    except JsonError:
        return content.decode()
