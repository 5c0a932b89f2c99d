"""Ways to model servers: their addresses, our credentials, and providers that have none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from interlock.agents.models import ModelCatalog
from interlock.agents.upstream import provider_of, upstream_of
from interlock.config import ModelSettings
from interlock.domain.errors import ModelFailedError

SENT: list[httpx2.Request] = []


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    """A client that notes what it sends."""
    SENT.clear()

    def answer(request: httpx2.Request) -> httpx2.Response:
        SENT.append(request)
        return httpx2.Response(200, json={})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as opened:
        yield opened


def settings(provider: str, *, url: str | None = None) -> ModelSettings:
    """Return the settings of a model."""
    return ModelSettings(name="m", provider=provider, base_url=url, api_key="secret://m/dev/key")


@pytest.mark.parametrize(
    ("provider", "path", "url", "header"),
    [
        (
            "openai-chat:x",
            "/chat/completions",
            "https://api.openai.com/v1/chat/completions",
            ("authorization", "Bearer our-key"),
        ),
        (
            "anthropic:x",
            "/v1/messages",
            "https://api.anthropic.com/v1/messages",
            ("x-api-key", "our-key"),
        ),
    ],
)
async def test_a_request_goes_to_its_provider_with_our_key(
    client: httpx2.AsyncClient, provider: str, path: str, url: str, header: tuple[str, str]
) -> None:
    """In the header that the provider reads; the model has the name that it knows."""
    upstream = upstream_of(settings(provider), key="our-key", environ={}, client=client)
    async with upstream.post(path, {"model": upstream.model}, {"a": "b"}) as response:
        await response.aread()

    (request,) = SENT
    assert (url, b'{"model":"x"}') == (str(request.url), request.content)
    assert (header[1], "b") == (request.headers[header[0]], request.headers["a"])
    assert "our-key" not in repr(upstream)


def test_without_a_key_the_usual_variable_counts(client: httpx2.AsyncClient) -> None:
    """And none at all is said before anything is sent; a server of one's own may want none."""
    environ = {"ANTHROPIC_API_KEY": "theirs"}
    usual = upstream_of(settings("anthropic:x"), key=None, environ=environ, client=client)
    own = upstream_of(settings("openai:x", url="http://h/v1"), key=None, environ={}, client=client)
    with pytest.raises(ModelFailedError, match="set its `api_key` or OPENAI_API_KEY"):
        upstream_of(settings("openai:x"), key=None, environ=environ, client=client)

    assert ("theirs", None) == (usual.key, own.key)


def test_a_provider_of_another_api_is_refused(client: httpx2.AsyncClient) -> None:
    """Nothing is translated."""
    with pytest.raises(ModelFailedError, match="no requests are passed on"):
        upstream_of(settings("bedrock:x"), key="k", environ={}, client=client)


async def test_another_key_counts_at_once() -> None:
    """It is resolved with each request; the connection stays."""
    keys = iter(("old", "new"))
    catalog = ModelCatalog({"m": settings("openai:x")}, resolve=lambda _: next(keys))
    first, second = catalog.upstream("m"), catalog.upstream("m")
    await catalog.aclose()

    assert ("old", "new") == (first.key, second.key)
    assert first.client is second.client


def test_a_server_of_ones_own_has_its_own_name() -> None:
    """So that its use is not told as the vendor's."""
    names = [
        provider_of(settings("openai-chat:x")),
        provider_of(settings("openai-chat:x", url="http://h/v1")),
        provider_of(settings("anthropic:x")),
    ]

    assert ["openai", "m", "anthropic"] == names
