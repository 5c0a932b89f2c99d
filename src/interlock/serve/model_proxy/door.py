"""The way in to models: a token that leads to a session, a checked request, an API's own errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from uuid_utils import uuid7

from interlock.agents.upstream import api_of, provider_of
from interlock.app import Interlock
from interlock.config import ModelSettings
from interlock.domain.canonical import Json, parse
from interlock.domain.errors import (
    BudgetSpentError,
    ForbiddenError,
    InputError,
    IntakeFullError,
    InterlockError,
    ModelFailedError,
    NotFoundError,
    StepFailedError,
    UnauthenticatedError,
)
from interlock.domain.run import Run
from interlock.runtime.outside.desk import ModelAsked
from interlock.runtime.outside.exchange import ACCESS_PREFIX
from interlock.serve.auth import App
from interlock.serve.model_proxy.anthropic import AnthropicCount, AnthropicMessages
from interlock.serve.model_proxy.exchange import Broken, Exchange
from interlock.serve.model_proxy.openai import OpenAiChat
from interlock.serve.model_proxy.responses import OpenAiResponses
from interlock.serve.model_proxy.wire import Wire, dumped, unknown_model
from interlock.serve.status import status_of

OPENAI_PATH: Final = "/openai/v1"
ANTHROPIC_PATH: Final = "/anthropic/v1"
LOOK_EVERY_S: Final = 2.0
"""How often a request that is being answered is asked whether its session still goes on."""
_LARGE: Final = 64 * 1024
_LEFT: Final = Broken(status=499, message="the agent left")
_ENDED: Final = Broken(status=401, message="the session has ended")
_OPENAI: Final = OpenAiChat()
_RESPONSES: Final = OpenAiResponses()
_ANTHROPIC: Final = AnthropicMessages()
_ANTHROPIC_COUNT: Final = AnthropicCount()

router = APIRouter(tags=["models"], include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visitor:
    """Who asks: the run of a session, by which token, and the models that its agent may ask."""

    run: Run
    token: str
    models: Mapping[str, ModelSettings]


@router.post(f"{OPENAI_PATH}/chat/completions")
async def chat_completions(app: App, request: Request) -> Response:
    """Pass a chat completion on."""
    return await _answered(app, request, _OPENAI)


@router.post(f"{OPENAI_PATH}/responses")
async def responses(app: App, request: Request) -> Response:
    """Pass a request for a response on."""
    return await _answered(app, request, _RESPONSES)


@router.post(f"{ANTHROPIC_PATH}/messages")
async def messages(app: App, request: Request) -> Response:
    """Pass a message on."""
    return await _answered(app, request, _ANTHROPIC)


@router.post(f"{ANTHROPIC_PATH}/messages/count_tokens")
async def count_tokens(app: App, request: Request) -> Response:
    """Pass a message on of which only the size is asked."""
    return await _answered(app, request, _ANTHROPIC_COUNT)


@router.get(f"{OPENAI_PATH}/models")
def list_models(app: App, request: Request) -> Response:
    """List the models that this session's agent may ask."""
    try:
        who = _visitor(app, request, _OPENAI)
    except InterlockError as error:
        return _refusal(_OPENAI, error, None)
    models: list[Json] = [
        {"id": name, "object": "model", "created": 0, "owned_by": "interlock"}
        for name in sorted(who.models)
    ]
    return JSONResponse({"object": "list", "data": models})


async def _answered(app: Interlock, request: Request, wire: Wire) -> Response:
    exchange: Exchange | None = None
    try:
        who = await run_in_threadpool(_visitor, app, request, wire)
        data = await request.body()
        body = await run_in_threadpool(parse, data) if len(data) > _LARGE else parse(data)
        if not isinstance(body, dict):
            raise InputError("the request is a JSON object")
        name = body.get("model")
        if not isinstance(name, str) or name not in who.models:
            raise unknown_model(name)
        checked = wire.checked(body)
        exchange = Exchange(
            wire, checked, wire.headers(request.headers), upstream=lambda: app.upstream(name)
        )
        asked = ModelAsked(
            key=str(uuid7()),
            model=name,
            provider=provider_of(who.models[name]),
            # No token has less than a byte.
            input_tokens=0 if wire.is_free else len(data),
            output_tokens=wire.most_output(checked),
            send=exchange.send,
        )
        asking = asyncio.ensure_future(app.ask_in_session(who.run.run_id, asked))
        # Marked as seen: the agent may be gone by then.
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        watching = asyncio.create_task(_watch(app, request, who, exchange))
        if checked.get("stream") is True:
            return await _streamed(wire, exchange, asking, watching)
        try:
            await asyncio.shield(asking)
        finally:
            watching.cancel()
    except InterlockError as error:
        return _refusal(wire, error, exchange)
    if exchange.broken is not None or exchange.answer is None:
        return _refusal(wire, ModelFailedError("the model's answer broke off"), exchange)
    return Response(dumped(exchange.answer), media_type="application/json")


async def _streamed(
    wire: Wire, exchange: Exchange, asking: asyncio.Future[Json], watching: asyncio.Task[None]
) -> Response:
    """Return the stream once the provider has begun it; before that an error has a status."""
    opened = asyncio.create_task(exchange.opened.wait())
    begun: set[asyncio.Future[Json] | asyncio.Task[Literal[True]]] = {opened, asking}
    try:
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
    finally:
        opened.cancel()
    if not exchange.opened.is_set():
        watching.cancel()
        await asking
        raise ModelFailedError("the model's answer broke off")

    async def parts() -> AsyncIterator[bytes]:
        try:
            async for part in exchange.parts():
                yield part
            yield await _last(wire, exchange, asking)
        finally:
            watching.cancel()
            exchange.abort(_LEFT)

    return StreamingResponse(
        parts(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _last(wire: Wire, exchange: Exchange, asking: asyncio.Future[Json]) -> bytes:
    """Return how a stream ends: well only if its answer is recorded."""
    try:
        await asyncio.shield(asking)
    except InterlockError as error:
        status, code, message = _told(error, exchange)
        return wire.error_event(status, code, message)
    if exchange.broken is not None:
        code = UnauthenticatedError.code if exchange.broken is _ENDED else ModelFailedError.code
        return wire.error_event(exchange.broken.status, code, exchange.broken.message)
    return exchange.end()


async def _watch(app: Interlock, request: Request, who: _Visitor, exchange: Exchange) -> None:
    """Stop the request once its caller has left, or its token leads nowhere any more."""
    left = asyncio.create_task(_left(request))
    try:
        while True:
            done, _ = await asyncio.wait({left}, timeout=LOOK_EVERY_S)
            if done:
                exchange.abort(_LEFT)
                return
            if not await run_in_threadpool(_goes_on, app, who.token):
                exchange.abort(_ENDED)
                return
    finally:
        left.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _goes_on(app: Interlock, token: str) -> bool:
    return app.session_of(token) is not None


def _visitor(app: Interlock, request: Request, wire: Wire) -> _Visitor:
    if request.headers.get("origin") not in {None, app.url}:
        raise ForbiddenError("requests from web pages are not accepted")
    token = _token(request.headers)
    session = app.session_of(token)
    if session is None:
        raise UnauthenticatedError("the token is missing, has expired or was revoked")
    with app.db.reading() as tx:
        granted = app.granted_models(tx, session.run)
    models = {name: found for name, found in granted.items() if api_of(found) == wire.api}
    return _Visitor(run=session.run, token=token, models=models)


def _token(headers: Mapping[str, str]) -> str:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = (bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
    return next((token for token in given if token.startswith(ACCESS_PREFIX)), "")


def _refusal(wire: Wire, error: InterlockError, exchange: Exchange | None) -> Response:
    status, code, message = _told(error, exchange)
    answer = JSONResponse(wire.error(status, code, message), status)
    broken = None if exchange is None else exchange.broken
    after_s = broken.retry_after_s if broken is not None else None
    if isinstance(error, IntakeFullError):
        after_s = error.retry_after_s
    if after_s is not None:
        answer.headers["Retry-After"] = str(int(after_s))
    return answer


def _told(error: InterlockError, exchange: Exchange | None) -> tuple[int, str, str]:
    """Return status, code and sentence of a request that got no whole answer."""
    if exchange is not None and exchange.broken is _ENDED:
        return _ENDED.status, UnauthenticatedError.code, _ENDED.message
    code = error.error_code if isinstance(error, StepFailedError) else error.code
    if code == ModelFailedError.code:
        broken = exchange.broken if exchange is not None else None
        return (
            (502, code, error.message) if broken is None else (broken.status, code, broken.message)
        )
    if code == "model.denied":
        return 403, code, error.message
    if isinstance(error, NotFoundError):
        return 404, "model_not_found", error.message
    status = 402 if isinstance(error, BudgetSpentError) else status_of(error)
    return status, code, error.message
