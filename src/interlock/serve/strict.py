"""Strict JSON at the HTTP door: bodies go through the one parser before any model sees them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from interlock.domain.canonical import Json, parse


class StrictRequest(Request):
    """A request whose JSON body has no duplicate keys, NaN, or anything else that is ambiguous."""

    async def json(self) -> Json:
        """Return the body parsed by `domain.canonical`; raises `JsonError`."""
        return parse(await self.body())


class StrictRoute(APIRoute):
    """A route that reads its body strictly; the class of every REST route."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler so that it gets a `StrictRequest`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            response = await handler(StrictRequest(request.scope, request.receive))
            # Answers hold tokens and other people's data: nobody in between keeps them.
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        return strict


class Body(BaseModel):
    """The root of request bodies: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
