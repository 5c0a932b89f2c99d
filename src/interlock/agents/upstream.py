"""Model servers as they are reached with a request that somebody else worded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import httpx2

from interlock.config import ModelSettings
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import ModelFailedError

Api = Literal["openai", "anthropic"]

REQUEST_TIMEOUT = httpx2.Timeout(120.0, connect=5.0)
OPENAI_URL = "https://api.openai.com/v1"
_ANTHROPIC_URL = "https://api.anthropic.com"
_VARIABLES: Mapping[Api, str] = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_APIS: Mapping[str, Api] = {
    "openai": "openai",
    "openai-chat": "openai",
    "openai-compatible": "openai",
    "openai-responses": "openai",
    "anthropic": "anthropic",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One configured model: the name that its server has for it, and our way to that server."""

    api: Api
    model: str
    url: str
    key: str | None = field(repr=False)
    client: httpx2.AsyncClient

    @asynccontextmanager
    async def post(
        self, path: str, body: JsonObject, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request with our credentials, and hand out the answer before its body is read."""
        own = {"x-api-key": self.key} if self.api == "anthropic" else _bearer(self.key)
        given = {name: value for name, value in own.items() if value is not None}
        async with self.client.stream(
            "POST",
            self.url.rstrip("/") + path,
            json=body,
            headers={**headers, **given},
            timeout=REQUEST_TIMEOUT,
        ) as response:
            yield response


def api_of(settings: ModelSettings) -> Api | None:
    """Return the API that a model's server speaks; None if no request is passed on to it."""
    return _APIS.get(settings.provider.partition(":")[0])


def provider_of(settings: ModelSettings) -> str:
    """Return the name of a model's provider in spans and rows."""
    api = api_of(settings)
    return settings.name if api == "openai" and settings.base_url else str(api)


def url_of(settings: ModelSettings) -> str:
    """Return the address below which a model's server has its API."""
    return settings.base_url or (OPENAI_URL if api_of(settings) == "openai" else _ANTHROPIC_URL)


def upstream_of(
    settings: ModelSettings,
    *,
    key: str | None,
    environ: Mapping[str, str],
    client: httpx2.AsyncClient,
) -> Upstream:
    """Return the way to a model's server; without a `key`, the provider's usual variable counts.

    Raises `ModelFailedError` if no request may be passed on to it, or there is no key.
    """
    api = api_of(settings)
    if api is None:
        raise ModelFailedError(f"no requests are passed on to the provider of `{settings.name}`")
    if key is None and settings.base_url is None:
        key = environ.get(_VARIABLES[api])
        if not key:
            raise ModelFailedError(
                f"the model `{settings.name}` has no key; set its `api_key` or {_VARIABLES[api]}"
            )
    return Upstream(
        api=api,
        model=settings.provider.partition(":")[2],
        url=url_of(settings),
        key=key,
        client=client,
    )


def _bearer(key: str | None) -> dict[str, str | None]:
    return {"Authorization": None if key is None else f"Bearer {key}"}
