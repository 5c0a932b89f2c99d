"""Strict JSON at the HTTP door: bodies go through the one parser before any model sees them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from interlock.domain.canonical import Json, parse
from interlock.serve.auth import caller_of, interlock_of


class StrictRequest(Request):
    """A request whose JSON body has no duplicate keys, NaN, or anything else that is ambiguous."""

    async def json(self) -> Json:
        """Return the body parsed by `domain.canonical`; raises `JsonError`."""
        # A large one takes seconds, in which others are answered.
        return await run_in_threadpool(parse, await self.body())


class StrictRoute(APIRoute):
    """A route that reads its body strictly, of callers that it knows; the class of REST routes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler so that it gets a `StrictRequest`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is not None:
                # Dependencies, as the one that asks who calls, are run after the body is read.
                await run_in_threadpool(caller_of, request, interlock_of(request))
            response = await handler(StrictRequest(request.scope, request.receive))
            # Answers hold tokens and other people's data: nobody in between keeps them.
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        return strict


TEXT_MOST: Final = 2000
"""How many characters of a person's own words are kept: a reason, an id in another system."""


class Body(BaseModel):
    """The root of request bodies: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
