"""Stands before an MCP server so that the conformance suite finds the names that it wants there.

`renaming.py PORT UPSTREAM`, and in the environment `RENAMING`: JSON with `token`, the bearer token
that is added, and `names`, what each tool and prompt is called behind it. Requests and answers are
passed on as they are but for that, answers as they come.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from interlock.domain.canonical import Json

VARIABLE = "RENAMING"
_NAME_HEADER = "mcp-name"
_NAMING = frozenset({"tools/call", "prompts/get"})
_OWN = frozenset({"connection", "content-length", "transfer-encoding"})
_CHANGED = frozenset({*_OWN, "host", "origin", "authorization", _NAME_HEADER})


class Renaming:
    """Passes requests on to one MCP server; `names` are those behind it, by those before it."""

    def __init__(self, upstream: str, *, names: Mapping[str, str], token: str | None) -> None:
        self._upstream = upstream
        self._names = names
        self._token = token
        self._http = httpx2.AsyncClient(timeout=60, trust_env=False, follow_redirects=False)

    def app(self) -> Starlette:
        """Return the application."""
        methods = ["GET", "POST", "DELETE", "OPTIONS"]
        return Starlette(routes=[Route("/mcp", self._pass, methods=methods)], lifespan=self._living)

    @asynccontextmanager
    async def _living(self, _app: Starlette) -> AsyncIterator[None]:
        async with self._http:
            yield

    async def _pass(self, request: Request) -> StreamingResponse:
        body = await request.body()
        asked = self._http.build_request(
            request.method,
            self._upstream,
            headers=self._headers(request),
            content=_renamed(body, self._names) if body else None,
        )
        answer = await self._http.send(asked, stream=True)
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _OWN}
        headers.pop("content-encoding", None)
        return StreamingResponse(self._lines(answer), answer.status_code, headers)

    def _headers(self, request: Request) -> list[tuple[str, str]]:
        here, there = request.url.port, urlsplit(self._upstream).port
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _CHANGED]
        for name in ("host", "origin"):
            # Our own address is the server's; whatever else somebody claims is passed on.
            if name in request.headers:
                claimed = request.headers[name].replace(f":{here}", f":{there}")
                headers.append((name, claimed))
        if _NAME_HEADER in request.headers:
            given = request.headers[_NAME_HEADER]
            headers.append((_NAME_HEADER, self._names.get(given, given)))
        if self._token is not None:
            headers.append(("authorization", f"Bearer {self._token}"))
        return headers

    async def _lines(self, answer: httpx2.Response) -> AsyncIterator[bytes]:
        """Yield an answer: JSON whole, a stream of events line by line."""
        back = {behind: before for before, behind in self._names.items()}
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            yield _renamed(await answer.aread(), back)
            return
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "data" and value:
                yield b"data: " + _renamed(value.encode(), back) + b"\n"
            else:
                yield f"{line}\n".encode()
        await answer.aclose()


def _renamed(message: bytes, names: Mapping[str, str]) -> bytes:
    """Return a message of JSON-RPC with its tools named otherwise; as it is if it has none."""
    try:
        read: Json = json.loads(message)
    except ValueError:
        return message
    places = list(_places(read))
    for place in places:
        place["name"] = names.get(str(place["name"]), place["name"])
    return json.dumps(read).encode() if places else message


def _places(message: Json) -> Iterable[dict[str, Json]]:
    """Yield the objects of a message whose `name` is that of a tool or a prompt."""
    if not isinstance(message, dict):
        return
    params, result = message.get("params"), message.get("result")
    found: list[Json] = []
    if isinstance(params, dict):
        found += [params] if message.get("method") in _NAMING else []
        found += [params.get("ref")]
    if isinstance(result, dict):
        for listed in (result.get("tools"), result.get("prompts")):
            found += listed if isinstance(listed, list) else []
    yield from (place for place in found if isinstance(place, dict) and "name" in place)


def main(port: int, upstream: str) -> None:
    """Serve until told to end."""
    told = json.loads(os.environ[VARIABLE])
    app = Renaming(upstream, names=told["names"], token=told["token"]).app()
    config = uvicorn.Config(app, port=port, log_level="critical", server_header=False)
    asyncio.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
